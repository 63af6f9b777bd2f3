from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_trader.cli.show_decisions import _decision_lines
from llm_trader.clock import WallClock
from llm_trader.errors import ExchangeError
from llm_trader.llm.decision import Decision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.workflow.config import GuardConfig, WorkflowConfig
from llm_trader.workflow.engine.protocol import RunOptions
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.nodes.running import NodeRun, decision_key
from llm_trader.workflow.nodes.trading import BrokerExecutes, BrokerGuard
from llm_trader.workflow.orders import Position, Reconciliation, Rejected, Unknown
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.values import ExecuteInputs, GuardInputs
from tests.llm.record.decisions import recorded
from tests.workflow.builders import START_MS, SYMBOL, paper_broker

LONG = Decision("LONG", 0.7, "as the test says", stop_pct=-2.0, target_pct=3.0, size_pct=10.0)
RUN = NodeRun("a-run", RunOptions())
NOW_MS = START_MS + 2_000
CLOCK = WallClock(lambda: NOW_MS)


@pytest.fixture
def config(tmp_path: Path) -> WorkflowConfig:
    return WorkflowConfig(guards=GuardConfig(kill_switch=tmp_path / "kill", min_reward_risk=0))


@pytest.fixture
def broker() -> PaperBroker:
    """It has seen a price just now."""
    paper = paper_broker()
    paper.on_price(SYMBOL, NOW_MS, Decimal(100))
    return paper


@pytest.fixture
def state() -> MarketSnapshot:
    return MarketSnapshot(
        symbol=SYMBOL, timestamp=START_MS, price=100.0, expected_volatility_4h=1.0
    )


async def test_a_decision_passes_and_is_executed_once(
    broker: PaperBroker, config: WorkflowConfig, state: MarketSnapshot
) -> None:
    checked = await BrokerGuard(broker, config, CLOCK)(
        GuardInputs(decision=LONG, snapshot=state), RUN
    )
    assert (checked.decision, checked.vetoes) == (LONG, [])
    executes = BrokerExecutes(broker, config, CLOCK)
    inputs = ExecuteInputs(decision=checked.decision, snapshot=state)
    first, second = await executes(inputs, RUN), await executes(inputs, RUN)
    assert (first.state, second.state) == ("placed", "placed")
    assert first.orders[0]["client_order_id"] == second.orders[0]["client_order_id"]
    assert len(await broker.fills(0)) == 1


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ("reconcile", "unknown"),
        ("exposures", "unknown"),
        ("balance", "unknown"),
        ("quote", "unknown"),
        ("fills", "unknown"),
    ],
)
async def test_what_the_broker_cannot_say_stops_a_trade(
    broker: PaperBroker, config: WorkflowConfig, state: MarketSnapshot, asked: str, rule: str
) -> None:
    async def silent(*args: Any) -> Any:
        raise ExchangeError("it does not answer")

    setattr(broker, asked, silent)
    guard = BrokerGuard(broker, config, CLOCK)
    checked = await guard(GuardInputs(decision=LONG, snapshot=state), RUN)
    assert checked.decision.hold_reason == "guard"
    assert rule in {veto.rule for veto in checked.vetoes}


async def test_the_kill_switch_stops_a_decision_and_an_order_that_passed_before(
    broker: PaperBroker, config: WorkflowConfig, state: MarketSnapshot
) -> None:
    KillSwitch(config.guards.kill_switch).turn_on("test", NOW_MS)
    guard = BrokerGuard(broker, config, CLOCK)
    checked = await guard(GuardInputs(decision=LONG, snapshot=state), RUN)
    assert [veto.rule for veto in checked.vetoes] == ["kill_switch"]
    inputs = ExecuteInputs(decision=LONG, snapshot=state)
    executed = await BrokerExecutes(broker, config, CLOCK)(inputs, RUN)
    assert executed.state == "none"
    assert "kill switch" in executed.message
    assert await broker.fills(0) == []


async def test_a_run_that_goes_on_too_late_orders_nothing_and_says_why(
    broker: PaperBroker, config: WorkflowConfig, state: MarketSnapshot
) -> None:
    """Its guard let the decision pass, and then the process was away for an hour."""
    late = WallClock(lambda: NOW_MS + 3_600_000)
    executes = BrokerExecutes(broker, config, late)
    executed = await executes(ExecuteInputs(decision=LONG, snapshot=state), RUN)
    assert (executed.state, executed.orders) == ("none", [])
    assert executed.message == "the decision is void: it is 3602 s old, at most 300 s are allowed"
    assert await broker.fills(0) == []


