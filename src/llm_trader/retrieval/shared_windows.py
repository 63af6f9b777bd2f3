"""Base rates and forecast bases of many windows of one symbol, sorted once.

Most of what a window costs is sorting its outcomes. Windows that are parts of one table are sorted
together. Each leaves out only a few outcomes of the table, so what lies at a place among its own
follows from the places that these have among all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.index.points import PointTable
from llm_trader.retrieval.forecast import (
    FORECAST_LEVELS,
    MIXED,
    OUTCOMES_COUNTED,
    WindowNumbers,
    quantile_places,
    relative_outcomes,
    size_numbers,
)
from llm_trader.retrieval.reference import QUANTILE_LEVELS, BaseRates
from llm_trader.retrieval.statistics import OUTCOME_ROWS, quantiles_at
from llm_trader.snapshot.table import any_lacks

_ALL: Final = slice(None)


class SharedWindows:
    """Windows of a table that holds all of them."""

    def __init__(self, table: PointTable) -> None:
        self.table = table

    @cached_property
    def _outcomes(self) -> _Sorted:
        return _Sorted(self.table.values[OUTCOME_ROWS])

    @cached_property
    def relative(self) -> _Sorted:
        """Outcomes in units of expected volatility."""
        return _Sorted(relative_outcomes(self.table.values))

    @cached_property
    def size_numbers(self) -> Floats:
        """How far each of the ascending ones went, (horizons, n)."""
        return size_numbers(self.relative.ascending)

    @cached_property
    def lacks_nothing(self) -> bool:
        return not any_lacks(self.table.values)

    def holds(self, window: PointTable) -> bool:
        """Whether a window is a part of the table."""
        stamps, all_stamps = window.timestamp_ms, self.table.timestamp_ms
        return (
            window.version_token == self.table.version_token
            and bool(len(stamps))
            and bool(all_stamps[0] <= stamps[0] and stamps[-1] <= all_stamps[-1])
        )

    def first_row(self, window: PointTable) -> int:
        """Where a window that is a part of the table begins in it."""
        return int(self.table.timestamp_ms.searchsorted(window.timestamp_ms[0]))

    def base_rates(self, window: PointTable) -> BaseRates:
        n = len(window)
        part = _Parts(self._outcomes, np.array([self.first_row(window)]), np.array([n]))

        def at(places: Rows) -> Floats:
            all_rows = np.broadcast_to(places, (len(self._outcomes.values), *places.shape))
            return part.at(all_rows)[:, 0]

        return BaseRates.of_quantiles(window, quantiles_at(at, n, QUANTILE_LEVELS[None]))


class SharedBases:
    """The forecast bases of some windows of a shared table: `SortedWindows`."""

    def __init__(self, shared: SharedWindows, windows: Sequence[PointTable]) -> None:
        self._relative = shared.relative
        self._first = np.array([shared.first_row(window) for window in windows])
        self.counts = np.array([len(window) for window in windows])
        self._parts = _Parts(self._relative, self._first, self.counts)

    def table_rows(self, rows: Rows) -> Rows:
        """The rows of the shared table that rows (windows, k) of the windows are."""
        return np.asarray(rows + self._first[:, None])

    @cached_property
    def numbers(self) -> WindowNumbers:
        relative, parts, counts = self._relative, self._parts, self.counts
        ends = zip(self._first.tolist(), (self._first + counts).tolist(), strict=True)
        sums = [np.add.reduce(relative.values[:, first:last], axis=1) for first, last in ends]
        nearer, beyond, falls = (
            parts.counts(relative.counts(sought, side)) for sought, side in OUTCOMES_COUNTED
        )
        places = quantile_places(FORECAST_LEVELS, counts[:, None])
        quantiles = parts.at(np.broadcast_to(places, (len(relative.values), *places.shape)))
        mean = np.array(sums).T / counts
        return WindowNumbers.of_counts(counts, quantiles, mean, nearer, beyond, falls[..., 0])

    def at(self, places: Rows) -> Floats:
        return self._parts.at(places, MIXED)

    def counts_up_to(self, places: Rows) -> Rows:
        """How many outcomes of a window lie at or below those of its own at places (horizons,
        windows, k) of all, for mixed horizons.
        """
        rows = np.array(MIXED)
        up_to = self._relative.up_to[rows[:, None, None], places[rows]]
        return self._parts.counts(up_to, MIXED)


class _Sorted:
    """Rows of numbers `values` (rows, n), and the same ascending."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        order: Rows = np.argsort(values, axis=1)
        self.ascending = np.take_along_axis(values, order, axis=1)
        n = values.shape[1]
        # The place of each number among the ascending ones.
        self.place = np.empty(values.shape, np.int32)
        np.put_along_axis(self.place, order, np.arange(n, dtype=np.int32)[None], axis=1)

    @cached_property
    def up_to(self) -> Rows:
        """How many are at most as large as each of the ascending ones, (rows, n)."""
        n = self.ascending.shape[1]
        is_last = np.ones(self.ascending.shape, np.bool_)
        np.not_equal(self.ascending[:, 1:], self.ascending[:, :-1], out=is_last[:, :-1])
        ends = np.where(is_last, np.arange(1, n + 1), n)
        return np.asarray(np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1])

    def counts(self, sought: Any, side: Literal["left", "right"]) -> Rows:
        """How many of each row lie below each sought value, or to the right of it up to it, (rows,
        1, sought).
        """
        return np.array([np.atleast_1d(r.searchsorted(sought, side)) for r in self.ascending])[
            :, None
        ]


class _Parts:
    """Parts of sorted rows: of each row the columns from `first`, `count` of them, both (parts,).

    Only the places of what lies outside of a part are looked at, (rows, parts, outside).
    """

    def __init__(self, whole: _Sorted, first: Rows, count: Rows) -> None:
        self._whole = whole
        n = whole.values.shape[1]
        outside = np.arange(int((n - count).max()))
        columns = np.where(outside < first[:, None], outside, outside + count[:, None])
        places = whole.place[:, np.minimum(columns, n - 1)].astype(np.intp)
        # Parts that leave out fewer have places beyond all others.
        places = np.where(columns < n, places, n + outside)
        places.sort(axis=2)
        self._outside = places
        # Rows lie far from each other, so that one search is for all.
        self._apart = n + places.shape[2] + 1

    def counts(self, counts: Rows, rows: Any = _ALL) -> Rows:
        """The numbers of ascending values of parts, of those of the whole (rows, parts, m)."""
        outside = self._outside[rows]
        shape = (*outside.shape[:2], counts.shape[2])
        return np.asarray(counts - self._found(outside, np.broadcast_to(counts, shape), "left"))

    def at(self, places: Rows, rows: Any = _ALL) -> Floats:
        """The values at places (rows, parts, m) among the ascending ones of the parts."""
        outside = self._outside[rows]
        # So many of the part precede each place that is outside.
        preceding = outside - np.arange(outside.shape[2])
        whole = places + self._found(preceding, places, "right")
        ascending = self._whole.ascending[rows]
        return np.asarray(ascending[np.arange(len(ascending))[:, None, None], whole])

    def _found(self, outside: Rows, sought: Rows, side: Literal["left", "right"]) -> Rows:
        """Where each of (rows, parts, m) stands in its own row of (rows, parts, outside)."""
        rows, parts, size = outside.shape
        number = np.arange(rows * parts).reshape(rows, parts, 1)
        apart = number * self._apart
        found = (outside + apart).ravel().searchsorted((sought + apart).ravel(), side)
        return np.asarray(found.reshape(sought.shape) - number * size)
