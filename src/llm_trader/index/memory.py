"""One symbol's points in memory: sliced by time, searched exactly, grown in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Times
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable, joined
from llm_trader.index.protocol import FieldRange, Hits, SearchQuery

_GROWTH = 1.5
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
        among = cosine if rows is None else cosine[rows]
        near = nearest(among, query.limit)
        rows = near if rows is None else rows[near]
        # BLAS rounds a row by where it lies; this does not, so equal vectors have equal scores.
        exact = np.vecdot(vectors[rows], query.vector)
        order = np.argsort(-exact, kind="stable")[: query.limit]
        best = np.nan
        if len(cosine):
            best = float(np.vecdot(vectors[cosine.argmax()], query.vector))
        return Hits(visible, rows[order], exact[order], len(among), best)

    def merge(self, new: PointTable) -> None:
        """Add points, replacing those of the same time."""
        old = self._table
        if len(old) and new.timestamp_ms[0] > old.timestamp_ms[-1]:
            self._append(new)
        else:
            stay = ~np.isin(old.timestamp_ms, new.timestamp_ms)
            both = joined([old.take(stay), new])
            self._table = self._room = both.take(np.argsort(both.timestamp_ms))
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
        # The room keeps its token; what it holds has changed.
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
    among = cosine[rows]
    least = np.partition(among, len(rows) - limit)[len(rows) - limit]
    near: npt.NDArray[np.intp] = rows[among >= least - COSINE_ROUNDING]
    return near


def _shortlist(cosine: npt.NDArray[np.float32], limit: int) -> npt.NDArray[np.intp]:
    """Some more rows than the `limit` greatest, found by a cut that a sample suggests.

    Comparing with a cut is far cheaper than selecting among all; where the sample misjudged it,
    all rows are returned.
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
    """Which points of a table pass all ranges, shape (n,)."""
    inside = np.ones(len(table), np.bool_)
    for wanted in ranges:
        column = table.column(wanted.field)
        if wanted.exclusive:
            inside &= (column > wanted.low) & (column < wanted.high)
        else:
            inside &= (column >= wanted.low) & (column <= wanted.high)
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
