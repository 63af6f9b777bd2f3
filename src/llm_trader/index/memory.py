"""One symbol's points in memory: sliced by time, searched exactly, grown in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Times
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable, joined
from llm_trader.index.protocol import FieldRange, Hits, SearchQuery

# All points are copied each time they have grown by half; doubling would waste more memory.
_GROWTH = 1.5
# A sample of an eighth estimates the cut well; half as many misjudge it more often, and then the
# whole array is partitioned.
_SAMPLE_EVERY = 8


class SymbolArrays:
    """Points in time order, with room behind them so that appending is cheap."""

    def __init__(self, table: PointTable) -> None:
        self._table = table
        self._room = table
        self._resolved_at_ms = table.resolved_at_ms

    def table(self) -> PointTable:
        return self._table

    def scan(self, window: Window) -> PointTable:
        return self._table.take(self._slice(window))

    def fetch(self, timestamp_ms: Times) -> PointTable:
        rows = np.searchsorted(self._table.timestamp_ms, np.unique(timestamp_ms))
        rows = rows[rows < len(self._table)]
        return self._table.take(rows[np.isin(self._table.timestamp_ms[rows], timestamp_ms)])

    def search(self, query: SearchQuery) -> Hits:
        visible = self.scan(query.window)
        vectors = visible.vectors[query.name]
        cosine = vectors @ query.vector
        rows = np.flatnonzero(admitted(visible, query.ranges)) if query.ranges else None
        candidates = cosine if rows is None else cosine[rows]
        shortlist = nearest(candidates, query.limit)
        rows = shortlist if rows is None else rows[shortlist]
        # BLAS rounds a row by where it lies; this does not, so equal vectors have equal scores.
        exact = np.vecdot(vectors[rows], query.vector)
        order = np.argsort(-exact, kind="stable")[: query.limit]
        best = np.nan
        if len(cosine):
            best = float(np.vecdot(vectors[cosine.argmax()], query.vector))
        return Hits(visible, rows[order], exact[order], len(candidates), best)

    def merge(self, new: PointTable) -> None:
        """Add points, replacing those of the same time."""
        old = self._table
        if len(old) and new.timestamp_ms[0] > old.timestamp_ms[-1]:
            self._append(new)
        else:
            stay = ~np.isin(old.timestamp_ms, new.timestamp_ms)
            merged = joined([old.take(stay), new])
            self._table = self._room = merged.take(np.argsort(merged.timestamp_ms))
        self._resolved_at_ms = self._table.resolved_at_ms

    def _append(self, new: PointTable) -> None:
        n, size = len(self._table), len(self._table) + len(new)
        if size > len(self._room):
            self._room = _with_room(self._table, int(size * _GROWTH))
        # Readers hold slices that end before the rows written here.
        self._room.timestamp_ms[n:size] = new.timestamp_ms
        self._room.values[:, n:size] = new.values
        for name, vectors in new.vectors.items():
            self._room.vectors[name][n:size] = vectors
        self._room.run[n:size] = new.run
        # The room keeps its token, but its content has changed.
        self._table = replace(self._room.take(slice(0, size)), version_token=object())

    def _slice(self, window: Window) -> slice:
        first = np.searchsorted(self._table.timestamp_ms, window.earliest_timestamp_ms)
        last = np.searchsorted(self._resolved_at_ms, window.resolved_by_ms, side="right")
        return slice(int(first), max(int(first), int(last)))


def nearest(cosine: npt.NDArray[np.float32], limit: int) -> npt.NDArray[np.intp]:
    """Rows, in their order, of the `limit` greatest values and of those equal but for rounding."""
    n = len(cosine)
    if limit >= n:
        return np.arange(n)
    rows = _shortlist(cosine, limit)
    candidates = cosine[rows]
    lowest = np.partition(candidates, len(rows) - limit)[len(rows) - limit]
    chosen: npt.NDArray[np.intp] = rows[candidates >= lowest - COSINE_ROUNDING]
    return chosen


def _shortlist(cosine: npt.NDArray[np.float32], limit: int) -> npt.NDArray[np.intp]:
    """Some more rows than the `limit` greatest: those above a cut that a sample suggests.

    Comparing with a cut is far cheaper than partitioning all values. Where the sample misjudges
    the cut, all rows are returned.
    """
    sample = cosine[::_SAMPLE_EVERY]
    rank = len(sample) - 1 - (2 * limit) // _SAMPLE_EVERY
    if rank > 0:
        cut = np.partition(sample, rank)[rank]
        rows = np.flatnonzero(cosine >= cut - COSINE_ROUNDING)
        if np.count_nonzero(cosine[rows] >= cut) >= limit:
            return rows
    return np.arange(len(cosine))


def admitted(table: PointTable, ranges: tuple[FieldRange, ...]) -> npt.NDArray[np.bool_]:
    """Whether each point of a table passes all ranges, shape (n,)."""
    inside = np.ones(len(table), np.bool_)
    for bounds in ranges:
        column = table.column(bounds.field)
        if bounds.exclusive:
            inside &= (column > bounds.low) & (column < bounds.high)
        else:
            inside &= (column >= bounds.low) & (column <= bounds.high)
    return inside


def _with_room(table: PointTable, capacity: int) -> PointTable:
    n = len(table)
    room = PointTable(
        table.symbol,
        np.zeros(capacity, np.int64),
        np.zeros((len(table.values), capacity)),
        {
            name: np.zeros((capacity, vectors.shape[1]), np.float32)
            for name, vectors in table.vectors.items()
        },
        np.zeros(capacity, np.uint32),
    )
    room.timestamp_ms[:n] = table.timestamp_ms
    room.values[:, :n] = table.values
    for name, vectors in table.vectors.items():
        room.vectors[name][:n] = vectors
    room.run[:n] = table.run
    return room
