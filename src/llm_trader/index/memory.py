"""One symbol's points in memory: sliced by time, searched exactly, grown in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Cosines, Mask, Rows, Times
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable, joined
from llm_trader.index.protocol import FieldRange, Hits, SearchQuery
from llm_trader.snapshot.table import any_lacks

# All points are copied each time they have grown by half; doubling would waste more memory.
_GROWTH = 1.5
# A sample of an eighth estimates the cut well; half as many misjudge it more often, and then the
# whole array is partitioned.
_SAMPLE_EVERY = 8


class SymbolArrays:
    """Points in time order, with room behind them so that appending is cheap."""

    def __init__(self, table: PointTable) -> None:
        self.table = self._room = table
        self._resolved_at_ms = table.resolved_at_ms
        # Where no point ever lacked anything, a search need not look.
        self._some_lack = any_lacks(table.values)

    def scan(self, window: Window) -> PointTable:
        return self.table.take(self._rows(window))

    def _rows(self, window: Window) -> slice:
        first = int(np.searchsorted(self.table.timestamp_ms, window.earliest_timestamp_ms))
        last = int(np.searchsorted(self._resolved_at_ms, window.resolved_by_ms, side="right"))
        return slice(first, max(first, last))

    def fetch(self, timestamp_ms: Times) -> PointTable:
        rows = np.searchsorted(self.table.timestamp_ms, np.unique(timestamp_ms))
        rows = rows[rows < len(self.table)]
        return self.table.take(rows[np.isin(self.table.timestamp_ms[rows], timestamp_ms)])

    def search(self, query: SearchQuery) -> Hits:
        visible = self.scan(query.window)
        return self._hits(query, visible, visible.vectors[query.name] @ query.vector)

    def search_many(self, queries: Sequence[SearchQuery]) -> list[Hits]:
        """The hits of each; all compare the same vectors, and their windows are one product."""
        windows = [self._rows(query.window) for query in queries]
        start, end = min(w.start for w in windows), max(w.stop for w in windows)
        vectors = self.table.vectors[queries[0].name][start:end]
        products = np.stack([query.vector for query in queries]) @ vectors.T
        return [
            self._hits(
                query, self.table.take(rows), products[i, rows.start - start : rows.stop - start]
            )
            for i, (query, rows) in enumerate(zip(queries, windows, strict=True))
        ]

    def _hits(self, query: SearchQuery, visible: PointTable, cosine: Cosines) -> Hits:
        """`cosine` (n,) are those of the visible points but for rounding; it is written to."""
        scale = scales_of(visible, query) if self._some_lack else None
        if scale is not None:
            cosine *= scale
            cosine[np.isnan(scale)] = -np.inf
        passing = eligible(visible, query, scale)
        rows = None if passing is None else np.flatnonzero(passing)
        candidates = cosine if rows is None else cosine[rows]
        shortlist = nearest(candidates, query.limit)
        rows = shortlist if rows is None else rows[shortlist]
        exact = exact_cosines(visible, rows, query, scale)
        order = np.argsort(-exact, kind="stable")[: query.limit]
        best = np.nan
        if len(cosine):
            nearly_best = np.flatnonzero(cosine >= cosine.max() - COSINE_ROUNDING)
            best = float(exact_cosines(visible, nearly_best, query, scale).max())
        return Hits(visible, rows[order], exact[order], len(candidates), best)

    def merge(self, new: PointTable) -> None:
        """Add points, replacing those of the same time."""
        old = self.table
        if len(old) and new.timestamp_ms[0] > old.timestamp_ms[-1]:
            self._append(new)
        else:
            self.table = self._room = joined([old, new])
        self._resolved_at_ms = self.table.resolved_at_ms
        self._some_lack |= any_lacks(new.values)

    def remove(self, timestamp_ms: Times) -> None:
        kept = self.table.take(~np.isin(self.table.timestamp_ms, timestamp_ms))
        # In memory of its own: readers hold slices of the former table.
        self.table = self._room = replace(kept, version_token=object())
        self._resolved_at_ms = self.table.resolved_at_ms

    def _append(self, new: PointTable) -> None:
        n, size = len(self.table), len(self.table) + len(new)
        if size > len(self._room):
            self._room = _with_room(self.table, int(size * _GROWTH))
        # Readers hold slices that end before the rows written here.
        _write(self._room, n, new)
        # The room keeps its token, but its content has changed.
        self.table = replace(self._room.take(slice(0, size)), version_token=object())


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


def scales_of(table: PointTable, query: SearchQuery) -> Cosines | None:
    """The factor of each point's cosine, (n,), NaN where it cannot be compared; None: all are 1."""
    if query.scales is None or not any_lacks(table.values):
        return None
    scales: Cosines = query.scales[table.lacking()]
    return scales


def exact_cosines(
    table: PointTable, rows: Rows, query: SearchQuery, scale: Cosines | None
) -> Cosines:
    """The scores of some rows, the same wherever they lie; `scale` is that of all rows."""
    # BLAS rounds a row by where it lies; this does not, so equal vectors have equal scores.
    exact: Cosines = np.vecdot(table.vectors[query.name][rows], query.vector)
    return exact if scale is None else exact * scale[rows]


def eligible(table: PointTable, query: SearchQuery, scale: Cosines | None) -> Mask | None:
    """Whether each point passes the ranges and can be compared, (n,); None where all do."""
    passing = admitted(table, query.ranges) if query.ranges else None
    if scale is None or not (incomparable := np.isnan(scale)).any():
        return passing
    return ~incomparable if passing is None else passing & ~incomparable


def admitted(table: PointTable, ranges: tuple[FieldRange, ...]) -> npt.NDArray[np.bool_]:
    """Whether each point of a table passes all ranges, shape (n,); unknown fields do not."""
    inside = np.ones(len(table), np.bool_)
    for bounds in ranges:
        column = table.column(bounds.field)
        if bounds.exclusive:
            inside &= (column > bounds.low) & (column < bounds.high)
        else:
            inside &= (column >= bounds.low) & (column <= bounds.high)
    return inside


def _with_room(table: PointTable, capacity: int) -> PointTable:
    room = PointTable(
        table.symbol,
        np.zeros(capacity, np.int64),
        np.zeros((len(table.values), capacity)),
        {name: np.zeros((capacity, v.shape[1]), np.float32) for name, v in table.vectors.items()},
        np.zeros(capacity, np.uint32),
    )
    _write(room, 0, table)
    return room


def _write(room: PointTable, first: int, table: PointTable) -> None:
    rows = slice(first, first + len(table))
    room.timestamp_ms[rows], room.run[rows] = table.timestamp_ms, table.run
    room.values[:, rows] = table.values
    for name, vectors in table.vectors.items():
        room.vectors[name][rows] = vectors
