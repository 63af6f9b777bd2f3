"""Until when the exchange has closed its candles, as far as a slow answer tells."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llm_trader.clock import OffsetClock
from llm_trader.market.collecting.collector import MarketCollector
from llm_trader.market.collecting.surroundings import LiveMarket
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M3, SECOND_MS, Millis
from tests.market.builders import START_MS


class SettableClock:
    def __init__(self) -> None:
        self.present_ms = START_MS

    def now_ms(self) -> Millis:
        return self.present_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class SlowVenue:
    """Its clock is right; `before_s` and `after_s` is how long question and answer take."""

    name = "bybit"

    def __init__(self, clock: SettableClock, before_s: float, after_s: float) -> None:
        self.clock, self.before_s, self.after_s = clock, before_s, after_s

    async def now_ms(self) -> Millis:
        self.clock.present_ms += round(self.before_s * SECOND_MS)
        answer_ms = self.clock.present_ms
        self.clock.present_ms += round(self.after_s * SECOND_MS)
        return answer_ms


@pytest.mark.parametrize(("before_s", "after_s"), [(0.0, 30.0), (30.0, 0.0), (0.1, 0.1)])
async def test_a_candle_never_counts_as_closed_before_its_end(
    before_s: float, after_s: float, tmp_path: Path
) -> None:
    clock = SettableClock()
    venue: Any = SlowVenue(clock, before_s, after_s)
    config = ExchangeConfig(close_margin_s=5)
    with MarketStore.open(tmp_path / "store", write=True, exchange="bybit") as store:
        market = LiveMarket(venue, store, config, OffsetClock(clock), Random(1))
        await MarketCollector(market, [], [M3]).measure_clock()
    late_ms = clock.now_ms() - 5 * SECOND_MS - market.closed_ms
    assert 0 <= late_ms <= round((before_s + after_s) * SECOND_MS)
