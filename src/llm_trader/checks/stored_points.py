"""Compares what an index holds with the market data of now: corrections that did not reach it.

All stored outcomes are computed again, and the states of some sampled days. Where the store has no
candles of a point's time, there is nothing to compare it with, and it is counted as such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import FIELD_ROUNDING, Floats, Mask, Times, none_for_nan
from llm_trader.checks.sampling import sample
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.affected import snapshots_reading, whole_in_store
from llm_trader.snapshot.builder import SnapshotRules, build_snapshots
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.outcome import CHANGES, LABELS, LONGEST_HORIZON_MS, label_outcomes
from llm_trader.snapshot.source import read_history
from llm_trader.snapshot.table import ROW
from llm_trader.timeframe import DAY_MS, MAX_TIME_MS, Millis, Timeframe, iso8601

_ALWAYS: Final = Window(0, MAX_TIME_MS)
# The states of a day share one history, which takes longer to read than they take to build.
_DAYS_SAMPLED: Final = 10
# The candles of this many days are decoded at once.
_DAYS_AT_ONCE: Final = 30
# The first few name the cause; the count is of all.
_LISTED_PER_SYMBOL: Final = 20


class Difference(msgspec.Struct, frozen=True):
    """A field of a stored point that is another one in the data of now; null where unknown now."""

    symbol: str
    as_of: str
    field: str
    stored: float | None
    now: float | None


class StoredPoints(msgspec.Struct):
    """Counts of stored points; `differing` have another outcome or state in the data of now."""

    outcomes_compared: int = 0
    states_compared: int = 0
    without_candles: int = 0
    differing: int = 0
    differences: list[Difference] = []
    remedy: str | None = None


@dataclass(slots=True)
class _Differing:
    """What differs of one symbol's points: the first field of each, by time."""

    symbol: str
    fields: dict[Millis, Difference] = field(default_factory=dict)

    def add(self, names: Sequence[str], as_of_ms: Times, stored: Floats, now: Floats) -> None:
        """Compares columns (fields, n); a difference of rounding is none."""
        same = np.isclose(now, stored, rtol=FIELD_ROUNDING, atol=FIELD_ROUNDING, equal_nan=True)
        for column in np.flatnonzero(~same.all(axis=0)).tolist():
            row = int(np.argmin(same[:, column]))
            time_ms = int(as_of_ms[column])
            values = (none_for_nan(float(part[row, column])) for part in (stored, now))
            difference = Difference(self.symbol, iso8601(time_ms), names[row], *values)
            self.fields.setdefault(time_ms, difference)


async def compare_stored_points(
    index: VectorIndex,
    store: MarketStore,
    rules: SnapshotRules,
    symbols: Sequence[str],
    now_ms: Millis,
    rng: np.random.Generator,
) -> StoredPoints:
    """Compares the points of symbols that the index has.

    An outcome that ends after `now_ms` differs, whatever candles there are.
    """
    report = StoredPoints()
    unrecorded: list[Millis] = []
    for symbol in symbols:
        points = await index.scan(symbol, _ALWAYS)
        differing = _Differing(symbol)
        intraday = Timeframe.parse(index.collection.intraday)
        for part in _by_time(points):
            _compare_outcomes(store, intraday, part, now_ms, report, differing)
            await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
        whole = whole_in_store(points.timestamp_ms, store.kept_from_ms(symbol))
        days = np.unique(points.timestamp_ms[whole] // DAY_MS)
        for day in np.sort(sample(days, _DAYS_SAMPLED, rng)).tolist():
            part = points.take(points.timestamp_ms // DAY_MS == day)
            _compare_states(store, intraday, rules, part, report, differing)
            await asyncio.sleep(0)
        times = sorted(differing.fields)
        report.differing += len(times)
        report.differences += [differing.fields[t] for t in times[:_LISTED_PER_SYMBOL]]
        changes = store.changes_since(symbol, await index.data_mark(symbol))
        stamps = np.array(times, np.int64)
        recorded = snapshots_reading(changes, stamps, store, symbol, intraday)
        unrecorded += stamps[~recorded].tolist()
    # A plain ingestion takes over what the store recorded as corrected.
    if unrecorded:
        report.remedy = f"rag-ingest --rebuild --start {iso8601(min(unrecorded))}"
    elif report.differing:
        report.remedy = "rag-ingest"
    return report


def _by_time(points: PointTable) -> Iterator[PointTable]:
    blocks = points.timestamp_ms // (_DAYS_AT_ONCE * DAY_MS)
    for block in np.unique(blocks).tolist():
        yield points.take(blocks == block)


def _compare_outcomes(
    store: MarketStore,
    intraday: Timeframe,
    points: PointTable,
    now_ms: Millis,
    report: StoredPoints,
    differing: _Differing,
) -> None:
    times, stored = points.timestamp_ms, points.values[-len(LABELS) :]
    first_ms = int(times[0]) - intraday.ms
    end_ms = int(times[-1]) + LONGEST_HORIZON_MS
    candles = store.candles(points.symbol, intraday, first_ms, end_ms)
    now = label_outcomes(candles.known_at(now_ms), times)
    # What is not known yet can be in no candle; elsewhere the store may lack the candles.
    comparable = np.isfinite(now[: len(CHANGES)]).all(axis=0) | (points.resolved_at_ms > now_ms)
    report.outcomes_compared += int(comparable.sum())
    report.without_candles += int((~comparable).sum())
    differing.add(LABELS, times[comparable], stored[:, comparable], now[:, comparable])


def _compare_states(
    store: MarketStore,
    intraday: Timeframe,
    rules: SnapshotRules,
    points: PointTable,
    report: StoredPoints,
    differing: _Differing,
) -> None:
    times, stored = points.timestamp_ms, points.values[: len(SCALARS)]
    history = read_history(store, points.symbol, intraday, int(times[0]), int(times[-1]) + 1)
    now = build_snapshots(history, times, rules).scalars
    priced: Mask = np.isfinite(now[ROW["price"]])
    report.states_compared += int(priced.sum())
    differing.add(SCALARS, times[priced], stored[:, priced], now[:, priced])
