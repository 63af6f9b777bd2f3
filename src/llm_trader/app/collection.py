"""Collects live data, sends the state of each boundary, and indexes what resolves.

1. Look the symbols up, and bring the store up to date (`MarketCollector.catch_up`).
2. Collect until SIGTERM or Ctrl-C (`MarketCollector.run`). At each boundary of the grid of
   snapshots, send them to the intakes (`_boundary`); once a day, remove what is older than is kept.
3. With an index, a thread follows the store (`follower_thread.py`), as `rag-ingest --follow` does.

All times are those of the exchange: the clock that is handed in, corrected by its offset.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec
import structlog

from llm_trader.app.follower_thread import FollowerThread
from llm_trader.app.following import FollowReport, StoreFollower
from llm_trader.app.indexes import refuse_one_folder_for_both
from llm_trader.app.job import Job
from llm_trader.app.market_data import find_on_venue, refuse_store_of_another, written_store
from llm_trader.app.retention import cut_ms_of
from llm_trader.app.snapshot_delivery import snapshot_sender
from llm_trader.clock import Clock, OffsetClock
from llm_trader.delivery.sender import LiveNumbers, SnapshotSender, data_ends
from llm_trader.errors import ExchangeError, InvalidInputError, LlmTraderError, raised_inside
from llm_trader.market.collecting.collector import MarketCollector
from llm_trader.market.collecting.surroundings import CollectCounts, LiveMarket
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.exchange.venue import Venue, open_venue
from llm_trader.market.fetching import check_timeframes
from llm_trader.market.store import MarketStore
from llm_trader.rpc.server import stop_on_signals
from llm_trader.storage.writer_lock import WriterLock
from llm_trader.timeframe import (
    DAY_MS,
    MINUTE_MS,
    SECOND_MS,
    Millis,
    Timeframe,
    iso8601,
    parse_start,
)

_LOOK_EVERY_S: Final = 0.5
# What was read of the store's file counts as memory of this process until it is released.
_RELEASE_EVERY_MS: Final = MINUTE_MS
# How far back an index reaches that is made anew.
_INDEX_START_DAYS: Final = "90"

# Frames are read with the parsers of these.
_LIBRARIES: Final = ("ccxt", "aiohttp", "json")

_log = structlog.get_logger(__name__)


class CollectionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to collect. `start` is for symbols that the store does not have yet."""

    exchange: str
    symbols: tuple[str, ...]
    timeframes: tuple[Timeframe, ...]
    start: str
    is_indexed: bool = False


class BoundaryReport(msgspec.Struct, frozen=True):
    """One boundary: of `symbols`, `sent` snapshots were posted, and `late` lacked some data."""

    boundary: str
    symbols: int
    sent: int
    late: dict[str, tuple[str, ...]]
    counts: CollectCounts


class CollectionReport(LiveNumbers, frozen=True, kw_only=True):
    """What a monitor reads, and the last word of a collector."""

    exchange: str
    counts: CollectCounts
    clock_offset_ms: Millis


Report = Callable[[BoundaryReport | FollowReport | CollectionReport], None]


def collect_market(
    job: Job,
    plan: CollectionPlan,
    clock: Clock,
    report: Report,
    connect: Callable[..., Venue] = open_venue,
) -> None:
    """Collect until SIGTERM or Ctrl-C.

    Raises `InvalidInputError` for what is not there, `ExchangeError` where the exchange cannot be
    reached at the start, and `StoreLockedError` where another process collects into the store.
    """
    asyncio.run(_Collection(job, plan, OffsetClock(clock), report, connect).until_stopped())


