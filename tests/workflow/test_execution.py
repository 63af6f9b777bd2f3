from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from llm_trader.llm.decision import Decision
from llm_trader.timeframe import MINUTE_MS
from llm_trader.workflow.config import ExecutionConfig
from llm_trader.workflow.execution import Execution, OrderContext, execute
from llm_trader.workflow.orders import Placed, Position, Rejected
from llm_trader.workflow.paper.broker import PaperBroker
from tests.workflow.builders import SYMBOL, at, bitcoin_steps, decision_of, paper_broker

CONFIG = ExecutionConfig(size_pct=50)


async def decide(
    broker: PaperBroker, side: int, minute: float, config: ExecutionConfig = CONFIG, **given: Any
) -> Execution:
    context = OrderContext(run_id=f"run {minute}", symbol=SYMBOL, now_ms=at(minute))
    decision = given.pop("decision", decision_of(side))
    return await execute(decision, broker, context, config, **given)


def at_price(minute: float, value: str, broker: PaperBroker | None = None) -> PaperBroker:
    broker = broker or paper_broker(steps=bitcoin_steps)
    broker.on_price(SYMBOL, at(minute), Decimal(value))
    return broker


async def held(broker: PaperBroker) -> Position:
    return await broker.position(SYMBOL)


@pytest.mark.parametrize("side", [1, -1])
async def test_a_decision_opens_a_position_of_its_size_with_stop_target_and_deadline(
    side: int,
) -> None:
    broker = at_price(0, "30000")
    (result,) = (await decide(broker, side, 0)).results
    assert isinstance(result, Placed)
    position = await held(broker)
    # Half of 10,000 is 0.1666 coins, in steps of 0.001.
    assert position.quantity == side * Decimal("0.166")
    assert position.stop_price == 30_000 - side * 600
    assert position.target_price == 30_000 + side * 900
    assert position.close_at_ms == at(0) + 240 * MINUTE_MS


async def test_the_decisions_own_stop_target_and_size_have_precedence() -> None:
    broker = at_price(0, "30000")
    decision = Decision("SHORT", None, "", stop_pct=-1.0, target_pct=2.0, size_pct=10.0)
    await decide(broker, -1, 0, decision=decision)
    position = await held(broker)
    assert (position.quantity, position.stop_price, position.target_price) == (
        Decimal("-0.033"), 30_300, 29_400
    )  # fmt: skip


async def test_a_hold_and_a_repeated_side_keep_a_position() -> None:
    broker = at_price(0, "30000")
    assert (await decide(broker, 0, 0)).note == "there is nothing to do"
    await decide(broker, 1, 0)
    before = await held(broker)
    at_price(15, "30100", broker)
    assert (await decide(broker, 1, 15)).note == "the position is kept"
    assert (await decide(broker, 0, 15)).note == "the position is kept"
    assert await held(broker) == before


@pytest.mark.parametrize(("opposite", "sides"), [("reverse", -1), ("close", 0), ("ignore", 1)])
async def test_an_opposite_decision_does_what_the_setting_says(opposite: Any, sides: int) -> None:
    broker = at_price(0, "30000")
    await decide(broker, 1, 0)
    at_price(15, "30100", broker)
    await decide(broker, -1, 15, ExecutionConfig(opposite=opposite))
    assert (await held(broker)).side == sides


async def test_a_run_that_is_repeated_orders_nothing_more() -> None:
    broker = at_price(0, "30000")
    first = await decide(broker, 1, 0)
    at_price(1, "29900", broker)
    again = await decide(broker, 1, 0)
    assert again.results == first.results
    assert again.note == "this run has opened the position already"
    assert len(await broker.fills(0)) == 1
    at_price(2, "29000", broker)  # its stop
    assert (await decide(broker, 1, 0)).results == first.results
    assert len(await broker.fills(0)) == 2


async def test_a_run_that_died_between_closing_and_opening_goes_on() -> None:
    broker = at_price(0, "30000")
    await decide(broker, 1, 0)
    at_price(15, "30100", broker)
    # It dies after the first of its two orders.
    dying = decide(broker, -1, 15, kill_reason=lambda: "dead")
    assert (await dying).note == "dead"
    assert (await held(broker)).side == 0
    await decide(broker, -1, 15)
    assert (await held(broker)).side == -1
    await decide(broker, -1, 15)
    assert [fill.opens for fill in await broker.fills(0)] == [True, False, True]


async def test_a_decision_that_is_void_neither_closes_nor_opens() -> None:
    broker = at_price(0, "30000")
    await decide(broker, 1, 0)
    at_price(15, "30100", broker)
    kept = await decide(broker, -1, 15, void_reason=lambda quote: f"void at {quote.price}")
    assert (kept.results, kept.note) == ((), "the position is kept: void at 30100")
    assert (await held(broker)).side == 1
    # Its closing order was sent before it was void: that is looked up, and nothing is opened.
    await decide(broker, -1, 15, kill_reason=lambda: "dead")
    late = await decide(broker, -1, 15, void_reason=lambda quote: "void")
    assert (late.results, late.note) == ((), "void")
    assert (await held(broker)).side == 0


async def test_the_kill_switch_lets_close_and_not_open() -> None:
    broker = at_price(0, "30000")
    assert (await decide(broker, 1, 0, kill_reason=lambda: "on")).results == ()
    await decide(broker, 1, 0)
    at_price(15, "30100", broker)
    execution = await decide(broker, -1, 15, kill_reason=lambda: "on")
    assert (execution.note, len(execution.results)) == ("on", 1)
    assert (await held(broker)).side == 0


async def test_an_equity_that_is_too_small_for_a_step_orders_nothing() -> None:
    broker = at_price(0, "90000000")
    execution = await decide(broker, 1, 0)
    assert execution.results == ()
    assert "too little for a step" in execution.note


async def test_what_the_venue_refuses_is_rejected_and_nothing_is_held() -> None:
    broker = at_price(0, "30000")
    decision = Decision("LONG", None, "", size_pct=0.35)
    (result,) = (await decide(broker, 1, 0, decision=decision)).results
    assert isinstance(result, Rejected)
    assert "notional" in result.reason
    assert (await held(broker)).side == 0


async def test_a_reversal_without_a_price_yet_closes_and_opens_at_the_next_one() -> None:
    broker = at_price(0, "30000")
    await decide(broker, 1, 0)
    execution = await decide(broker, -1, 1)
    assert [type(result) for result in execution.results] == [Placed, Placed]
    assert (await held(broker)).side == 1
    at_price(3, "30100", broker)
    assert (await held(broker)).side == -1
