"""Exact means of absolute differences over sliding windows: what base rates are scored with.

A forecast that is the whole window, thousands of outcomes, has the score E|X - y| - E|X - X'|/2.
Windows of neighbouring queries share nearly all their points: those are sorted once for a block of
queries, and each query adds its own few at the edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader.market.candles import Floats

Rows = npt.NDArray[np.intp]

# A query adds the rows at the edges of its own window, at a cost of their number squared.
_BLOCK: Final = 96


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
        for i in range(block.start, block.stop):
            if last[i] - first[i] >= 2:
                mean_abs[i], spread[i] = core.moments(int(first[i]), int(last[i]), at[i])
    return Moments(mean_abs, spread)


def _blocks(first: Rows, last: Rows) -> Iterator[slice]:
    """Runs of queries whose windows begin and end within few rows of each other."""
    start = 0
    while start < len(first):
        near = slice(start, start + _BLOCK)
        moved = np.maximum(np.abs(first[near] - first[start]), np.abs(last[near] - last[start]))
        far = np.flatnonzero(moved > _BLOCK)
        stop = start + (int(far[0]) if len(far) else len(moved))
        yield slice(start, stop)
        start = stop


class _Core:
    """The points that all windows of a block share, sorted."""

    def __init__(self, values: Floats, first: Rows, last: Rows) -> None:
        self._values = values
        self._first = int(first.max())
        self._last = max(int(last.min()), self._first)
        self._sorted = np.sort(values[self._first : self._last])
        n = len(self._sorted)
        self._below = np.concatenate([[0.0], np.cumsum(self._sorted)])
        weights = 2 * np.arange(1, n + 1) - n - 1
        self._pairs = 2 * float((self._sorted * weights).sum())

    def moments(self, first: int, last: int, at: Floats) -> tuple[Floats, float]:
        before = self._values[first : min(self._first, last)]
        after = self._values[max(self._last, first, self._first) : last]
        edges = np.concatenate([before, after])
        n = last - first
        total = self._absolute(at) + np.abs(edges[:, None] - at).sum(axis=0)
        pairs = self._pairs + 2 * self._absolute(edges).sum()
        pairs += np.abs(edges[:, None] - edges).sum()
        return total / n, float(pairs / (n * (n - 1)))

    def _absolute(self, at: Floats) -> Floats:
        """The sum of |X - z| over the core for each z."""
        n = len(self._sorted)
        below = np.searchsorted(self._sorted, at)
        total: Floats = at * (2 * below - n) + self._below[n] - 2 * self._below[below]
        return total