async def test_an_order_of_a_run_that_goes_on_too_late_is_not_forgotten(
    broker: PaperBroker, config: WorkflowConfig, state: MarketSnapshot
) -> None:
    """It was filled, and its stop met, while the run did not know that."""
    inputs = ExecuteInputs(decision=LONG, snapshot=state)
    first = await BrokerExecutes(broker, config, CLOCK)(inputs, RUN)
    broker.on_price(SYMBOL, NOW_MS + 60_000, Decimal(90))
    KillSwitch(config.guards.kill_switch).turn_on("test", NOW_MS)
    late = WallClock(lambda: NOW_MS + 3_600_000)
    again = await BrokerExecutes(broker, config, late)(inputs, RUN)
    assert again.state == "placed"
    assert again.orders == first.orders
    assert [fill.opens for fill in await broker.fills(0)] == [True, False]


async def test_an_unsettled_order_stops_the_symbol(
    broker: PaperBroker, config: WorkflowConfig, state: MarketSnapshot
) -> None:
    async def reconcile(symbol: str) -> Reconciliation:
        return Reconciliation(position=Position(symbol=symbol), unknown=("an-order",))

    broker.reconcile = reconcile  # type: ignore[method-assign]
    checked = await BrokerGuard(broker, config, CLOCK)(
        GuardInputs(decision=LONG, snapshot=state), RUN
    )
    assert "unsettled" in {veto.rule for veto in checked.vetoes}
    inputs = ExecuteInputs(decision=LONG, snapshot=state)
    executed = await BrokerExecutes(broker, config, CLOCK)(inputs, RUN)
    assert (executed.state, executed.orders) == ("unknown", [])


@pytest.mark.parametrize(
    ("result", "state_of_it"),
    [
        (Rejected(client_order_id="x", reason="too small"), "rejected"),
        (Unknown(client_order_id="x", reason="no reply"), "unknown"),
    ],
)
async def test_the_three_states_of_an_order_are_never_mixed(
    broker: PaperBroker,
    config: WorkflowConfig,
    state: MarketSnapshot,
    result: Any,
    state_of_it: str,
) -> None:
    async def place(intent: Any) -> Any:
        return msgspec.structs.replace(result, client_order_id=intent.client_order_id)

    broker.place = place  # type: ignore[method-assign]
    inputs = ExecuteInputs(decision=LONG, snapshot=state)
    executed = await BrokerExecutes(broker, config, CLOCK)(inputs, RUN)
    assert (executed.state, executed.message) == (state_of_it, result.reason)


async def test_a_hold_closes_what_is_overdue(
    broker: PaperBroker, config: WorkflowConfig, state: MarketSnapshot
) -> None:
    inputs = ExecuteInputs(decision=LONG, snapshot=state)
    await BrokerExecutes(broker, config, CLOCK)(inputs, RUN)
    later_ms = NOW_MS + config.execution.longest_hold_minutes * 60_000
    executes = BrokerExecutes(broker, config, WallClock(lambda: later_ms))
    hold = ExecuteInputs(decision=Decision.hold("model", "no"), snapshot=state)
    executed = await executes(hold, NodeRun("a-later-run", RunOptions()))
    assert executed.state == "placed"
    assert executed.message == "the position was closed"


async def test_a_veto_stands_with_its_numbers_in_the_record_of_decisions(
    broker: PaperBroker, state: MarketSnapshot, tmp_path: Path
) -> None:
    config = WorkflowConfig(
        guards=GuardConfig(kill_switch=tmp_path / "kill", min_reward_risk=0, max_position_pct=5)
    )
    with DecisionRecord.open(tmp_path / "record") as record:
        made = record.decisions.add(recorded(LONG, key=decision_key(RUN.run_id, "rag")))
        guard = BrokerGuard(broker, config, CLOCK, record.decisions)
        checked = await guard(GuardInputs(decision=LONG, snapshot=state), RUN)
        stored = record.decisions.get(made.id)
    assert stored.decision == LONG
    assert stored.vetoes == checked.vetoes
    (veto,) = stored.vetoes
    assert (veto.rule, veto.numbers) == ("position", {"size_pct": 10.0, "limit_pct": 5.0})
    shown = "\n".join(map(str, _decision_lines(stored, [])))
    assert "The guard position refused it: the position would be 10 % of equity" in shown
    assert "(size_pct 10, limit_pct 5)" in shown
