"""Fetching from the fake exchange within a test, without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from llm_trader.market.absent_spans import Span
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.exchange.instruments import find_instruments
from llm_trader.market.exchange.venue import Venue, open_venue
from llm_trader.market.fetching import SeriesFetch, Surroundings, fetch_symbol
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import H4, M3, Millis, Timeframe
from tests.exchange.server import FakeExchange

WRITTEN_AT_MS: Millis = 1_767_225_600_000


class Pauses(list[float]):
    """Takes the place of `asyncio.sleep`: notes how long, and goes on."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


def venue_of(
    exchange: FakeExchange, name: str, pauses: Pauses | None = None, **settings: Any
) -> Venue:
    config = ExchangeConfig(binance_url=exchange.url, bybit_url=exchange.url, **settings)
    clock = lambda: exchange.market.now_ms / 1000  # noqa: E731
    venue = open_venue(
        name, config, sleep=pauses if pauses is not None else Pauses(), rng=Random(1),
        wall_clock=clock,
    )  # fmt: skip
    without_rate_limit(venue)
    return venue


def without_rate_limit(venue: Any) -> None:
    """ccxt spaces requests for the real venue; some hundred of them would take a minute."""
    venue._client._exchange.enableRateLimit = False


async def fetch(
    exchange: FakeExchange,
    name: str,
    store: Path,
    start_ms: Millis,
    end_ms: Millis | None = None,
    *,
    symbols: Sequence[str] = ("BTCUSDT",),
    timeframes: Sequence[Timeframe] = (M3, H4),
    pauses: Pauses | None = None,
    **settings: Any,
) -> list[SeriesFetch]:
    venue = venue_of(exchange, name, pauses, **settings)
    try:
        now_ms = await venue.now_ms()
        listed = [*await venue.closed_instruments(), *await venue.instruments()]
        instruments = find_instruments(symbols, listed, name)
        span = Span(start_ms, now_ms if end_ms is None else end_ms)
        with MarketStore.open(store, write=True, exchange=name) as opened:
            surroundings = Surroundings(venue, opened, now_ms, now_ms - 5000, WRITTEN_AT_MS)
            return [
                report
                for instrument in instruments
                for report in await fetch_symbol(surroundings, instrument, span, timeframes)
            ]
    finally:
        await venue.close()
