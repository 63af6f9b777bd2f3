"""Follows a market store that another process writes to: index points as their outcomes resolve.

1. Every second the version of the store, and then those of the symbols, are compared with those of
   the last look: microseconds where nothing was written, else 0.2 ms a symbol (`_Session.look`).
2. The symbols that were written to are ingested, in the range of a plain `rag-ingest`.
3. A store or an index that fails is opened again after a pause that doubles
   (`StoreFollower.follow`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from llm_trader.app.indexes import (
    collection_of,
    location_of,
    open_index,
    refuse_one_folder_for_both,
)
from llm_trader.app.ingestion import BUILD_ID, plan_of, spaces_of
from llm_trader.app.job import Job
from llm_trader.errors import (
    InvalidInputError,
    LlmTraderError,
    StoreError,
    StoreLockedError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.index.ingestion import EarlierRuns, IngestReport, Spaces, ingest
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.rpc.server import stop_on_signals
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.storage.environment import Version
from llm_trader.timeframe import Millis, iso8601, parse_start

# A server takes new states over at its next answer, so they are there a second after their data.
_LOOK_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 1.0
# A store that comes back, from a restore say, is followed within a minute.
_LONGEST_PAUSE_S: Final = 60.0

# What another process can mend while this one waits.
_MAY_PASS: Final = (StoreError, VectorIndexError, StoreLockedError, InvalidInputError)

_log = structlog.get_logger(__name__)


class FollowReport(IngestReport, frozen=True, kw_only=True):
    """An ingestion that changed the index; `at` is its time."""

    at: str


# Called with each ingestion that changed the index.
Report = Callable[[FollowReport], None]


def follow_store(
    job: Job, symbols: list[str], start: str, clock: Callable[[], Millis], report: Report
) -> None:
    """Ingest until SIGTERM or Ctrl-C what is written to the store; no symbols means all of it.

    Raises whatever prevents the first look, such as `StoreLockedError` while another process writes
    to the index. Later failures of the store or the index are logged and waited for.
    """
    asyncio.run(_until_stopped(StoreFollower(job, symbols, start, clock, report)))


async def _until_stopped(follower: StoreFollower) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    following = asyncio.create_task(follower.follow())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if stop.is_set():
        # Batches are transactions, so the next run goes on where this one is cut off.
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        _log.info("following_stopped")
    else:
        await following


@dataclass(slots=True)
class StoreFollower:
    """`follow` goes on until it is cancelled. `store` is the store where it is open already."""

    job: Job
    symbols: list[str]
    start: str
    clock: Callable[[], Millis]
    report: Report
    store: MarketStore | None = None

    async def follow(self) -> None:
        refuse_one_folder_for_both(self.job.settings)
        parse_start(self.start, self.job.now_ms)  # a mistake should not wait for the first data
        has_begun, pause_s = False, _FIRST_PAUSE_S
        while True:
            try:
                async with self._session() as session:
                    await session.look()
                    if not has_begun or pause_s > _FIRST_PAUSE_S:
                        self._log_begin("following_again" if has_begun else "following")
                    has_begun, pause_s = True, _FIRST_PAUSE_S
                    while True:
                        await asyncio.sleep(_LOOK_EVERY_S)
                        await session.look()
            except _MAY_PASS as error:
                if not has_begun:
                    raise
                _log.warning("following_paused", reason=error.message, next_try_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[_Session]:
        settings = self.job.settings
        with self._opened_store() as store:
            spaces = spaces_of(settings, store, self.symbols or store.symbols())
            collection = collection_of(spaces, store.exchange)
            async with open_index(settings, self.job.environ, create=collection) as index:
                yield _Session(self, store, index, spaces)

    def _opened_store(self) -> AbstractContextManager[MarketStore]:
        if self.store is not None:
            return nullcontext(self.store)
        return MarketStore.open(self.job.settings.market.store)

    def _log_begin(self, event: str) -> None:
        settings = self.job.settings
        store, index = str(settings.market.store), location_of(settings)
        _log.info(event, store=store, index=index, symbols=self.symbols or "all")


@dataclass(slots=True)
class _Session:
    """An opened store and index. `seen` has the data of each symbol as of its last ingestion.

    `looked_at` is the version of the store at the last look; None while a candle is not closed yet,
    which the clock changes and no write.
    """

    follower: StoreFollower
    store: MarketStore
    index: VectorIndex
    spaces: Spaces
    earlier: EarlierRuns = field(default_factory=EarlierRuns)
    seen: dict[str, tuple[Hashable, Millis]] = field(default_factory=dict)
    looked_at: Version | None = None

    async def look(self) -> None:
        """Ingest the symbols whose data is other than at their last ingestion."""
        version = self.store.version
        if version == self.looked_at:
            return
        self.looked_at = version
        available = self.store.symbols()
        failure: LlmTraderError | None = None
        for symbol in self.follower.symbols or available:
            if symbol not in available:
                raise SymbolNotFoundError(symbol, available)
            try:
                await self._look_at(symbol)
            except StoreError as error:  # such as a damaged day, which is this symbol's alone
                failure = failure or error
        if failure is not None:
            raise failure

    async def _look_at(self, symbol: str) -> None:
        intraday, now_ms = self.spaces.state.intraday, self.follower.clock()
        version = self.store.symbol_version(symbol)
        stored = self.store.first_and_last_ms(symbol, intraday)
        if stored is None:  # its candles may come later than its funding
            return
        # A candle that has not closed yet tells nothing until it has.
        known_ms = min(stored[1] + intraday.ms, intraday.floor(now_ms))
        if known_ms < stored[1] + intraday.ms:
            self.looked_at = None
        if self.seen.get(symbol) == (version, known_ms):
            return
        report = await self._ingest(symbol, known_ms, now_ms)
        self.seen[symbol] = version, known_ms
        if report.added or report.remade or report.removed:
            # A first look would otherwise end with all that it has read of all symbols.
            self.store.release_memory()
            values = msgspec.structs.asdict(report)
            self.follower.report(FollowReport(**values, at=iso8601(now_ms)))

    async def _ingest(self, symbol: str, known_ms: Millis, now_ms: Millis) -> IngestReport:
        settings = self.follower.job.settings
        start_ms = parse_start(self.follower.start, known_ms)
        # Later states cannot be resolved yet.
        end_ms = max(known_ms - LONGEST_HORIZON_MS, start_ms)
        plan = plan_of(settings, start_ms, end_ms)
        (report,) = await ingest(
            self.store,
            self.index,
            self.spaces,
            [symbol],
            plan,
            build_id=BUILD_ID,
            now_ms=now_ms,
            earlier=self.earlier,
        )
        return report
