"""Stored candles come to a broker in the order of time, and once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.timeframe import M5, Millis
from llm_trader.trading.rules import TradingRules
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.feed import MarketFeed
from tests.evaluation.backtest.test_simulator import market
from tests.workflow.builders import FREE, START_MS, SYMBOL, Decided, backtest, intent, paper_broker
from tests.workflow.paper.test_simulator_agreement import configs


class Seen(PaperBroker):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Millis]] = []

    def on_price(self, symbol: str, time_ms: Millis, price: Decimal) -> None:
        self.told.append(("price", time_ms))

    def on_candle(self, symbol: str, last_ms: Millis, *rest: Any) -> None:
        self.told.append(("candle", last_ms))

    def on_funding(self, symbol: str, due_ms: Millis, *rest: Any) -> None:
        self.told.append(("funding", due_ms))


def series(funding_ms: list[Millis]) -> tuple[CandleSeries, FundingSeries]:
    flat = [100.0, 100.0, 100.0]
    opens = [START_MS, START_MS + M5.ms, START_MS + 3 * M5.ms]
    candles = CandleSeries.validated(
        M5,
        {"open_time_ms": opens, "open": flat, "high": flat, "low": flat, "close": flat,
         "volume": flat},
    )  # fmt: skip
    size = len(funding_ms)
    return candles, FundingSeries.validated(
        {"time_ms": funding_ms, "rate": [0.001] * size, "interval_hours": [8.0] * size}
    )


def test_a_settlement_comes_before_the_trade_of_its_time_and_a_candle_when_it_is_over() -> None:
    seen = Seen()
    feed = MarketFeed(SYMBOL, *series([START_MS + 7_000, START_MS + M5.ms, START_MS + 2 * M5.ms]))
    feed.advance(seen, START_MS)
    assert seen.told == [("funding", START_MS), ("price", START_MS)]
    seen.told.clear()
    feed.advance(seen, START_MS + M5.ms)
    second = START_MS + M5.ms
    assert seen.told == [("candle", second - 1), ("funding", second), ("price", second)]
    seen.told.clear()
    # Into the hole, and over it.
    feed.advance(seen, START_MS + 2 * M5.ms)
    feed.advance(seen, START_MS + 9 * M5.ms)
    third, fourth = START_MS + 2 * M5.ms, START_MS + 3 * M5.ms
    assert seen.told == [
        ("candle", third - 1), ("funding", third), ("price", fourth),
        ("candle", fourth + M5.ms - 1),
    ]  # fmt: skip


@given(st.integers(0, 2**32 - 1).map(market))
async def test_feeds_that_begin_again_lead_to_the_same_fills(data: Any) -> None:
    """As a live process reads the store again and again."""
    decided = Decided(data.candles, data.funding, data.time_ms.tolist(), data.sides.tolist())
    execution, paper = configs(TradingRules(), M5.ms / 1000)
    whole = await backtest(decided, execution, paper)
    again = await backtest(decided, execution, paper)
    for _ in range(2):
        MarketFeed(SYMBOL, data.candles, data.funding).advance(again, data.time_ms[-1].item())
    assert await again.fills(0) == await whole.fills(0)
    assert await again.balance() == await whole.balance()


async def test_what_a_new_feed_repeats_is_passed_over_and_what_is_new_is_not() -> None:
    candles, funding = series([START_MS + 3 * M5.ms])
    broker = paper_broker(FREE)
    for count in (1, 2, 3):
        known = candles.between(None, int(candles.open_time_ms[count - 1]) + 1)
        MarketFeed(SYMBOL, known, funding).advance(broker, int(known.open_time_ms[-1]) + M5.ms)
        if count == 1:
            await broker.place(intent("in", "10", minute=5))
    (fill,) = await broker.fills(0)
    assert fill.time_ms == START_MS + M5.ms
    assert (await broker.balance()).equity == 10_000 - 1
    assert (await broker.quote(SYMBOL)).time_ms == START_MS + 4 * M5.ms - 1
