from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from llm_trader.llm.decision import Decision
from llm_trader.workflow.config import ExecutionConfig, GuardConfig
from llm_trader.workflow.guards import GuardFacts, Veto, guarded
from llm_trader.workflow.orders import Balance, Fill, Position, Quote
from tests.workflow.builders import SYMBOL, at

LONG = Decision("LONG", 0.7, "the neighbours rose")
EXECUTION = ExecutionConfig(stop_pct=2, target_pct=3, size_pct=20)
CONFIG = GuardConfig()


def facts(**changes: Any) -> GuardFacts:
    """Facts that no rule objects to, but for the changes."""
    return replace(
        GuardFacts(
            symbol=SYMBOL,
            now_ms=at(1),
            as_of_ms=at(0),
            price_then=100.0,
            data_ms=at(0),
            quote=Quote(Decimal("100.1"), at(1)),
            position=Position(symbol=SYMBOL),
            balance=Balance(
                currency="USDT",
                equity=Decimal(10_000),
                available=Decimal(10_000),
                unrealized=Decimal(0),
            ),
            exposures={},
            fills=(),
            verdict="weak",
            novelty=40.0,
            expected_move_pct=1.0,
        ),
        **changes,
    )


def fill(minute: float, realized: str = "0", *, opens: bool = False, run: str = "a") -> Fill:
    return Fill(
        client_order_id=run,
        symbol=SYMBOL,
        side="BUY",
        time_ms=at(minute),
        price=Decimal(100),
        quantity=Decimal(1),
        fee=Decimal(1),
        slippage=Decimal(0),
        realized=Decimal(realized),
        opens=opens,
        reason="order",
    )


def vetoes(
    decision: Decision = LONG, config: GuardConfig = CONFIG, **changes: Any
) -> tuple[Veto, ...]:
    result, found = guarded(decision, facts(**changes), config, EXECUTION)
    assert (result.hold_reason == "guard") == bool(found)
    return found


def rules(decision: Decision = LONG, config: GuardConfig = CONFIG, **changes: Any) -> set[str]:
    return {veto.rule for veto in vetoes(decision, config, **changes)}


def test_a_decision_that_no_rule_objects_to_passes_unchanged() -> None:
    assert guarded(LONG, facts(), CONFIG, EXECUTION) == (LONG, ())


def test_a_hold_stays_what_it_was() -> None:
    hold = Decision.hold("error", "no reply")
    assert guarded(hold, facts(kill_reason="on", now_ms=None), CONFIG, EXECUTION) == (hold, ())


def test_a_veto_is_a_hold_that_names_every_rule_and_its_numbers() -> None:
    decision, found = guarded(LONG, facts(data_ms=at(-20), now_ms=at(6)), CONFIG, EXECUTION)
    assert (decision.action, decision.hold_reason) == ("HOLD", "guard")
    assert [veto.rule for veto in found] == ["data_age", "expiry"]
    assert found[0].numbers == {"age_s": 1560.0, "limit_s": 600.0}
    assert "LONG was refused: data_age: the market data are 1560 s old" in decision.reasoning
    assert "at most 300 s are allowed" in decision.reasoning


@pytest.mark.parametrize(
    "name",
    ["now_ms", "quote", "position", "balance", "exposures", "fills", "open_runs",
     "unknown_orders"],
)  # fmt: skip
def test_whatever_is_unknown_closes_the_way(name: str) -> None:
    assert "unknown" in rules(**{name: None})


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("kill_switch", {"kill_reason": "the kill switch is on"}),
        ("unsettled", {"unknown_orders": ("lt1",)}),
        ("one_decision", {"open_runs": ("run 7",)}),
        ("one_decision", {"position": Position(symbol=SYMBOL, waiting_orders=("lt1",))}),
        ("data_age", {"data_ms": None}),
        ("data_age", {"data_ms": at(-9.01)}),
        ("data_age", {"data_ms": at(2)}),
        ("expiry", {"as_of_ms": at(2)}),
        ("expiry", {"now_ms": at(5.1)}),
        ("expiry", {"quote": Quote(Decimal("100.51"), at(1))}),
        ("expiry", {"quote": Quote(Decimal("99.49"), at(1))}),
        ("expiry", {"price_then": None}),
        ("expiry", {"price_then": float("nan")}),
        ("reward_risk", {"expected_move_pct": None}),
        ("reward_risk", {"expected_move_pct": float("nan")}),
        ("reward_risk", {"expected_move_pct": 0.33}),
        ("exposure", {"exposures": {"ETHUSDT": Decimal(18_001)}}),
        ("daily_loss", {"fills": (fill(0, "-530"),)}),
        ("equity", {"balance": Balance(currency="USDT", equity=Decimal(0), available=Decimal(0),
                                       unrealized=Decimal(0))}),
    ],
)  # fmt: skip
def test_each_rule_vetoes_what_lies_beyond_its_limit(rule: str, changes: dict[str, Any]) -> None:
    assert rules(**changes) == {rule}


