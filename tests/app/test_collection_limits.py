"""Collectors that are banned, need several connections, are refused streams, or keep little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import DAY_MS, M3, MINUTE_MS, Millis, iso8601
from tests.app.test_collection import boundary_after, first_candle_ms, rows_between, wait_for
from tests.cli.corridor import until
from tests.exchange.clock import SimulatedClock
from tests.exchange.collecting import Collector, collecting
from tests.exchange.faults import Kind
from tests.exchange.fetching import fetch
from tests.exchange.listings import listing_of
from tests.exchange.server import FakeExchange
from tests.index.builders import stored
from tests.market.builders import START_MS

pytest.importorskip("ccxt")

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
BEGIN_MS: Millis = START_MS + 24 * DAY_MS - 30 * MINUTE_MS
SPEED = 600.0


@pytest.fixture
def exchange() -> Iterator[FakeExchange]:
    listings = [
        listing_of(simulate(symbol, start_ms=START_MS, days=26, seed=9)) for symbol in SYMBOLS
    ]
    clock = SimulatedClock.starting(BEGIN_MS, SPEED)
    with FakeExchange(listings, clock, updates_per_candle=6) as running:
        yield running


def collected(exchange: FakeExchange, folder: Path, *more: str, **settings: object) -> Any:
    """Silence is noticed after some real seconds."""
    clock = exchange.market.clock
    assert isinstance(clock, SimulatedClock)
    return collecting(
        exchange, clock, "bybit", ",".join(SYMBOLS), folder, *more,
        market__exchange__silence_s=3600, **settings,
    )  # fmt: skip


def begun(collector: Collector) -> None:
    assert until(lambda: collector.logged("collecting"), seconds=30), collector.log


def wait_beyond(collector: Collector, boundary_ms: Millis) -> None:
    """A boundary is reported after a while although something of it is late."""
    wait_for(collector, boundary_after(boundary_ms, 1))


def assert_as_fetched(exchange: FakeExchange, folder: Path, last_ms: Millis) -> None:
    first_ms = first_candle_ms(folder / "store")
    exchange.market.now_ms = exchange.market.now_ms
    reports = asyncio.run(
        fetch(exchange, "bybit", folder / "afterwards", first_ms, symbols=SYMBOLS)
    )
    assert [report.error for report in reports] == [None] * len(reports)
    assert rows_between(folder / "store", first_ms, last_ms) == rows_between(
        folder / "afterwards", first_ms, last_ms
    )


@pytest.mark.parametrize("kind", ["banned", pytest.param("forbidden", marks=pytest.mark.soak)])
def test_nothing_is_asked_during_a_ban_while_streams_go_on(
    kind: Kind, exchange: FakeExchange, tmp_path: Path
) -> None:
    """One of 30 minutes; an address that is refused counts as such for ten."""
    with collected(exchange, tmp_path, "--start", "2") as collector:
        begun(collector)
        exchange.faults.add(kind, retry_after_s=30 * 60)
        assert until(lambda: not exchange.faults.waiting, seconds=30)
        banned_ms = exchange.market.now_ms
        time.sleep(0.3)  # others may have been on their way
        asked = len(exchange.asked)
        lasts_ms = (30 if kind == "banned" else 10) * MINUTE_MS
        while exchange.market.now_ms < banned_ms + 0.8 * lasts_ms:
            time.sleep(0.01)
        assert len(exchange.asked) == asked
        last_ms = boundary_after(banned_ms + lasts_ms, 5)
        wait_beyond(collector, last_ms)
        assert len(exchange.asked) > asked
        assert collector.stop() == 0
        assert not collector.logged("stream_lost")
        counts = collector.reports[-1]["counts"]
        assert counts["failed"] > 0
        assert counts["streamed"] > 3 * lasts_ms / M3.ms
    assert_as_fetched(exchange, tmp_path, last_ms)


def test_symbols_are_spread_over_connections_and_one_that_is_not_streamed_comes_by_requests(
    exchange: FakeExchange, tmp_path: Path
) -> None:
    """Bybit refuses a whole subscription for one unknown stream in it."""
    exchange.market.unstreamed = {"ETHUSDT"}
    more = {"market__exchange__streams_per_connection": 4}
    with collected(exchange, tmp_path, "--start", "2", **more) as collector:
        begun(collector)
        assert until(lambda: len(exchange.sockets.connections) == 2, seconds=30)
        last_ms = boundary_after(exchange.market.now_ms, 3)
        wait_beyond(collector, last_ms)
        assert len(exchange.sockets.connections) == 2
        assert collector.stop() == 0
        refused = [e["symbol"] for e in collector.events if e["event"] == "stream_refused"]
        assert refused == ["ETHUSDT"]
        assert not collector.logged("stream_lost")
        assert collector.reports[-1]["counts"]["streamed"] > 0
    assert_as_fetched(exchange, tmp_path, last_ms)


@pytest.mark.soak
def test_what_is_older_than_is_kept_leaves_store_and_index_while_they_are_collected(
    tmp_path: Path,
) -> None:
    """At the first boundary, and when a midnight has passed."""
    midnight_ms = START_MS + 85 * DAY_MS
    begin_ms = midnight_ms - 40 * MINUTE_MS
    listing = listing_of(simulate("BTCUSDT", start_ms=START_MS, days=86, seed=9))
    flags = {"market.store": tmp_path / "store", "index.path": tmp_path / "index"}
    with FakeExchange([listing], begin_ms, updates_per_candle=20) as exchange:
        asyncio.run(fetch(exchange, "bybit", tmp_path / "store", START_MS))
        job = Job(load_settings(environ={}, overrides=flags), {}, begin_ms)
        ingest_from_store(job, [], START_MS, START_MS + 25 * DAY_MS)
        cuts_ms = [midnight_ms - days * DAY_MS for days in (63, 62)]
        assert first_point_ms(tmp_path) < cuts_ms[0]
        exchange.market.clock = clock = SimulatedClock.starting(begin_ms, SPEED)
        with collecting(
            exchange, clock, "bybit", "BTCUSDT", tmp_path, "--index",
            market__exchange__silence_s=3600, market__keep_days=62,
        ) as collector:  # fmt: skip
            # The price of a state at the very cut is that of a removed candle.
            first_ms = cuts_ms[1] + 15 * MINUTE_MS
            assert until(lambda: first_point_ms(tmp_path) == first_ms, seconds=30), collector.log
            assert collector.stop() == 0, collector.log
        removals = [e["before"] for e in collector.events if e["event"] == "old_data_removed"]
    # On a slow machine it is past midnight at its first boundary.
    assert removals in ([iso8601(cut_ms) for cut_ms in cuts_ms[n:]] for n in (0, 1))
    assert first_candle_ms(tmp_path / "store") == cuts_ms[1]
    with MarketStore.open(tmp_path / "store") as store:
        assert store.check(deep=True).problems == 0


def first_point_ms(folder: Path) -> Millis:
    async def scanned() -> Millis:
        with EmbeddedIndex.open(folder / "index") as index:
            return int((await stored(index, "BTCUSDT")).timestamp_ms[0])

    return asyncio.run(scanned())
