"""Market store to index points: snapshots, outcomes, vectors; a second run adds what is new.

1. Stored points whose data were corrected since are made again, or removed where that is no longer
   possible (`_Batches.make_again`). Then the index notes up to where it follows the data.
2. Points that are not in the index yet are added (`_Batches.add`).

Before both, points are removed that are older than the data that the store keeps.

Each batch of days is one transaction, so an interrupted run resumes where it stopped, and nothing
is lost or doubled. Corrections count as taken over only after all their points are written.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.embedding.state import StateSpace
from llm_trader.embedding.text import TextSpace
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.history import MarketHistory
from llm_trader.market.series_changes import DataChanges, DataMark
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, StepCounter, no_progress
from llm_trader.snapshot.affected import snapshots_reading, whole_in_store
from llm_trader.snapshot.builder import DEFAULT_RULES, SnapshotRules, build_snapshots
from llm_trader.snapshot.model import OPTIONAL, REQUIRED
from llm_trader.snapshot.outcome import CHANGES, LONGEST_HORIZON_MS, jump_follows, label_outcomes
from llm_trader.snapshot.source import read_history
from llm_trader.timeframe import DAY_MS, Millis, Timeframe, iso8601

NOT_RESOLVED: Final = "outcome not known yet"
_OUTCOME_GAP: Final = "the candle at the end of a horizon is missing"
_OUTCOME_JUMP: Final = (
    "a jump of more than ×3 in the 24h after it; if it is real: llm-trader data accept-jump"
)
_MODEL_OF_LATER: Final = "the volatility model was fitted to later data"
_OLDER_THAN_KEPT: Final = "older than the data that the store keeps"
_NO_VECTOR: Final = "a feature cannot be computed"
# A removal of old points is one transaction of some 10 MB.
_POINTS_AT_ONCE: Final = 5000


class IngestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Snapshots from `start_ms` to `end_ms`, both included, every `interval_ms`.

    With `rebuild`, its snapshots that are already in the index are made again, too.
    """

    start_ms: Millis
    end_ms: Millis
    interval_ms: Millis
    batch_days: int
    rebuild: bool = False

    def grid(self, first_ms: Millis, last_ms: Millis) -> Times:
        """The times of the plan within a range, both ends included."""
        start, end = max(self.start_ms, first_ms), min(self.end_ms, last_ms)
        start += -start % self.interval_ms
        return np.arange(start, end + 1, self.interval_ms, dtype=np.int64)

    def batches(self, times: Times) -> Iterator[Times]:
        """Parts of at most `batch_days`, cut at midnight, where snapshots share their history."""
        if len(times):
            block = times // (self.batch_days * DAY_MS)
            yield from np.split(times, np.flatnonzero(np.diff(block)) + 1)


