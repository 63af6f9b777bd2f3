"""Snapshots on their way to real JSON-RPC servers: never twice, retried, given up, independent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from llm_trader.app.snapshot_delivery import snapshot_sender
from llm_trader.clock import WallClock
from llm_trader.delivery.intake import DeliveryCounts
from llm_trader.delivery.sender import SnapshotSender
from llm_trader.errors import InvalidInputError
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.errors import OverloadedError
from llm_trader.rpc.keys import KeyRing
from llm_trader.settings.loading import load_settings
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, MINUTE_MS, Millis
from tests.cli.corridor import write
from tests.rpc.stub import serving

SYMBOL = "BTCUSDT"
START_MS = 1_735_689_600_000
BOUNDARY_MS = START_MS + 24 * DAY_MS + 12 * HOUR_MS
HISTORY: MarketHistory = simulate(SYMBOL, start_ms=START_MS, days=25, seed=7, timeframe=M5)


class Post(msgspec.Struct):
    job_id: str
    snapshot_id: str
    deadline_ms: int
    snapshot: dict[str, Any]
    late: list[str] = []


class Receiver:
    """The test method `snapshot.post`; the first attempts may be refused or never answered."""

    def __init__(self, refuse: int = 0, silent: int = 0) -> None:
        self.attempts: list[Post] = []
        self.taken: list[Post] = []
        self.has_attempts = asyncio.Event()
        self._refuse, self._silent = refuse, silent

    async def post(self, params: Post, context: RequestContext) -> str:
        self.attempts.append(params)
        self.has_attempts.set()
        if len(self.attempts) <= self._refuse:
            raise OverloadedError("overloaded: send it again later")
        if len(self.attempts) <= self._silent:
            await asyncio.sleep(30)
        self.taken.append(params)
        return "taken"

    @property
    def method(self) -> Method:
        return Method("snapshot.post", Post, self.post, "Takes a snapshot.", str)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    """All that was known at the boundary."""
    with MarketStore.open(tmp_path / "store", write=True, exchange="simulated") as opened:
        write(opened, HISTORY.known_at(BOUNDARY_MS))
        yield opened


def clock_from(start_ms: Millis) -> Callable[[], Millis]:
    """A clock that shows this time now, and goes on."""
    began_s = time.monotonic()
    return lambda: start_ms + round((time.monotonic() - began_s) * 1000)


@asynccontextmanager
async def sending(
    store: MarketStore,
    *addresses: str,
    now_ms: Millis = BOUNDARY_MS,
    environ: dict[str, str] | None = None,
    **delivery: float,
) -> AsyncIterator[SnapshotSender]:
    flags = {f"delivery.{name}": value for name, value in delivery.items()}
    settings = load_settings(environ={}, overrides={"delivery.intakes": addresses, **flags})
    sender = snapshot_sender(
        settings, environ or {}, store, [SYMBOL], WallClock(clock_from(now_ms))
    )
    try:
        yield sender
    finally:
        await sender.close()


def address_of(server: Any) -> str:
    host, port = server.address
    return f"{host}:{port}"


def free_address() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def hanging() -> Iterator[str]:
    """A listener that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_a_snapshot_arrives_as_it_is_built_afterwards(store: MarketStore) -> None:
    receiver = Receiver()
    async with serving(receiver.method) as server, sending(store, address_of(server)) as sender:
        assert await sender.boundary(SYMBOL, BOUNDARY_MS)
        await sender.settled()
    (post,) = receiver.taken
    whole = build_snapshots(HISTORY, np.array([BOUNDARY_MS])).snapshot(0)
    assert msgspec.convert(post.snapshot, type(whole)) == whole
    assert post.deadline_ms == BOUNDARY_MS + 120_000
    assert post.late == []
    assert list(sender.counts().values()) == [DeliveryCounts(sent=1)]


async def test_no_symbol_and_time_is_sent_twice(store: MarketStore) -> None:
    receiver = Receiver()
    async with serving(receiver.method) as server, sending(store, address_of(server)) as sender:
        times = [BOUNDARY_MS, BOUNDARY_MS, BOUNDARY_MS - 15 * MINUTE_MS, BOUNDARY_MS]
        made = await asyncio.gather(*(sender.boundary(SYMBOL, at_ms) for at_ms in times))
        await sender.settled()
        assert made == [True, False, False, False]
    assert [post.snapshot["timestamp"] for post in receiver.taken] == [BOUNDARY_MS]


