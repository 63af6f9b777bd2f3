from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_trader.errors import ExchangeError
from llm_trader.timeframe import Millis
from llm_trader.workflow.config import GuardConfig
from llm_trader.workflow.facts import DecidedState, collect_facts
from llm_trader.workflow.guards import GuardFacts, guarded
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.orders import Reconciliation
from llm_trader.workflow.paper.broker import PaperBroker
from tests.workflow.builders import START_MS, SYMBOL, at, decision_of, intent, paper_broker
from tests.workflow.test_guards import EXECUTION


async def facts_of(
    broker: Any, tmp_path: Path, now_ms: Millis | None = START_MS + 60_000, **config: Any
) -> GuardFacts:
    state = DecidedState(symbol=SYMBOL, as_of_ms=at(0), price=100.0, data_ms=at(0))
    guards = GuardConfig(kill_switch=tmp_path / "kill", **config)
    return await collect_facts(broker, state, now_ms, "4h", guards)


def held_broker() -> PaperBroker:
    broker = paper_broker()
    for symbol in (SYMBOL, "ETHUSDT"):
        broker.on_price(symbol, at(0), Decimal(100))
    return broker


async def test_the_facts_are_what_the_broker_says(tmp_path: Path) -> None:
    broker = held_broker()
    await broker.place(intent("eth", "-3", symbol="ETHUSDT"))
    facts = await facts_of(broker, tmp_path)
    assert facts.quote is not None
    assert (facts.quote.price, facts.exposures) == (100, {"ETHUSDT": 300})
    assert facts.balance == await broker.balance()
    assert facts.position == await broker.position(SYMBOL)
    assert [fill.symbol for fill in facts.fills or ()] == ["ETHUSDT"]
    assert (facts.kill_reason, facts.unknown_orders) == (None, ())


async def test_fills_reach_back_to_midnight_and_as_far_as_the_cooldown(tmp_path: Path) -> None:
    broker = held_broker()
    await broker.place(intent("in", "1"))
    asked: list[Millis] = []

    async def fills(since_ms: Millis) -> list[Any]:
        asked.append(since_ms)
        return []

    broker.fills = fills  # type: ignore[method-assign]
    await facts_of(broker, tmp_path, at(70))
    await facts_of(broker, tmp_path, at(70), cooldown_s=7200.0)
    assert asked == [START_MS, at(-50)]


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("quote", "quote"),
        ("balance", "balance"),
        ("exposures", "exposures"),
        ("fills", "fills"),
        ("reconcile", "position"),
        ("reconcile", "unknown_orders"),
    ],
)
async def test_what_the_broker_cannot_say_is_unknown_and_vetoed(
    question: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = held_broker()

    async def fail(*_: Any) -> Reconciliation:
        raise ExchangeError("no answer")

    monkeypatch.setattr(broker, question, fail)
    facts = await facts_of(broker, tmp_path)
    assert getattr(facts, fact) is None
    decision, vetoes = guarded(decision_of(1), facts, GuardConfig(), EXECUTION)
    assert decision.hold_reason == "guard"
    assert "unknown" in {veto.rule for veto in vetoes}


async def test_without_a_time_nothing_is_known_of_the_day(tmp_path: Path) -> None:
    facts = await facts_of(held_broker(), tmp_path, None)
    assert facts.fills is None


async def test_the_kill_switch_is_among_the_facts(tmp_path: Path) -> None:
    KillSwitch(tmp_path / "kill").turn_on("enough", START_MS)
    assert "enough" in ((await facts_of(held_broker(), tmp_path)).kill_reason or "")