@dataclass(eq=False)
class _Collection:
    job: Job
    plan: CollectionPlan
    clock: OffsetClock
    report: Report
    connect: Callable[..., Venue]
    _failure: asyncio.Future[None] = field(init=False)
    _pruned_to_ms: Millis = 0

    async def until_stopped(self) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        self._failure = loop.create_future()
        stop_on_signals(stop)
        collecting = asyncio.create_task(self._collect())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait(
            (collecting, stopping, self._failure), return_when=asyncio.FIRST_COMPLETED
        )
        stopping.cancel()
        if stop.is_set() or self._failure.done():
            collecting.cancel()
        with suppress(asyncio.CancelledError):
            try:
                await collecting
            except BaseExceptionGroup as failures:
                raise _first_failure(failures) from None
        if self._failure.done():
            self._failure.result()
        _log.info("collecting_stopped")

    async def _collect(self) -> None:
        refuse_one_folder_for_both(self.job.settings)
        if not self.plan.symbols:
            raise InvalidInputError("--symbols names no symbol; name one, such as BTCUSDT")
        parse_start(self.plan.start, self.job.now_ms)
        market = self.job.settings.market
        venue = self.connect(self.plan.exchange, market.exchange)
        try:
            refuse_store_of_another(market, venue.name)
            check_timeframes(venue, self.plan.timeframes)
            instruments = await self._instruments(venue)
            lock = WriterLock(market.store)
            try:
                with written_store(market, venue.name) as store:
                    live = LiveMarket(venue, store, market.exchange, self.clock, Random())
                    await self._collect_into(store, live, instruments)
            finally:
                lock.release()
        finally:
            await venue.close()

    async def _instruments(self, venue: Venue) -> list[Instrument]:
        found = await find_on_venue(venue, self.plan.symbols)
        now_ms = self.clock.now_ms()
        traded = [i for i in found if i.ended_ms is None or i.ended_ms > now_ms]
        for instrument in found:
            if instrument not in traded:
                _log.warning("delisted", symbol=instrument.symbol)
        if not traded:
            raise InvalidInputError(
                f"{venue.name} does not trade {', '.join(self.plan.symbols)} any more; "
                "llm-trader data fetch gets their history"
            )
        return traded

    async def _collect_into(
        self, store: MarketStore, live: LiveMarket, instruments: list[Instrument]
    ) -> None:
        collector = MarketCollector(live, instruments, self.plan.timeframes)
        asyncio.get_running_loop().set_exception_handler(_exception_handler(collector))
        await collector.measure_clock()
        start_ms = parse_start(self.plan.start, self.clock.now_ms())
        await collector.catch_up(start_ms, self.job.progress)
        store.release_memory()
        if not store.symbols():
            raise ExchangeError(
                f"{live.venue.name} has sent no data of {', '.join(collector.symbols)}; the log "
                "says why; run the command again later"
            )
        settings, environ = self.job.settings, self.job.environ
        sender = snapshot_sender(settings, environ, store, collector.symbols, self.clock)
        try:
            async with self._following(store, collector.symbols), asyncio.TaskGroup() as tasks:
                boundaries = tasks.create_task(self._boundaries(store, collector, sender))
                await collector.run()
                boundaries.cancel()
        finally:
            await sender.close()
            self.report(self._numbers(collector, sender))

    @asynccontextmanager
    async def _following(self, store: MarketStore, symbols: list[str]) -> AsyncIterator[None]:
        if not self.plan.is_indexed:
            yield
            return
        loop = asyncio.get_running_loop()

        def report(ingested: FollowReport) -> None:
            loop.call_soon_threadsafe(self.report, ingested)

        def failed(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._fail, error)

        follower = StoreFollower(
            self.job, symbols, _INDEX_START_DAYS, self.clock.now_ms, report, store
        )
        thread = FollowerThread(follower, failed)
        thread.start()
        try:
            yield
        finally:
            if not await asyncio.shield(thread.stop()):
                _log.warning("index_left", reason="a batch is under way; the next run repeats it")

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _boundaries(
        self, store: MarketStore, collector: MarketCollector, sender: SnapshotSender
    ) -> None:
        """Each boundary has a task, so that late data of one does not delay the next."""
        grid, released_ms = sender.source.grid, self.clock.now_ms()
        deadline_ms = round(sender.config.deadline_s * SECOND_MS)
        last_ms = 0
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self.clock.sleep(_LOOK_EVERY_S)
                now_ms = self.clock.now_ms()
                if now_ms - released_ms > _RELEASE_EVERY_MS:
                    released_ms = now_ms
                    store.release_memory()
                while collector.market.corrected:
                    sender.recheck(collector.market.corrected.pop())
                # After a restart, the boundary before is sent unless it is too late for it; equal
                # ids tell receivers that they have it.
                last_ms = max(last_ms, grid.floor(now_ms - deadline_ms))
                for as_of_ms in range(last_ms + grid.ms, now_ms + 1, grid.ms):
                    last_ms = as_of_ms
                    tasks.create_task(self._boundary(collector, sender, as_of_ms))
                    tasks.create_task(self._prune(store))

    async def _boundary(
        self, collector: MarketCollector, sender: SnapshotSender, as_of_ms: Millis
    ) -> None:
        symbols, sent = collector.symbols, 0
        if sender.intakes:
            sent = sum(await asyncio.gather(*(self._post(sender, s, as_of_ms) for s in symbols)))
        late = self._late(sender, symbols, as_of_ms)
        give_up_ms = as_of_ms + round(sender.config.max_wait_s * SECOND_MS)
        while late and not sender.intakes and self.clock.now_ms() < give_up_ms:
            await self.clock.sleep(_LOOK_EVERY_S)
            late = self._late(sender, list(late), as_of_ms)
        counts = collector.counts()
        self.report(BoundaryReport(iso8601(as_of_ms), len(symbols), sent, late, counts))

    async def _post(self, sender: SnapshotSender, symbol: str, as_of_ms: Millis) -> bool:
        is_sent = await sender.boundary(symbol, as_of_ms)
        # The snapshots of a hundred symbols read 300 MB of the store within a second.
        sender.source.store.release_memory()
        return is_sent

    def _late(
        self, sender: SnapshotSender, symbols: list[str], as_of_ms: Millis
    ) -> dict[str, tuple[str, ...]]:
        late = {s: data_ends(sender.source, s).late_at(as_of_ms) for s in symbols}
        return {symbol: kinds for symbol, kinds in late.items() if kinds}

    async def _prune(self, store: MarketStore) -> None:
        """Once a day; the follower, or the next `rag-ingest`, removes the points of it."""
        cut_ms = cut_ms_of(store, self.job.settings.market.keep_days, self.clock.now_ms())
        if cut_ms < self._pruned_to_ms + DAY_MS:
            return
        self._pruned_to_ms = cut_ms
        removed = await asyncio.to_thread(store.remove_before, cut_ms)
        if removed:
            rows = sum(part.rows for part in removed)
            _log.info("old_data_removed", before=iso8601(cut_ms), rows=rows)

    def _numbers(self, collector: MarketCollector, sender: SnapshotSender) -> CollectionReport:
        numbers = sender.numbers()
        return CollectionReport(
            series=numbers.series,
            intakes=numbers.intakes,
            exchange=collector.market.venue.name,
            counts=collector.counts(),
            clock_offset_ms=self.clock.offset_ms,
        )


def _exception_handler(
    collector: MarketCollector,
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """ccxt reads frames in callbacks: one that it cannot read ends its reading without a word."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Exception) or not raised_inside(error, _LIBRARIES):
            loop.default_exception_handler(context)
        elif "handle" in context:
            collector.streams.fail(f"a frame cannot be read: {type(error).__name__} {error}")

    return handle


def _first_failure(failures: BaseExceptionGroup[Any]) -> BaseException:
    """The reason that a person can do something about; others follow from it."""
    ours, others = failures.split(LlmTraderError)
    group = ours or others
    error: BaseException = failures if group is None else group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