async def test_it_is_sent_again_with_the_same_ids_until_the_intake_listens(
    store: MarketStore,
) -> None:
    receiver, address = Receiver(refuse=1), free_address()
    port = int(address.rpartition(":")[2])
    async with sending(store, address) as sender:
        await sender.boundary(SYMBOL, BOUNDARY_MS)
        await asyncio.sleep(0.5)  # nobody listens yet
        assert sender.counts()[address] == DeliveryCounts()
        async with serving(receiver.method, port=port):
            await sender.settled()
    assert len(receiver.attempts) == 2
    assert len({(post.job_id, post.snapshot_id) for post in receiver.attempts}) == 1
    assert sender.counts()[address] == DeliveryCounts(sent=1)


async def test_a_connection_that_breaks_is_made_again(store: MarketStore) -> None:
    receiver = Receiver(silent=1)
    async with serving(receiver.method, drain_timeout_s=0.1) as first:
        address = address_of(first)
        async with sending(store, address) as sender:
            await sender.boundary(SYMBOL, BOUNDARY_MS)
            await receiver.has_attempts.wait()
            await first.stop()
            async with serving(receiver.method, port=int(address.rpartition(":")[2])):
                await sender.settled()
            assert sender.counts()[address] == DeliveryCounts(sent=1)
    assert len({post.job_id for post in receiver.attempts}) == 1
    assert len(receiver.taken) == 1


async def test_a_reply_that_does_not_come_is_not_waited_for(store: MarketStore) -> None:
    receiver = Receiver(silent=1)
    async with (
        serving(receiver.method) as server,
        sending(store, address_of(server), attempt_timeout_s=0.2) as sender,
    ):
        await sender.boundary(SYMBOL, BOUNDARY_MS)
        await sender.settled()
        assert sender.counts()[address_of(server)] == DeliveryCounts(sent=1)
    assert len(receiver.attempts) == 2


async def test_after_its_deadline_it_is_dropped_and_counted(store: MarketStore) -> None:
    address = free_address()
    async with sending(store, address, deadline_s=1.0) as sender:
        assert await sender.boundary(SYMBOL, BOUNDARY_MS)
        await asyncio.wait_for(sender.settled(), 20)
        assert sender.counts()[address] == DeliveryCounts(dropped=1)
    too_late = BOUNDARY_MS + 5 * MINUTE_MS
    receiver = Receiver()
    async with (
        serving(receiver.method) as server,
        sending(store, address_of(server), now_ms=too_late) as sender,
    ):
        await sender.boundary(SYMBOL, BOUNDARY_MS)
        await sender.settled()
        assert sender.counts()[address_of(server)] == DeliveryCounts(dropped=1)
    assert receiver.attempts == []


async def test_an_intake_that_hangs_does_not_delay_the_other(store: MarketStore) -> None:
    receiver = Receiver()
    with hanging() as stuck:
        async with serving(receiver.method) as server:
            address = address_of(server)
            async with sending(store, stuck, address, deadline_s=30.0) as sender:
                await sender.boundary(SYMBOL, BOUNDARY_MS)
                await asyncio.wait_for(sender.intakes[1].settled(), 5)
                assert sender.counts()[address] == DeliveryCounts(sent=1)
                assert sender.counts()[stuck] == DeliveryCounts()
            # What is under way at the end is given up.
            assert sender.counts()[stuck] == DeliveryCounts(dropped=1)
    (post,) = receiver.taken
    assert post.late == []


async def test_what_is_late_is_named_after_a_bounded_wait(tmp_path: Path) -> None:
    receiver = Receiver()
    known = HISTORY.known_at(BOUNDARY_MS)
    with MarketStore.open(tmp_path / "late", write=True, exchange="simulated") as store:
        for series in (known.intraday, known.four_hour, known.funding):
            store.write(SYMBOL, series, "feed", written_at_ms=BOUNDARY_MS)
        earlier = known.open_interest.between(None, BOUNDARY_MS - HOUR_MS)
        store.write(
            SYMBOL,
            earlier,
            "feed",
            written_at_ms=BOUNDARY_MS,
            interval_ms=known.open_interest_interval_ms,
        )
        async with (
            serving(receiver.method) as server,
            sending(store, address_of(server), max_wait_s=0.3) as sender,
        ):
            assert await sender.boundary(SYMBOL, BOUNDARY_MS)
            await sender.settled()
            counts = sender.counts()[address_of(server)]
    assert [post.late for post in receiver.taken] == [["open interest"]]
    assert counts == DeliveryCounts(sent=1, late=1)


