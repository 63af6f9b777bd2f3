"""Collectors as processes of their own, against the fake exchange, on a clock that runs fast."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M3, MINUTE_MS, Millis, iso8601
from tests.cli.corridor import until
from tests.delivery.test_sender import Receiver, address_of
from tests.exchange.clock import SimulatedClock
from tests.exchange.collecting import Collector, collecting
from tests.exchange.fetching import fetch
from tests.exchange.listings import Listing, listing_of
from tests.exchange.real_data import real_listings
from tests.exchange.server import FakeExchange
from tests.exchange.stores import rows_of
from tests.exchange.stream_faults import CONNECTION_FAULTS
from tests.market.builders import START_MS
from tests.rpc.stub import serving

pytest.importorskip("ccxt")

SYMBOLS = "BTCUSDT,ETHUSDT"
VENUES = ("binance", "bybit")
DAYS = 23
# Before a settlement, a sample of open interest and the end of a candle of 4h.
BEGIN_MS: Millis = START_MS + 22 * DAY_MS + 7 * HOUR_MS + 40 * MINUTE_MS
SPEED = 200.0
# A fast clock has room for about four times as many.
UPDATES = 20


@pytest.fixture(scope="module")
def histories() -> list[Listing]:
    return [
        listing_of(simulate(symbol, start_ms=START_MS, days=DAYS, seed=4), five_minute=True)
        for symbol in SYMBOLS.split(",")
    ]


@pytest.fixture
def clock() -> SimulatedClock:
    # The process needs some seconds to begin.
    return SimulatedClock.starting(BEGIN_MS - round(4000 * SPEED), SPEED)


@pytest.fixture
def exchange(histories: list[Listing], clock: SimulatedClock) -> Iterator[FakeExchange]:
    with FakeExchange(histories, clock, updates_per_candle=UPDATES) as running:
        yield running


def wait_for(collector: Collector, boundary_ms: Millis, seconds: float = 60) -> None:
    """Until a boundary was reported."""
    name = iso8601(boundary_ms)
    seen = until(lambda: name in collector.boundaries(), seconds=seconds)
    assert seen, (collector.log, collector.boundaries())


def boundary_after(time_ms: Millis, count: int) -> Millis:
    grid_ms = 15 * MINUTE_MS
    return (time_ms // grid_ms + count) * grid_ms


def rows_between(folder: Path, start_ms: Millis, cut_ms: Millis) -> dict[str, dict[bytes, bytes]]:
    """The rows from a time on that were known at another."""
    lengths = {"candles_3m": M3.ms, "candles_4h": H4.ms}
    return {
        name: {
            key: value
            for key, value in rows.items()
            if start_ms <= (time_ms := int(key.rpartition(b":")[2]))
            and time_ms + lengths.get(name, 0) <= cut_ms
        }
        for name, rows in rows_of(folder).items()
    }


def first_candle_ms(folder: Path) -> Millis:
    with MarketStore.open(folder) as store:
        stored = store.first_and_last_ms("BTCUSDT", M3)
    assert stored is not None
    return stored[0]


def fetched_afterwards(exchange: FakeExchange, venue: str, folder: Path, start_ms: Millis) -> None:
    """Fetch the same into another store, with the clock of the exchange standing still."""
    exchange.market.now_ms = exchange.market.now_ms
    symbols = SYMBOLS.split(",")
    reports = asyncio.run(fetch(exchange, venue, folder, start_ms, symbols=symbols))
    assert [report.error for report in reports] == [None] * len(reports)


@pytest.mark.parametrize("venue", [pytest.param("binance", marks=pytest.mark.soak), "bybit"])
def test_what_is_collected_is_what_a_fetch_gives_and_snapshots_are_those_of_the_store(
    venue: str, exchange: FakeExchange, clock: SimulatedClock, tmp_path: Path
) -> None:
    assert_collected_as_fetched(exchange, clock, venue, tmp_path, boundaries=3)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_real_data_is_collected_as_it_is_fetched_and_snapshots_are_those_of_the_store(
    real_data: Path, tmp_path: Path
) -> None:
    """Five hours with a candle of 4h and a settlement of funding in them."""
    folder = real_data / "binance_1m_2025-05_2025-06"
    listings = real_listings(folder, SYMBOLS.split(","))
    begin_ms = listings[0].listed_ms + 23 * DAY_MS
    begin_ms += 7 * HOUR_MS + 40 * MINUTE_MS - begin_ms % DAY_MS
    clock = SimulatedClock.starting(begin_ms, SPEED)
    with FakeExchange(listings, clock, updates_per_candle=4 * UPDATES) as exchange:
        assert_collected_as_fetched(exchange, clock, "bybit", tmp_path, boundaries=20)


def assert_collected_as_fetched(
    exchange: FakeExchange, clock: SimulatedClock, venue: str, folder: Path, boundaries: int
) -> None:
    receiver = Receiver()

    async def collected() -> tuple[Millis, Millis]:
        async with serving(receiver.method) as intake:
            intakes = f'["{address_of(intake)}"]'
            with collecting(
                exchange, clock, venue, SYMBOLS, folder, "--start", "22",
                delivery__intakes=intakes, delivery__max_wait_s=300, delivery__deadline_s=900,
                market__exchange__silence_s=3600,
            ) as collector:  # fmt: skip
                await asyncio.to_thread(
                    lambda: until(lambda: collector.logged("collecting"), seconds=30)
                )
                began_ms = clock.now_ms()
                last_ms = boundary_after(began_ms, boundaries)
                await asyncio.to_thread(wait_for, collector, last_ms, 30 + 10 * boundaries)
                assert await asyncio.to_thread(collector.stop) == 0, collector.log
                numbers = collector.reports[-1]
                assert numbers["counts"]["streamed"] > 0
                assert numbers["counts"]["corrected"] == 0
                assert numbers["counts"]["failed"] == 0
                assert not collector.logged("stream_lost")
                return began_ms, last_ms

    began_ms, last_ms = asyncio.run(collected())
    afterwards = folder / "afterwards"
    first_ms = first_candle_ms(folder / "store")
    fetched_afterwards(exchange, venue, afterwards, first_ms)
    assert rows_between(folder / "store", first_ms, last_ms) == rows_between(
        afterwards, first_ms, last_ms
    )

    sent_ms = [post.snapshot["timestamp"] for post in receiver.taken]
    # It was not too late for the boundary before the start.
    assert min(sent_ms) <= began_ms
    assert len(sent_ms) >= 2 * boundaries
    assert len({post.snapshot_id for post in receiver.taken}) == len(sent_ms)
    with MarketStore.open(afterwards) as store:
        source = SnapshotSource(store, M3, 15 * MINUTE_MS)
        for post in receiver.taken:
            assert post.late == []
            table = source.view(post.snapshot["symbol"]).exactly_at(post.snapshot["timestamp"])
            assert post.snapshot == msgspec.to_builtins(table.snapshot(0))


@pytest.mark.soak
def test_a_stopped_a_killed_and_a_second_collector(
    exchange: FakeExchange, clock: SimulatedClock, tmp_path: Path
) -> None:
    """SIGTERM ends it with everything stored; a kill costs nothing that the next start misses."""
    start = ("--start", "2")
    with collecting(exchange, clock, "bybit", SYMBOLS, tmp_path, *start) as collector:
        assert until(lambda: collector.logged("collecting"), seconds=30), collector.log
        with collecting(exchange, clock, "bybit", SYMBOLS, tmp_path, *start) as second:
            assert second.process.wait(30) == 1
        assert f"process {collector.process.pid} is writing to {tmp_path / 'store'}" in second.log
        wait_for(collector, boundary_after(clock.now_ms(), 1))
        collector.process.send_signal(signal.SIGKILL)
        assert collector.process.wait(10) == -signal.SIGKILL
    time.sleep(0.5)
    with collecting(exchange, clock, "bybit", SYMBOLS, tmp_path, *start) as collector:
        last_ms = boundary_after(clock.now_ms(), 4)
        wait_for(collector, last_ms)
        assert collector.stop() == 0, collector.log
    first_ms = first_candle_ms(tmp_path / "store")
    fetched_afterwards(exchange, "bybit", tmp_path / "afterwards", first_ms)
    collected = rows_between(tmp_path / "store", first_ms, last_ms)
    assert collected == rows_between(tmp_path / "afterwards", first_ms, last_ms)


@pytest.mark.soak
@pytest.mark.parametrize("venue", VENUES)
def test_connections_that_fail_in_every_way_leave_no_trace_in_the_store(
    venue: str, exchange: FakeExchange, clock: SimulatedClock, tmp_path: Path
) -> None:
    exchange.stream_faults.shares = {"duplicate": 0.05, "late": 0.05, "stale": 0.5, "lost": 0.02}
    with collecting(
        exchange, clock, venue, SYMBOLS, tmp_path, "--start", "2",
        market__exchange__silence_s=40,
    ) as collector:  # fmt: skip
        assert until(lambda: collector.logged("collecting"), seconds=30), collector.log
        for kind in CONNECTION_FAULTS:
            lost = lost_connections(collector)
            time.sleep(1)
            exchange.stream_faults.inject(kind)
            if kind == "error_frame":  # of which the connection does not end
                continue
            if kind.startswith("refused"):  # the next connection is
                exchange.stream_faults.inject("disconnect")
                lost += 1
            assert until(lambda: lost_connections(collector) > lost, seconds=20), collector.log  # noqa: B023
        exchange.faults.at_random(20, share=0.5, kinds=("server_error", "cut_off"), seed=3)
        last_ms = boundary_after(clock.now_ms(), 2)
        wait_for(collector, last_ms)
        assert collector.stop() == 0, collector.log
        assert collector.reports[-1]["counts"]["streamed"] > 0
    exchange.faults.left = 0
    # What a stream lost is found when the stored is compared: every hour, and at a start.
    with collecting(exchange, clock, venue, SYMBOLS, tmp_path, "--start", "2") as collector:
        starts = lambda: sum(e["event"] == "collecting" for e in collector.events)  # noqa: E731
        assert until(lambda: starts() == 2, seconds=30), collector.log
        assert collector.stop() == 0, collector.log
    assert "Unclosed" not in collector.log
    first_ms = first_candle_ms(tmp_path / "store")
    fetched_afterwards(exchange, venue, tmp_path / "afterwards", first_ms)
    collected = rows_between(tmp_path / "store", first_ms, last_ms)
    assert collected == rows_between(tmp_path / "afterwards", first_ms, last_ms)


@pytest.mark.soak
def test_a_clock_that_is_wrong_and_a_symbol_that_is_delisted_stop_nothing(
    histories: list[Listing], clock: SimulatedClock, tmp_path: Path
) -> None:
    """The exchange is four minutes ahead of this machine; one symbol ends after a while."""
    history = simulate("ETHUSDT", start_ms=START_MS, days=DAYS, seed=4)
    ending = listing_of(history, ended_ms=BEGIN_MS + 20 * MINUTE_MS)
    with FakeExchange([histories[0], ending], clock, updates_per_candle=UPDATES) as exchange:
        exchange.market.skew_ms = 4 * MINUTE_MS
        with collecting(exchange, clock, "bybit", SYMBOLS, tmp_path, "--start", "2") as collector:
            last_ms = BEGIN_MS + 80 * MINUTE_MS
            wait_for(collector, last_ms - last_ms % (15 * MINUTE_MS))
            assert collector.logged("clock_differs")
            assert collector.logged("delisted")
            assert collector.stop() == 0, collector.log
        with MarketStore.open(tmp_path / "store") as store:
            assert store.gaps("BTCUSDT", M3) == []
            ends = [store.first_and_last_ms(symbol, M3) for symbol in SYMBOLS.split(",")]
    assert [end and end[1] >= last_ms - 10 * MINUTE_MS for end in ends] == [True, False]
    assert ends[1] is not None
    assert ends[1][1] == BEGIN_MS + 17 * MINUTE_MS


def lost_connections(collector: Collector) -> int:
    return sum(entry["event"] == "stream_lost" for entry in collector.events)
