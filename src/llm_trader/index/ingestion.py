"""Market store to index points: snapshots, outcomes, vectors; a second run adds what is new.

Each batch of days is one transaction, and what is already in the index is skipped, so a run that
was killed goes on where it stopped, and nothing is lost or doubled.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, no_progress
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.day_cache import read_history
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS, label_outcomes
from llm_trader.timeframe import DAY_MS, Millis, Timeframe

NOT_RESOLVED: Final = "outcome not known yet"
_OUTCOME_GAP: Final = "candles missing in the 24h after it"
_NO_VECTOR: Final = "a feature cannot be computed"


class IngestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Snapshots from `start_ms` to `end_ms`, both included, every `interval_ms`.

    With `rebuild`, those that are in the index already are made and written anew.
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
    """What became of the snapshots that were asked for, by symbol."""

    symbol: str
    requested: int
    outside_stored_data: int
    already_there: int
    added: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class Spaces:
    """What vectors points get: always those of the state, and those of the text where wanted."""

    state: StateSpace
    text: TextSpace | None = None


async def ingest(
    store: MarketStore,
    index: VectorIndex,
    spaces: Spaces,
    symbols: list[str],
    plan: IngestPlan,
    *,
    build_id: str,
    started_at: str,
    progress: Progress = no_progress,
) -> list[IngestReport]:
    """Add the snapshots of a plan that are not in the index yet.

    `progress` is called with a symbol, the snapshots done, and their number. Raises
    `SymbolNotFoundError` before anything is written when the store lacks a symbol.
    """
    spans = _checked_spans(store, spaces.state, symbols, plan)
    run = await index.begin_run(build_id, store.exchange, started_at)
    return [
        await _ingest_symbol(store, index, spaces, symbol, span, plan, run, progress)
        for symbol, span in spans.items()
    ]


def _checked_spans(
    store: MarketStore, space: StateSpace, symbols: list[str], plan: IngestPlan
) -> dict[str, tuple[Millis, Millis]]:
    """When the first candle of each symbol closed, and the last."""
    if plan.end_ms < plan.start_ms:
        raise InvalidInputError("the end lies before the start")
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


async def _ingest_symbol(
    store: MarketStore,
    index: VectorIndex,
    spaces: Spaces,
    symbol: str,
    span: tuple[Millis, Millis],
    plan: IngestPlan,
    run: int,
    progress: Progress,
) -> IngestReport:
    whole = len(plan.grid(plan.start_ms, plan.end_ms))
    times = plan.grid(*span)
    there = np.isin(times, await index.timestamps(symbol))
    new = times if plan.rebuild else times[~there]
    added, refused, done = 0, Counter[str](), len(times) - len(new)
    progress(symbol, done, len(times))
    for batch in plan.batches(new):
        until_ms = int(batch[-1]) + LONGEST_HORIZON_MS
        history = read_history(store, symbol, spaces.state.intraday, int(batch[0]), until_ms)
        described = _Describing(progress, symbol, done, len(times))
        try:
            # In a thread: embedding texts takes long, and Ctrl-C needs the event loop's turn.
            points, why_not = await asyncio.to_thread(
                make_points, history, spaces, batch, span[1], run, described
            )
        finally:
            described.stopped = True
        added += await index.upsert(points)
        refused += why_not
        done += len(batch)
        progress(symbol, done, len(times))
    return IngestReport(
        symbol=symbol,
        requested=whole,
        outside_stored_data=whole - len(times),
        already_there=int(there.sum()),
        added=added,
        refused=dict(refused),
    )


def make_points(
    history: MarketHistory,
    spaces: Spaces,
    as_of_ms: Times,
    known_until_ms: Millis,
    run: int,
    described: Callable[[int], None] = lambda more: None,
) -> tuple[PointTable, Counter[str]]:
    """The complete points among the snapshots at the given times, and why others are not.

    `known_until_ms` is the close of the last candle there is: what resolves later is not
    refused for good, only not known yet. `described` is told how many more texts are embedded.
    """
    table = build_snapshots(history, as_of_ms)
    refused = table.refusals()
    table = table.take(table.complete())
    labels = label_outcomes(history.intraday, table.as_of_ms)
    resolved = np.isfinite(labels).all(axis=0)
    unresolved = table.as_of_ms[~resolved] + LONGEST_HORIZON_MS > known_until_ms
    refused[NOT_RESOLVED] += int(unresolved.sum())
    refused[_OUTCOME_GAP] += int((~unresolved).sum())
    state_vectors, share = spaces.state.embed(table)
    whole = share == 1.0
    refused[_NO_VECTOR] += int((resolved & ~whole).sum())
    kept = resolved & whole
    table = table.take(kept)
    vectors = {STATE: state_vectors[kept]}
    if spaces.text:
        vectors[TEXT] = spaces.text.embed(table, described)
    values = np.concatenate([table.scalars, labels[:, kept]])
    return PointTable.checked(table.symbol, table.as_of_ms, values, vectors, run), +refused


class _Describing:
    """Progress within a batch, as its texts are embedded; raises once nobody waits any more."""

    def __init__(self, progress: Progress, symbol: str, done: int, total: int) -> None:
        self._progress, self._symbol, self._done, self._total = progress, symbol, done, total
        self.stopped = False

    def __call__(self, more: int) -> None:
        if self.stopped:
            raise asyncio.CancelledError
        self._done += more
        self._progress(self._symbol, self._done, self._total)
