"""What the workflow may expect of any broker: paper, Binance, Bybit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_trader.workflow.broker import Broker
from llm_trader.workflow.config import ExecutionConfig, PaperConfig
from llm_trader.workflow.exchange.venue import AccountVenue
from llm_trader.workflow.execution import Execution, OrderContext, execute
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import OrderIntent, Placed, Rejected
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.ledger import Ledger
from tests.exchange.server import FakeExchange
from tests.workflow.builders import START_MS, SYMBOL, decision_of, intent
from tests.workflow.exchange.accounts import broker_of

pytestmark = pytest.mark.asyncio(loop_scope="package")


def steps(symbol: str) -> InstrumentRules:
    return InstrumentRules(
        symbol=symbol,
        quantity_step=Decimal("0.001"),
        price_tick=Decimal("0.01"),
        min_quantity=Decimal("0.001"),
        min_notional=Decimal(5),
    )


@dataclass
class Market:
    """Time and price at a broker, whichever it is."""

    broker: Broker
    exchange: FakeExchange

    def set_price(self, price: str) -> None:
        self.exchange.market.now_ms += 60_000
        now_ms = self.exchange.market.now_ms
        if isinstance(self.broker, PaperBroker):
            self.broker.on_price(SYMBOL, now_ms, Decimal(price))
        else:
            self.exchange.market.account.move_price(SYMBOL, Decimal(price), now_ms)

    def intent(self, run: str, quantity: str, **fields: Any) -> OrderIntent:
        now = (self.exchange.market.now_ms - START_MS) / 60_000
        return intent(run, quantity, minute=now, **fields)

    async def decide(self, run: str, side: int) -> Execution:
        context = OrderContext(run_id=run, symbol=SYMBOL, now_ms=self.exchange.market.now_ms)
        return await execute(decision_of(side), self.broker, context, ExecutionConfig())

    async def quantity(self) -> Decimal:
        return (await self.broker.position(SYMBOL)).quantity


@pytest.fixture(params=["paper", "binance", "bybit"])
def market(
    request: pytest.FixtureRequest,
    connections: dict[str, AccountVenue],
    exchange: FakeExchange,
    tmp_path: Path,
) -> Iterator[Market]:
    if request.param == "paper":
        config = PaperConfig(taker_fee_bps=5, slippage_bps=0)
        broker: Any = PaperBroker(Ledger(None), config, steps, now_ms=START_MS)
    else:
        broker = broker_of(connections[request.param], exchange, tmp_path / "orders.sqlite")
    market = Market(broker, exchange)
    market.set_price("100")
    yield market
    if request.param != "paper":
        broker._journal.close()


async def test_an_order_is_placed_once_with_stop_and_target(market: Market) -> None:
    prices = {"stop_price": Decimal("97.5"), "target_price": Decimal(104)}
    order = market.intent("run", "2", close_at_ms=START_MS + 10**8, **prices)
    placed = await market.broker.place(order)
    assert isinstance(placed, Placed)
    assert (placed.filled, placed.average_price, placed.waiting) == (2, 100, False)
    assert await market.broker.place(order) == placed
    position = await market.broker.position(SYMBOL)
    assert (position.quantity, position.entry_price) == (2, 100)
    assert (position.stop_price, position.target_price) == (Decimal("97.5"), 104)
    assert (position.opened_by, position.close_at_ms) == (order.client_order_id, START_MS + 10**8)
    assert position.waiting_orders == ()


@pytest.mark.parametrize(("price", "on_paper", "elsewhere"), [("97", -6, -6), ("105", 8, 10)])
async def test_a_stop_or_target_ends_a_position(
    market: Market, price: str, on_paper: int, elsewhere: int
) -> None:
    """On paper a target never fills better than its price."""
    prices = {"stop_price": Decimal("97.5"), "target_price": Decimal(104)}
    await market.broker.place(market.intent("run", "2", **prices))
    market.set_price(price)
    report = await market.broker.reconcile(SYMBOL)
    assert (report.position.side, report.unknown) == (0, ())
    closing = (await market.broker.fills(START_MS))[-1]
    assert not closing.opens
    assert closing.realized == (on_paper if market.broker.name == "paper" else elsewhere)


async def test_an_order_that_closes_never_opens(market: Market) -> None:
    await market.broker.place(market.intent("in", "2"))
    placed = await market.broker.place(market.intent("out", "-3", kind="close"))
    assert isinstance(placed, Placed)
    assert placed.filled == 2
    again = await market.broker.place(market.intent("again", "-3", kind="close"))
    assert isinstance(again, Rejected)
    assert await market.quantity() == 0


@pytest.mark.parametrize("quantity", ["0.01", "0.0305"])
async def test_too_small_or_uneven_orders_are_rejected(market: Market, quantity: str) -> None:
    result = await market.broker.place(market.intent("run", quantity))
    assert isinstance(result, Rejected)
    assert await market.broker.place(market.intent("run", quantity)) == result
    assert await market.quantity() == 0


async def test_more_than_the_margin_is_rejected(market: Market) -> None:
    assert isinstance(await market.broker.place(market.intent("run", "9000")), Rejected)


async def test_balance_exposure_and_fills_agree(market: Market) -> None:
    await market.broker.place(market.intent("in", "-2"))
    market.set_price("101")
    balance = await market.broker.balance()
    assert balance.unrealized == -2
    assert balance.equity == 10_000 - 2 - Decimal("0.1")
    assert await market.broker.exposures() == {SYMBOL: 202}
    await market.broker.place(market.intent("out", "2", kind="close"))
    opening, closing = await market.broker.fills(START_MS)
    assert (opening.side, opening.opens, opening.realized) == ("SELL", True, 0)
    assert (closing.side, closing.opens, closing.realized) == ("BUY", False, -2)
    fees = opening.fee + closing.fee
    assert fees == Decimal("0.201")
    assert (await market.broker.balance()).equity == 10_000 - 2 - fees


async def test_decisions_open_keep_reverse_and_may_be_repeated(market: Market) -> None:
    for run, side, held in (("1", 1, 20), ("2", 0, 20), ("3", 1, 20), ("4", -1, -20)):
        await market.decide(run, side)
        await market.decide(run, side)
        assert round(await market.quantity()) == held
        market.set_price("100.5" if held > 0 else "99.5")
    sides = [fill.opens for fill in await market.broker.fills(START_MS)]
    assert sides == [True, False, True]
    position = await market.broker.position(SYMBOL)
    assert position.stop_price is not None
    assert position.target_price is not None
    assert position.target_price < 100 < position.stop_price
