"""When funding and open interest are asked for; the exchange is a fake one, its clock stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from llm_trader.clock import OffsetClock
from llm_trader.market.collecting.samples import LiveSamples
from llm_trader.market.collecting.surroundings import LiveMarket, Pace
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Millis
from tests.exchange.fetching import venue_of
from tests.exchange.listings import Listing, listing_of
from tests.exchange.server import FakeExchange
from tests.market.builders import START_MS

pytest.importorskip("ccxt")

BEGIN_MS: Millis = START_MS + DAY_MS + 10 * MINUTE_MS
SYMBOL = "BTCUSDT"


@dataclass
class ExchangeClock:
    """That of the exchange."""

    exchange: FakeExchange

    def now_ms(self) -> Millis:
        return self.exchange.market.now_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def listing() -> Listing:
    return listing_of(simulate(SYMBOL, start_ms=START_MS, days=3, seed=3))


@pytest.fixture
async def samples(listing: Listing, tmp_path: Path) -> AsyncIterator[LiveSamples]:
    with FakeExchange([listing], BEGIN_MS) as exchange:
        venue = venue_of(exchange, "bybit")
        with MarketStore.open(tmp_path / "store", write=True, exchange="bybit") as store:
            clock = OffsetClock(ExchangeClock(exchange))
            live = LiveSamples(LiveMarket(venue, store, ExchangeConfig(), clock, Random(1)))
            for instrument in await venue.instruments():
                live.add(instrument)
            yield live
        await venue.close()


def exchange_of(samples: LiveSamples) -> FakeExchange:
    clock = samples.market.clock.clock
    assert isinstance(clock, ExchangeClock)
    return clock.exchange


async def asked_within(samples: LiveSamples, span_ms: Millis) -> int:
    """How often open interest is asked for, while time jumps to whatever is due next."""
    exchange = exchange_of(samples)
    exchange.asked.clear()
    end_ms = exchange.market.now_ms + span_ms
    while exchange.market.now_ms < end_ms:
        async with asyncio.TaskGroup() as tasks:
            samples.tick(tasks)
        sampled = samples.symbols[SYMBOL]
        due_ms = min(sampled.interest.due_ms, sampled.funding.due_ms)
        exchange.market.now_ms = max(due_ms, exchange.market.now_ms + SECOND_MS)
    return sum(asked.path.endswith("open-interest") for asked in exchange.asked)


async def test_open_interest_that_never_was_is_asked_for_every_hour_after_some_minutes(
    samples: LiveSamples, listing: Listing
) -> None:
    listing.open_interest = listing.open_interest.between(None, START_MS)
    first = await asked_within(samples, HOUR_MS)
    assert 4 <= first <= 12
    assert 9 <= await asked_within(samples, 10 * HOUR_MS) <= 11


async def test_open_interest_that_begins_after_hours_is_stored_with_the_next_hour(
    samples: LiveSamples, listing: Listing
) -> None:
    whole = listing.open_interest
    listing.open_interest = whole.between(None, START_MS)
    await asked_within(samples, 6 * HOUR_MS)
    listing.open_interest = whole
    await asked_within(samples, HOUR_MS)
    now_ms = exchange_of(samples).market.now_ms
    newest_ms = samples.market.store.last_open_interest_ms(SYMBOL)
    assert newest_ms is not None
    assert newest_ms > now_ms - HOUR_MS - 10 * MINUTE_MS
    assert await asked_within(samples, 5 * HOUR_MS) in (5, 6)


async def test_a_sample_that_is_late_is_asked_for_again_within_a_minute(
    samples: LiveSamples, listing: Listing
) -> None:
    whole = listing.open_interest
    listing.open_interest = whole.between(None, BEGIN_MS + 30 * MINUTE_MS)
    assert await asked_within(samples, 50 * MINUTE_MS) == 1
    assert await asked_within(samples, 30 * MINUTE_MS) > 25


def test_work_that_fails_for_days_is_tried_every_minute(samples: LiveSamples) -> None:
    pace = Pace()
    for _ in range(3000):
        pace.failed(samples.market)
    wait_ms = pace.due_ms - samples.market.clock.now_ms()
    assert 30 * SECOND_MS <= wait_ms <= MINUTE_MS
