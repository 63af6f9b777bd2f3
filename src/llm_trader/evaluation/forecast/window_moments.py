"""Exact means of absolute differences over sliding windows: what base rates are scored with.

A forecast that is the whole window, thousands of outcomes, has the score E|X - y| - E|X - X'|/2.
Windows of neighbouring queries share nearly all their points: those are sorted once for a block of
queries, and each query adds its own few at the edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Rows

# A block shares one sorting of its core; each of its queries looks at the rows at all its edges.
_MOST_QUERIES: Final = 32
_MOST_EDGES: Final = 1024


class Moments(NamedTuple):
    """`mean_abs` (n, j): the mean of |X - z| over each window, for each of a query's j values.
    `spread` (n,): the mean of |X - X'| over all pairs of different points. NaN for a window of
    fewer than two points.
    """

    mean_abs: Floats
    spread: Floats


def window_moments(values: Floats, first: Rows, last: Rows, at: Floats) -> Moments:
    """Of the windows values[first:last], for `values` (m,), `first` and `last` (n,), `at` (n, j).

    Exact. Quick where windows move on slowly, as those of a walk through time do.
    """
    mean_abs, spread = np.full(at.shape, np.nan), np.full(len(first), np.nan)
    for block in _blocks(first, last):
        core = _Core(values, first[block], last[block])
        mean_abs[block], spread[block] = core.moments(at[block])
    return Moments(mean_abs, spread)


def _blocks(first: Rows, last: Rows) -> Iterator[slice]:
    """Runs of queries whose windows begin and end near each other."""
    start, count = 0, np.arange(1, _MOST_QUERIES + 1)
    while start < len(first):
        near = slice(start, start + _MOST_QUERIES)
        moved = np.maximum(np.abs(first[near] - first[start]), np.abs(last[near] - last[start]))
        far = np.flatnonzero(moved * count[: len(moved)] > _MOST_EDGES)
        stop = start + (int(far[0]) if len(far) else len(moved))
        yield slice(start, stop)
        start = stop


class _Core:
    """The points that all windows of a block share, sorted, and those at their edges."""

    def __init__(self, values: Floats, first: Rows, last: Rows) -> None:
        start = int(first.max())
        end = max(int(last.min()), start)
        self._sorted = np.sort(values[start:end])
        n = len(self._sorted)
        self._below = np.concatenate([[0.0], np.cumsum(self._sorted)])
        self._pairs = 2 * float((self._sorted * (2 * np.arange(1, n + 1) - n - 1)).sum())
        rows = np.concatenate([np.arange(first.min(), start), np.arange(end, last.max())])
        self._edges = values[rows]
        self._has = ((first[:, None] <= rows) & (rows < last[:, None])).astype(np.float64)
        self._size = last - first

    def moments(self, at: Floats) -> tuple[Floats, Floats]:
        """`mean_abs` and `spread` of the windows; a window has its edges, and the core."""
        edges, has = self._edges, self._has
        away = np.abs(edges[:, None] - at[:, None, :])
        total = self._absolute(at) + (has[:, None, :] @ away)[:, 0, :]
        within = (has @ np.abs(edges[:, None] - edges) * has).sum(axis=1)
        pairs = self._pairs + 2 * has @ self._absolute(edges) + within
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = pairs / (self._size * (self._size - 1))
            mean_abs = total / self._size[:, None]
        few = self._size < 2
        return np.where(few[:, None], np.nan, mean_abs), np.where(few, np.nan, spread)

    def _absolute(self, at: Floats) -> Floats:
        """The sum of |X - z| over the core for each z."""
        n = len(self._sorted)
        below = np.searchsorted(self._sorted, at)
        total: Floats = at * (2 * below - n) + self._below[n] - 2 * self._below[below]
        return total