class IngestReport(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an ingestion for one symbol, in counts of snapshots.

    Each of `requested` is in one of the next three, or refused for a reason. `remade` were in the
    index and were written again because the data that they read changed, or on request; `removed`
    cannot be made from the data of now, for a reason. Both may lie outside the requested range.
    `without_open_interest` and `without_funding` are of those written now, compared without them.
    """

    symbol: str
    requested: int
    outside_stored_data: int
    already_there: int
    added: int
    refused: dict[str, int]
    without_open_interest: int = 0
    without_funding: int = 0
    remade: int = 0
    removed: dict[str, int] = {}


@dataclass(slots=True)
class EarlierRuns:
    """What a process that ingests again and again keeps: it is one run of the index.

    `impossible` has the times that no point could be made of, by symbol, and how far the data had
    come then. They are tried again only where data that they read has changed.
    """

    run: int | None = None
    impossible: dict[str, tuple[Times, DataMark]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spaces:
    """What points are made with: the rules of their states, and their vector spaces.

    The text space is `None` where text vectors are off.
    """

    state: StateSpace
    text: TextSpace | None = None
    rules: SnapshotRules = DEFAULT_RULES


async def ingest(
    store: MarketStore,
    index: VectorIndex,
    spaces: Spaces,
    symbols: list[str],
    plan: IngestPlan,
    *,
    build_id: str,
    now_ms: Millis,
    progress: Progress = no_progress,
    earlier: EarlierRuns | None = None,
) -> list[IngestReport]:
    """Add the snapshots of a plan that are not in the index yet, and take corrections over.

    Candles that close after `now_ms` are not final, so no outcome is taken from them. `progress` is
    called with a symbol, the snapshots done, and their number. Who ingests again and again passes
    the same `earlier` each time. Raises
    `SymbolNotFoundError` before anything is written when the store lacks a symbol.
    """
    spans = checked_spans(store, spaces.state, symbols, plan)
    earlier = EarlierRuns() if earlier is None else earlier
    if earlier.run is None:
        earlier.run = await index.begin_run(build_id, store.exchange, iso8601(now_ms))
    ingestion = _Ingestion(store, index, spaces, plan, earlier.run, now_ms, progress, earlier)
    return [await ingestion.take_in(symbol, *span) for symbol, span in spans.items()]


def checked_spans(
    store: MarketStore, space: StateSpace, symbols: list[str], plan: IngestPlan
) -> dict[str, tuple[Millis, Millis]]:
    """The closes of the first and the last stored candle, by symbol.

    Raises `SymbolNotFoundError` or `InvalidInputError` where the store or the plan lacks something.
    """
    if plan.end_ms < plan.start_ms:
        raise InvalidInputError("the end lies before the start; exchange them")
    if plan.interval_ms < space.intraday.ms or plan.interval_ms % space.intraday.ms:
        raise InvalidInputError(
            f"the interval must be a multiple of the {space.intraday} candles, "
            f"not {Timeframe(plan.interval_ms)}"
        )
    available, step_ms = store.symbols(), space.intraday.ms
    spans = {}
    for symbol in symbols:
        if symbol not in available:
            raise SymbolNotFoundError(symbol, available)
        stored = store.first_and_last_ms(symbol, space.intraday)
        if stored is None:
            raise InvalidInputError(f"the store has no {space.intraday} candles of {symbol}")
        spans[symbol] = stored[0] + step_ms, stored[1] + step_ms
    return spans


@dataclass(frozen=True, slots=True)
class _Ingestion:
    store: MarketStore
    index: VectorIndex
    spaces: Spaces
    plan: IngestPlan
    run: int
    now_ms: Millis
    progress: Progress
    earlier: EarlierRuns

    async def take_in(self, symbol: str, first_ms: Millis, last_ms: Millis) -> IngestReport:
        """Bring a symbol's points up to date; its candles close from `first_ms` to `last_ms`."""
        requested = len(self.plan.grid(self.plan.start_ms, self.plan.end_ms))
        times = self.plan.grid(first_ms, last_ms)
        mark = await self.index.data_mark(symbol)
        removed = await self._remove_old(symbol)
        stored_times = await self.index.timestamps(symbol)
        changes = self.store.changes_since(symbol, mark)
        again = self._to_make_again(symbol, changes, stored_times, times)
        # All of these increase; without being told so, NumPy takes ten times as long.
        is_stored = np.isin(times, stored_times, assume_unique=True)
        new = self._worth_trying(symbol, times[~is_stored])
        total = len(times) + len(np.setdiff1d(again, times, assume_unique=True))
        batches = _Batches(self, symbol, min(last_ms, self.now_ms), total)
        batches.done = total - len(again) - len(new)
        self.progress(symbol, batches.done, total)
        remade, no_longer_possible = await batches.make_again(again)
        removed += no_longer_possible
        if mark != changes.mark:
            await self.index.set_data_mark(symbol, changes.mark)
        added, refused = await batches.add(new)
        if added or no_longer_possible:
            stored_times = await self.index.timestamps(symbol)
        self.earlier.impossible[symbol] = (
            np.setdiff1d(times, stored_times, assume_unique=True),
            changes.mark,
        )
        return IngestReport(
            symbol=symbol,
            requested=requested,
            outside_stored_data=requested - len(times),
            already_there=int(is_stored.sum()),
            added=added,
            refused=dict(refused),
            remade=remade,
            removed=dict(removed),
            **batches.lacking,
        )

    async def _remove_old(self, symbol: str) -> Counter[str]:
        """Remove the points of a time that the store keeps no data of."""
        if (kept_from_ms := self.store.kept_from_ms(symbol)) is None:
            return Counter()
        times = await self.index.timestamps(symbol)
        # The price of a state at the very cut is that of a removed candle.
        old = times[times <= kept_from_ms]
        for first in range(0, len(old), _POINTS_AT_ONCE):
            await self.index.remove(symbol, old[first : first + _POINTS_AT_ONCE])
        return Counter({_OLDER_THAN_KEPT: len(old)} if len(old) else {})

    def _worth_trying(self, symbol: str, times: Times) -> Times:
        """Without those that were impossible in an earlier run and read no changed data."""
        if symbol not in self.earlier.impossible:
            return times
        impossible, mark = self.earlier.impossible[symbol]
        changes = self.store.changes_since(symbol, mark)
        intraday = self.spaces.state.intraday
        reading = snapshots_reading(changes, times, self.store, symbol, intraday)
        return times[reading | ~np.isin(times, impossible, assume_unique=True)]

    def _to_make_again(
        self, symbol: str, changes: DataChanges, stored_times: Times, times: Times
    ) -> Times:
        """The stored points that read changed data; with `rebuild`, all of the plan's, too."""
        intraday = self.spaces.state.intraday
        again = outdated_times(self.store, symbol, changes, stored_times, intraday)
        if self.plan.rebuild:
            in_plan = stored_times[np.isin(stored_times, times, assume_unique=True)]
            whole = whole_in_store(in_plan, self.store.kept_from_ms(symbol))
            again = np.union1d(again, in_plan[whole])
        return again


def outdated_times(
    store: MarketStore,
    symbol: str,
    changes: DataChanges,
    stored_times: Times,
    intraday: Timeframe,
) -> Times:
    """The stored points that read changed data."""
    reading = snapshots_reading(changes, stored_times, store, symbol, intraday)
    # A point stays as it was made where its data was removed because of its age.
    reading &= whole_in_store(stored_times, store.kept_from_ms(symbol))
    return stored_times[reading]


@dataclass(slots=True)
class _Batches:
    """Makes one symbol's points, batch by batch; outcomes are known until `known_until_ms`."""

    ingestion: _Ingestion
    symbol: str
    known_until_ms: Millis
    total: int
    done: int = 0
    lacking: Counter[str] = field(default_factory=Counter)

    async def make_again(self, times: Times) -> tuple[int, Counter[str]]:
        """How many stored points were written again, and why how many others were removed."""
        remade, removed = 0, Counter[str]()
        index = self.ingestion.index
        async for batch, points, refusals in self._made(times):
            await index.upsert(points)
            if len(impossible := np.setdiff1d(batch, points.timestamp_ms)):
                await index.remove(self.symbol, impossible)
            remade += len(points)
            removed += refusals
        return remade, removed

    async def add(self, times: Times) -> tuple[int, Counter[str]]:
        """How many points were added, and why how many others were refused."""
        added, refused = 0, Counter[str]()
        async for _, points, refusals in self._made(times):
            added += await self.ingestion.index.upsert(points)
            refused += refusals
        return added, refused

    async def _made(self, times: Times) -> AsyncIterator[tuple[Times, PointTable, Counter[str]]]:
        progress = self.ingestion.progress
        for batch in self.ingestion.plan.batches(times):
            count = StepCounter(progress, self.symbol, self.total, self.done)
            points, refusals = await self._make_points(batch, count)
            self.lacking += _lacking_counts(points)
            yield batch, points, refusals
            self.done += len(batch)
            progress(self.symbol, self.done, self.total)

    async def _make_points(
        self, batch: Times, count: StepCounter
    ) -> tuple[PointTable, Counter[str]]:
        store, spaces, run = self.ingestion.store, self.ingestion.spaces, self.ingestion.run
        until_ms = int(batch[-1]) + LONGEST_HORIZON_MS
        intraday = spaces.state.intraday
        history = read_history(store, self.symbol, intraday, int(batch[0]), until_ms)
        stopped = threading.Event()

        def on_texts(texts: int) -> None:
            if stopped.is_set():  # the thread outlives a cancelled ingestion
                raise asyncio.CancelledError
            count(texts)

        try:
            # In a thread: embedding texts takes long, and Ctrl-C needs the event loop's turn.
            return await asyncio.to_thread(
                make_points, history, spaces, batch, self.known_until_ms, run, on_texts
            )
        finally:
            stopped.set()


def make_points(
    history: MarketHistory,
    spaces: Spaces,
    as_of_ms: Times,
    known_until_ms: Millis,
    run: int,
    on_texts: Callable[[int], None] = lambda count: None,
) -> tuple[PointTable, Counter[str]]:
    """The points of the snapshots at the given times, and counts of refusals by reason.

    Snapshots may lack what is `OPTIONAL`; their vectors are 0 there.

    `known_until_ms` is the close of the last final candle; a snapshot that resolves later is
    refused only until then. `on_texts` is called with the number of texts embedded since.
    """
    is_model_known = spaces.rules.volatility.known_at(as_of_ms)
    table = build_snapshots(history, as_of_ms[is_model_known], spaces.rules)
    refused = table.refusals(REQUIRED)
    refused[_MODEL_OF_LATER] += int((~is_model_known).sum())
    table = table.take(np.flatnonzero(table.storable()))
    labels = label_outcomes(history.intraday.known_at(known_until_ms), table.as_of_ms)
    resolved = np.isfinite(labels[: len(CHANGES)]).all(axis=0)
    unresolved = table.as_of_ms[~resolved] + LONGEST_HORIZON_MS > known_until_ms
    refused[NOT_RESOLVED] += int(unresolved.sum())
    jumped = jump_follows(history.intraday, table.as_of_ms[~resolved][~unresolved])
    refused[_OUTCOME_JUMP] += int(jumped.sum())
    refused[_OUTCOME_GAP] += int((~jumped).sum())
    state_vectors, share = spaces.state.embed(table)
    # All features but those of what the state lacks.
    whole = share == spaces.state.share_by_kind[table.lacking()]
    refused[_NO_VECTOR] += int((resolved & ~whole).sum())
    kept = resolved & whole
    table = table.take(kept)
    vectors = {STATE: state_vectors[kept]}
    if spaces.text:
        vectors[TEXT] = spaces.text.embed(table, on_texts)
    # One bit pattern for unknown, so that equal points are equal to the last bit.
    scalars = np.where(np.isfinite(table.scalars), table.scalars, np.nan)
    values = np.concatenate([scalars, labels[:, kept]])
    return PointTable.checked(table.symbol, table.as_of_ms, values, vectors, run), +refused


def _lacking_counts(points: PointTable) -> Counter[str]:
    """How many points are compared without what is `OPTIONAL`, by the names of the report."""
    kinds = points.lacking()
    return Counter(
        {
            f"without_{name}": int(np.count_nonzero(kinds >> bit & 1))
            for bit, name in enumerate(OPTIONAL)
        }
    )
