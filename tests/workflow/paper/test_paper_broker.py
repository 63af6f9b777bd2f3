from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from llm_trader.errors import InvalidInputError, StaleDataError
from llm_trader.workflow.config import PaperConfig
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import Placed, Rejected
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.ledger import Ledger
from tests.workflow.builders import SYMBOL, at, bitcoin_steps, fine_steps, intent, paper_broker

COSTLY = PaperConfig(taker_fee_bps=5, slippage_bps=1, leverage=5, maintenance_margin_pct=1)


def price(broker: PaperBroker, minute: float, value: str) -> None:
    broker.on_price(SYMBOL, at(minute), Decimal(value))


async def wallet(broker: PaperBroker) -> Decimal:
    return (await broker.balance()).equity


def books(broker: PaperBroker) -> None:
    assert broker._ledger.check().problems == ()


async def test_an_order_waits_for_the_next_price_and_fills_there() -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    waits = await broker.place(intent("run", "2", minute=1))
    assert waits == Placed(client_order_id=waits.client_order_id, waiting=True)
    assert (await broker.position(SYMBOL)).waiting_orders == (waits.client_order_id,)
    price(broker, 2, "101")
    position = await broker.position(SYMBOL)
    assert (position.quantity, position.entry_price, position.waiting_orders) == (2, 101, ())
    again = await broker.place(intent("run", "2", minute=1))
    assert (again.filled, again.average_price) == (2, 101)


async def test_an_order_at_the_time_of_a_price_fills_at_once() -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    placed = await broker.place(intent("run", "-3"))
    assert (placed.filled, placed.average_price, placed.waiting) == (3, 100, False)
    assert (await broker.position(SYMBOL)).quantity == -3


async def test_the_same_order_again_changes_nothing() -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    first = await broker.place(intent("run", "2"))
    assert await broker.place(intent("run", "5")) == first
    assert (await broker.position(SYMBOL)).quantity == 2
    assert len(await broker.fills(0)) == 1


async def test_orders_that_come_together_share_a_transaction_and_each_has_its_answer() -> None:
    broker, begun = paper_broker(steps=_steps_but_of_ether), []
    for symbol in ("BTCUSDT", "SOLUSDT"):
        broker.on_price(symbol, at(0), Decimal(100))
    broker._ledger._file._connection.set_trace_callback(begun.append)
    long, short, unknown, waiting = await asyncio.gather(
        broker.place(intent("run", "2")),
        broker.place(intent("run", "-3", symbol="SOLUSDT")),
        broker.place(intent("run", "1", symbol="ETHUSDT")),
        broker.place(intent("run", "4", symbol="XRPUSDT")),
        return_exceptions=True,
    )
    assert (long.filled, short.filled, waiting.waiting) == (2, 3, True)
    assert isinstance(unknown, InvalidInputError)
    assert [(await broker.position(s)).quantity for s in ("BTCUSDT", "SOLUSDT")] == [2, -3]
    assert begun.count("BEGIN IMMEDIATE") == 1
    books(broker)


def _steps_but_of_ether(symbol: str) -> InstrumentRules:
    if symbol == "ETHUSDT":
        raise InvalidInputError("nobody knows its steps")
    return fine_steps(symbol)


async def test_an_order_lapses_when_no_price_comes_in_time() -> None:
    broker = paper_broker(PaperConfig(max_fill_wait_s=300))
    await broker.place(intent("late", "1"))
    price(broker, 5, "100")
    assert (await broker.position(SYMBOL)).side == 0
    result = await broker.place(intent("late", "1"))
    assert isinstance(result, Rejected)
    assert "300 s" in result.reason


async def test_a_round_trip_costs_fees_and_slippage_of_both_sides() -> None:
    broker = paper_broker(COSTLY)
    price(broker, 0, "100")
    await broker.place(intent("in", "10"))
    price(broker, 1, "110")
    await broker.place(intent("out", "-10", minute=1, kind="close"))
    assert await wallet(broker) == Decimal(10_000) + 100 - Decimal("0.0006") * (1000 + 1100)
    books(broker)


@pytest.mark.parametrize(("side", "stop", "target"), [(1, "98", "103"), (-1, "102", "97")])
async def test_the_stop_comes_first_where_a_candle_touches_both(
    side: int, stop: str, target: str
) -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    await broker.place(intent("run", Decimal(side), stop_price=Decimal(stop),
                              target_price=Decimal(target)))  # fmt: skip
    broker.on_candle(SYMBOL, at(1) - 1, Decimal(104), Decimal(96), Decimal(100))
    fill = (await broker.fills(0))[-1]
    assert (fill.reason, fill.price, fill.time_ms) == ("stop", Decimal(stop), at(1) - 1)
    assert await wallet(broker) == 10_000 - 2


async def test_a_stop_beyond_which_the_market_opens_fills_there_and_a_target_never_better() -> None:
    for value, reason, paid in (("90", "stop", "90"), ("120", "target", "103")):
        broker = paper_broker()
        price(broker, 0, "100")
        await broker.place(intent("run", "1", stop_price=Decimal(98), target_price=Decimal(103)))
        price(broker, 1, value)
        fill = (await broker.fills(0))[-1]
        assert (fill.reason, fill.price) == (reason, Decimal(paid))


async def test_a_position_is_closed_when_its_time_is_over() -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    await broker.place(intent("run", "1", close_at_ms=at(10)))
    price(broker, 9, "101")
    assert (await broker.position(SYMBOL)).side == 1
    price(broker, 10, "102")
    assert (await broker.fills(0))[-1].reason == "time"