async def test_data_that_comes_within_the_wait_is_in_the_snapshot(tmp_path: Path) -> None:
    receiver = Receiver()
    with MarketStore.open(tmp_path / "soon", write=True, exchange="simulated") as store:
        write(store, HISTORY.known_at(BOUNDARY_MS - M5.ms))
        async with serving(receiver.method) as server, sending(store, address_of(server)) as sender:
            waiting = asyncio.create_task(sender.boundary(SYMBOL, BOUNDARY_MS))
            await asyncio.sleep(0.3)
            assert receiver.attempts == []
            write(store, HISTORY.known_at(BOUNDARY_MS))
            assert await waiting
            await sender.settled()
    (post,) = receiver.taken
    assert post.snapshot["price"] == HISTORY.known_at(BOUNDARY_MS).intraday.close[-1]
    assert post.late == []


async def test_a_state_without_its_candle_is_not_made(tmp_path: Path) -> None:
    receiver = Receiver()
    with MarketStore.open(tmp_path / "none", write=True, exchange="simulated") as store:
        write(store, HISTORY.known_at(BOUNDARY_MS - M5.ms))
        async with (
            serving(receiver.method) as server,
            sending(store, address_of(server), max_wait_s=0.2) as sender,
        ):
            assert not await sender.boundary(SYMBOL, BOUNDARY_MS)
            assert sender.counts()[address_of(server)] == DeliveryCounts(dropped=1)
    assert receiver.attempts == []


async def test_the_token_of_an_intake_is_sent_and_a_wrong_one_ends_it(store: MarketStore) -> None:
    receiver, keys = Receiver(), KeyRing(["right"])
    async with serving(receiver.method, keys=keys) as server:
        address = address_of(server)
        named = f"INTAKE_TOKEN@{address}"
        async with sending(store, named, environ={"INTAKE_TOKEN": "right"}) as sender:
            await sender.boundary(SYMBOL, BOUNDARY_MS)
            await sender.settled()
            assert sender.counts()[address] == DeliveryCounts(sent=1)
            assert "right" not in repr(sender)
        async with sending(store, named, environ={"INTAKE_TOKEN": "wrong"}) as sender:
            await sender.boundary(SYMBOL, BOUNDARY_MS)
            await asyncio.wait_for(sender.settled(), 10)
            assert sender.counts()[address] == DeliveryCounts(dropped=1)


async def test_a_monitor_reads_ages_and_counts_in_one_place(store: MarketStore) -> None:
    address, now_ms = free_address(), BOUNDARY_MS + 7 * MINUTE_MS
    async with sending(store, address, now_ms=now_ms) as sender:
        await sender.boundary(SYMBOL, BOUNDARY_MS)
        await sender.settled()
        numbers = sender.numbers()
    assert numbers.intakes == {address: DeliveryCounts(dropped=1)}
    ages = {age.series: age.newest for age in numbers.series}
    assert ages["candles_5m"] == ages["candles_4h"] == BOUNDARY_MS
    assert ages["open_interest"] == int(HISTORY.known_at(BOUNDARY_MS).open_interest.time_ms[-1])
    assert all(age.age_seconds >= 7 * 60 for age in numbers.series if age.age_seconds is not None)


async def test_a_time_between_boundaries_is_refused(store: MarketStore) -> None:
    async with sending(store) as sender:
        with pytest.raises(InvalidInputError, match="is no boundary of 15m snapshots"):
            await sender.boundary(SYMBOL, BOUNDARY_MS + MINUTE_MS)


async def test_a_snapshot_whose_candle_is_corrected_later_is_counted_once(
    store: MarketStore,
) -> None:
    """One of later times that did not change what was sent is not."""
    receiver = Receiver()
    known = HISTORY.known_at(BOUNDARY_MS).intraday
    last = known.between(int(known.times[-1]), None)
    later = HISTORY.intraday.between(BOUNDARY_MS, BOUNDARY_MS + 1)
    async with serving(receiver.method) as server, sending(store, address_of(server)) as sender:
        await sender.boundary(SYMBOL, BOUNDARY_MS)
        await sender.settled()
        store.write(SYMBOL, later, "stream", written_at_ms=BOUNDARY_MS)
        assert sender.recheck(SYMBOL) == []
        final = replace(last, volume=last.volume + 1, close=last.low)
        store.write(SYMBOL, final, "REST", written_at_ms=BOUNDARY_MS)
        assert sender.recheck(SYMBOL) == [BOUNDARY_MS]
        assert sender.recheck(SYMBOL) == []
        counts = sender.counts()[address_of(server)]
    assert counts == DeliveryCounts(sent=1, corrected=1)
    assert len(receiver.taken) == 1
