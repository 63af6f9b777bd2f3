"""Collectors that are killed and whose exchange fails end with what undisturbed ones have."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import PointTable
from llm_trader.market.simulation import simulate
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis, iso8601
from tests.app.test_collection import (
    VENUES,
    boundary_after,
    fetched_afterwards,
    rows_between,
    wait_for,
)
from tests.cli.corridor import until
from tests.exchange.clock import SimulatedClock
from tests.exchange.collecting import Collector, collecting
from tests.exchange.disturbing import REQUEST_FAULTS, Disturber, random_events
from tests.exchange.listings import Listing, listing_of
from tests.exchange.server import FakeExchange
from tests.index.builders import same_content, stored
from tests.market.builders import START_MS

pytest.importorskip("ccxt")

SYMBOLS = ("BTCUSDT", "ETHUSDT")
BEGIN_MS: Millis = START_MS + 22 * DAY_MS
DAYS = 24
FIRST = iso8601(START_MS)


def listings() -> list[Listing]:
    return [
        listing_of(simulate(symbol, start_ms=START_MS, days=DAYS, seed=6), five_minute=True)
        for symbol in SYMBOLS
    ]


@contextmanager
def collector_of(exchange: FakeExchange, venue: str, folder: Path) -> Iterator[Collector]:
    """With an index. Silence is noticed after some real seconds, which machines may hang for."""
    clock = exchange.market.clock
    assert isinstance(clock, SimulatedClock)
    with collecting(
        exchange, clock, venue, ",".join(SYMBOLS), folder, "--start", FIRST, "--index",
        market__exchange__silence_s=min(round(2.5 * clock.speed), 3600),
    ) as collector:  # fmt: skip
        yield collector


def collected_to_the_end(exchange: FakeExchange, venue: str, folder: Path) -> Millis:
    """A last start compares what streams have shown; the time until which all is there."""
    with collector_of(exchange, venue, folder) as collector:
        last_ms = boundary_after(exchange.market.now_ms, 2)
        # A boundary is reported after a while although something of it is late.
        wait_for(collector, boundary_after(last_ms, 1))
        newest_ms = last_ms - DAY_MS
        assert until(
            lambda: all(p.timestamp_ms[-1] > newest_ms for p in points_of(folder / "index")),
            seconds=30,
        ), collector.log
        process = collector.process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, collector.log
    return last_ms


def points_of(index: Path, until_ms: Millis | None = None) -> list[PointTable]:
    """Those of each symbol that were resolved at a time."""

    async def scanned() -> list[PointTable]:
        with EmbeddedIndex.open(index) as opened:
            return [await stored(opened, symbol) for symbol in SYMBOLS]

    tables = asyncio.run(scanned())
    if until_ms is None:
        return tables
    return [table.take(table.resolved_at_ms <= until_ms) for table in tables]


def ingested(store: Path, index: Path, until_ms: Millis) -> list[PointTable]:
    """What `rag-ingest` makes of a store."""
    flags = {"market.store": store, "index.path": index}
    job = Job(load_settings(environ={}, overrides=flags), {}, until_ms)
    ingest_from_store(job, [], START_MS, until_ms)
    return points_of(index, until_ms)


def assert_same(one: list[PointTable], other: list[PointTable]) -> None:
    for table, expected in zip(one, other, strict=True):
        assert len(expected) > 90
        assert table.timestamp_ms.tolist() == expected.timestamp_ms.tolist()
        assert same_content(table, expected), table.symbol


def disturbed(
    exchange: FakeExchange, venue: str, folder: Path, span_ms: Millis, kills: int, faults: int
) -> None:
    """`faults` connections fail, and as many requests."""
    rng = random.Random(7)
    shares = {"duplicate": 0.05, "late": 0.05, "stale": 0.3, "lost": 0.05}
    exchange.stream_faults.shares.update(shares)
    disturber = Disturber(exchange, lambda: collector_of(exchange, venue, folder), rng)
    with disturber.running():
        disturber.collector()
        exchange.faults.at_random(faults, share=0.12, kinds=REQUEST_FAULTS, seed=8)
        began_ms = exchange.market.now_ms
        events = random_events(
            began_ms, began_ms + span_ms, kills=kills, connections=faults, rng=rng
        )
        disturber.go_through(events)
        assert until(lambda: not exchange.faults.left, seconds=60)
        disturber.collector()
    exchange.stream_faults.shares.clear()
    assert (disturber.kills, disturber.connection_faults) == (kills, faults)
    assert exchange.faults.happened == faults


def test_a_killed_collector_with_a_failing_exchange_has_what_the_exchange_has(
    tmp_path: Path,
) -> None:
    """A simulated hour with a kill, a connection and a request that fail, and lost updates."""
    clock = SimulatedClock.starting(BEGIN_MS, 900)
    with FakeExchange(listings(), clock, updates_per_candle=6) as exchange:
        disturbed(exchange, "bybit", tmp_path, HOUR_MS, kills=1, faults=1)
        last_ms = collected_to_the_end(exchange, "bybit", tmp_path)
        fetched_afterwards(exchange, "bybit", tmp_path / "afterwards", START_MS)
    rows = rows_between(tmp_path / "store", START_MS, last_ms)
    assert rows == rows_between(tmp_path / "afterwards", START_MS, last_ms)
    points = points_of(tmp_path / "index", last_ms)
    assert_same(points, ingested(tmp_path / "afterwards", tmp_path / "ingested", last_ms))


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("venue", VENUES)
def test_a_day_of_kills_and_failures_ends_like_an_undisturbed_one(
    venue: str, tmp_path: Path
) -> None:
    """200 at random: 50 kills of the collector, 75 connections and 75 requests that fail."""
    clock = SimulatedClock.starting(BEGIN_MS, 400)
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    with (
        FakeExchange(listings(), clock, updates_per_candle=30) as quiet,
        FakeExchange(listings(), clock, updates_per_candle=30) as failing,
    ):
        with collector_of(quiet, venue, calm) as undisturbed:
            disturbed(failing, venue, stormy, DAY_MS, kills=50, faults=75)
            assert undisturbed.stop() == 0
            assert undisturbed.reports[-1]["counts"]["failed"] == 0
        last_ms = collected_to_the_end(failing, venue, stormy)
        collected_to_the_end(quiet, venue, calm)
    assert rows_between(stormy / "store", START_MS, last_ms) == rows_between(
        calm / "store", START_MS, last_ms
    )
    points = points_of(stormy / "index", last_ms)
    assert_same(points, points_of(calm / "index", last_ms))
    assert_same(points, ingested(calm / "store", tmp_path / "ingested", last_ms))