async def test_funding_is_paid_by_who_held_a_position_before_it_was_due_however_late_it_comes():
    broker = paper_broker()
    price(broker, 0, "100")
    await broker.place(intent("in", "10"))
    price(broker, 8, "100")
    await broker.place(intent("out", "-10", minute=8, kind="close"))
    for due in (0, 8, 8, 9):  # at entry, at exit, once more, after it
        broker.on_funding(SYMBOL, at(due), Decimal("0.001"), Decimal(100))
    assert await wallet(broker) == 10_000 - 1
    books(broker)


async def test_a_short_receives_funding() -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    await broker.place(intent("in", "-10"))
    broker.on_funding(SYMBOL, at(1), Decimal("0.001"), Decimal(100))
    assert await wallet(broker) == 10_001


@pytest.mark.parametrize("side", [1, -1])
async def test_a_position_is_liquidated_where_its_margin_is_down_to_the_maintenance(
    side: int,
) -> None:
    broker = paper_broker(
        PaperConfig(taker_fee_bps=0, slippage_bps=0, leverage=5, maintenance_margin_pct=1)
    )
    price(broker, 0, "100")
    await broker.place(intent("run", Decimal(100 * side)))  # margin 2000 of 10,000
    price(broker, 1, "81" if side > 0 else "118.8")
    assert (await broker.position(SYMBOL)).side == side
    broker.on_candle(SYMBOL, at(2) - 1, Decimal("118.9"), Decimal("80.5"), Decimal(100))
    fill = (await broker.fills(0))[-1]
    assert fill.reason == "liquidation"
    # 100 coins at p: the margin and the profit are 1 % of 100·p.
    assert float(fill.price) == pytest.approx(80 / 0.99 if side > 0 else 120 / 1.01)
    assert await wallet(broker) > 10_000 - 2000
    books(broker)


async def test_no_position_loses_more_than_its_margin() -> None:
    broker = paper_broker(PaperConfig(leverage=5))
    price(broker, 0, "100")
    await broker.place(intent("run", "400"))
    price(broker, 1, "10")
    lost = Decimal(10_000) - await wallet(broker)
    entry_costs = Decimal("0.00065") * 40_000
    assert Decimal(8000) <= lost <= 8000 + entry_costs
    assert broker._ledger.balance("insurance", "USDT") < 0
    books(broker)


@pytest.mark.parametrize(
    ("quantity", "reason"),
    [
        ("0.0005", "multiple of the step"),
        ("0.001", "notional 50"),
        ("1000", "margin and fees"),
    ],
)
async def test_what_a_venue_would_refuse_is_rejected(quantity: str, reason: str) -> None:
    broker = paper_broker(steps=bitcoin_steps)
    price(broker, 0, "50000")
    result = await broker.place(intent("run", quantity))
    assert isinstance(result, Rejected)
    assert reason in result.reason
    assert (await broker.position(SYMBOL)).side == 0


async def test_a_closing_order_never_opens() -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    nothing = await broker.place(intent("early", "-1", kind="close"))
    assert isinstance(nothing, Rejected)
    await broker.place(intent("in", "1"))
    placed = await broker.place(intent("out", "-5", kind="close"))
    assert placed.filled == 1
    assert (await broker.position(SYMBOL)).quantity == 0


async def test_an_opposite_opening_order_closes_first_and_opens_the_rest() -> None:
    broker = paper_broker(COSTLY)
    price(broker, 0, "100")
    await broker.place(intent("in", "3"))
    price(broker, 1, "101")
    await broker.place(intent("turn", "-5", minute=1))
    assert (await broker.position(SYMBOL)).quantity == -2
    assert [f.quantity for f in await broker.fills(0)] == [3, 3, 2]
    books(broker)


async def test_a_reopened_ledger_knows_orders_positions_and_prices(tmp_path: Any) -> None:
    path = tmp_path / "books.sqlite"
    broker = paper_broker(ledger=Ledger(path))
    price(broker, 0, "100")
    first = await broker.place(intent("in", "2", stop_price=Decimal(98)))
    await broker.place(intent("later", "-2", minute=3, kind="close"))
    before = await broker.position(SYMBOL), await broker.balance()
    await broker.close()
    again = paper_broker(ledger=Ledger(path))
    assert (await again.position(SYMBOL), await again.balance()) == before
    assert await again.place(intent("in", "2")) == first
    price(again, 3, "105")
    assert await wallet(again) == 10_010
    await again.close()


async def test_two_processes_see_each_others_orders(tmp_path: Any) -> None:
    one, other = (paper_broker(ledger=Ledger(tmp_path / "books.sqlite")) for _ in range(2))
    price(one, 0, "100")
    assert (await other.position(SYMBOL)).side == 0
    await one.place(intent("in", "2"))
    assert (await other.position(SYMBOL)).quantity == 2
    price(other, 1, "110")
    await other.place(intent("out", "-2", minute=1, kind="close"))
    assert (await one.position(SYMBOL)).side == 0
    assert await wallet(one) == await wallet(other) == 10_020


async def test_a_price_that_is_unknown_is_no_equity() -> None:
    broker = paper_broker()
    with pytest.raises(StaleDataError, match="no price of BTCUSDT"):
        await broker.quote(SYMBOL)
    assert await wallet(broker) == 10_000


async def test_cancelling_withdraws_what_waits_and_keeps_the_position() -> None:
    broker = paper_broker()
    price(broker, 0, "100")
    await broker.place(intent("in", "2"))
    await broker.place(intent("more", "2", minute=1))
    await broker.cancel(SYMBOL)
    price(broker, 1, "101")
    assert (await broker.position(SYMBOL)).quantity == 2
