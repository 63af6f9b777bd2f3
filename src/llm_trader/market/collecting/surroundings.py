"""What the parts of a collector share, and when failed work is tried again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from llm_trader.clock import OffsetClock
from llm_trader.market.exchange.backoff import wait_s
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.exchange.venue import Venue
from llm_trader.market.fetching import Surroundings
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import SECOND_MS, Millis

# More at once would only wait in the queue of the rate limit.
_REQUESTS_AT_ONCE: Final = 5


class CollectCounts(msgspec.Struct):
    """What happened since the start.

    `streamed` candles were stored from streams; `backfilled` rows were asked for, as streams had
    missed them, and `corrected` ones replaced stored rows. `rejected` updates were no candles of
    the present. `failed` requests were given up for the moment, and are repeated.
    """

    streamed: int = 0
    backfilled: int = 0
    corrected: int = 0
    rejected: int = 0
    failed: int = 0
    reconnects: int = 0


@dataclass(eq=False)
class LiveMarket:
    """`clock` shows the time of the exchange.

    `corrected` are symbols of which candles were replaced; who has sent their states takes it over.
    """

    venue: Venue
    store: MarketStore
    config: ExchangeConfig
    clock: OffsetClock
    rng: Random
    counts: CollectCounts = field(default_factory=CollectCounts)
    corrected: set[str] = field(default_factory=set)
    requests: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_REQUESTS_AT_ONCE)
    )

    @property
    def closed_ms(self) -> Millis:
        """Until when the exchange has closed its candles for certain."""
        margin_ms = round(self.config.close_margin_s * SECOND_MS)
        return self.clock.now_ms() - self.clock.error_ms - margin_ms

    def surroundings(self) -> Surroundings:
        now_ms = self.clock.now_ms()
        return Surroundings(self.venue, self.store, now_ms, self.closed_ms, now_ms)


@dataclass(slots=True)
class Pace:
    """When some work is due, and how often it has failed in a row."""

    due_ms: Millis = 0
    attempt: int = 0

    def succeeded(self, due_ms: Millis = 0) -> None:
        self.due_ms, self.attempt = due_ms, 0

    def failed(self, market: LiveMarket) -> None:
        seconds = wait_s(self.attempt, None, market.rng)
        self.due_ms = market.clock.now_ms() + round(seconds * SECOND_MS)
        self.attempt += 1