@pytest.mark.parametrize(
    ("rule", "config", "changes"),
    [
        ("verdict", {"least_verdict": "informative"}, {}),
        ("verdict", {"least_verdict": "weak"}, {"verdict": None}),
        ("novelty", {"max_novelty": 39.0}, {}),
        ("novelty", {"max_novelty": 39.0}, {"novelty": None}),
        ("novelty", {"max_novelty": 39.0}, {"novelty": float("nan")}),
        ("position", {"max_position_pct": 19.0}, {}),
        ("leverage", {"max_leverage": 0.5}, {"exposures": {"ETHUSDT": Decimal(3001)}}),
        ("cooldown", {"cooldown_s": 61.0}, {"fills": (fill(0),)}),
        ("trades_per_day", {"max_trades_per_day": 2},
         {"fills": (fill(0, opens=True), fill(0, opens=True, run="b"))}),
    ],
)  # fmt: skip
def test_each_limit_is_a_setting(
    rule: str, config: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert rules(config=GuardConfig(**config), **changes) == {rule}


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ({}, {"data_ms": at(-9)}),
        ({}, {"now_ms": at(5)}),
        ({}, {"quote": Quote(Decimal("100.5"), at(1))}),
        ({}, {"expected_move_pct": 0.34}),
        ({}, {"exposures": {"ETHUSDT": Decimal(18_000), SYMBOL: Decimal(9999)}}),
        ({}, {"fills": (fill(0, "-400"),)}),
        ({}, {"fills": (fill(-1, "-3000"),)}),  # of the day before
        ({"least_verdict": "weak"}, {}),
        ({"max_novelty": 40.0}, {}),
        ({"cooldown_s": 60.0}, {"fills": (fill(0),)}),
        # One order in two fills is one trade.
        ({"max_trades_per_day": 2}, {"fills": (fill(0, opens=True), fill(0, opens=True))}),
        ({"min_reward_risk": 0.0}, {"expected_move_pct": None}),
    ],
)
def test_what_is_within_the_limit_passes(config: dict[str, Any], changes: dict[str, Any]) -> None:
    assert rules(config=GuardConfig(**config), **changes) == set()


def test_the_decisions_own_stop_target_and_size_count() -> None:
    assert rules(Decision("LONG", None, "", stop_pct=-7.0)) == {"reward_risk"}
    assert rules(Decision("SHORT", None, "", target_pct=0.5)) == {"reward_risk"}
    small = GuardConfig(max_position_pct=50)
    assert rules(Decision("LONG", None, "", size_pct=51.0), small) == {"position"}


def test_limits_of_new_positions_do_not_stop_a_repeated_side() -> None:
    held = Position(symbol=SYMBOL, quantity=Decimal(1))
    strict = GuardConfig(max_position_pct=1, max_trades_per_day=0, cooldown_s=9999)
    assert rules(config=strict, position=held, fills=(fill(0),)) == set()
    short = Decision("SHORT", None, "")
    assert rules(short, strict, position=held, fills=(fill(0),)) == {
        "position", "trades_per_day", "cooldown"
    }  # fmt: skip


def test_a_fill_of_unknown_profit_ends_the_day() -> None:
    assert rules(fills=(replace(fill(0), realized=None),)) == {"daily_loss"}


def test_an_open_loss_counts_for_the_day() -> None:
    balance = Balance(
        currency="USDT", equity=Decimal(9400), available=Decimal(1), unrealized=Decimal(-500)
    )
    assert rules(balance=balance) == {"daily_loss"}
