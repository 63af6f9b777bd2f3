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

# A block shares one sorting of its core, while each of its queries reads the rows at all edges:
# at half the size sorting dominates a quarter-hourly walk, at double the edges do.
_MAX_QUERIES: Final = 32
_MAX_EDGE_READS: Final = 1024


class Moments(NamedTuple):
    """Moments of n windows, NaN for an empty one.

    `mean_abs` (n, j) is the mean of |X - z| over the window for each of a query's j values z,
    `spread` (n,) the mean of |X - X'| over all pairs of points, of a point with itself included.
    """

    mean_abs: Floats
    spread: Floats


def window_moments(outcomes: Floats, first: Rows, last: Rows, values: Floats) -> Moments:
    """Moments of the windows outcomes[first:last] about `values` (n, j).

    `outcomes` (m,), `first` and `last` (n,). Exact; fast where windows move slowly, as those of a
    walk through time do.
    """
    mean_abs, spread = np.full(values.shape, np.nan), np.full(len(first), np.nan)
    # Each value meets each edge, so with many values blocks are smaller.
    most = max(1, round(_MAX_QUERIES / (1 + values.shape[1] / 10) ** 0.5))
    for block in _blocks(first, last, most):
        windows = _BlockWindows(outcomes, first[block], last[block])
        mean_abs[block], spread[block] = windows.moments(values[block])
    return Moments(mean_abs, spread)


def _blocks(first: Rows, last: Rows, most: int) -> Iterator[slice]:
    """Runs of at most so many queries whose windows begin and end near each other."""
    start, counts = 0, np.arange(1, most + 1)
    while start < len(first):
        ahead = slice(start, start + most)
        shift = np.maximum(np.abs(first[ahead] - first[start]), np.abs(last[ahead] - last[start]))
        too_far = np.flatnonzero(shift * counts[: len(shift)] > _MAX_EDGE_READS)
        stop = start + (int(too_far[0]) if len(too_far) else len(shift))
        yield slice(start, stop)
        start = stop


class _BlockWindows:
    """The windows of a block: the points that all of them share, sorted, and those at the edges."""

    def __init__(self, outcomes: Floats, first: Rows, last: Rows) -> None:
        start = int(first.max())
        end = max(int(last.min()), start)
        self._core = np.sort(outcomes[start:end])
        n = len(self._core)
        self._core_sums = np.concatenate([[0.0], np.cumsum(self._core)])
        self._core_pairs = 2 * float((self._core * (2 * np.arange(1, n + 1) - n - 1)).sum())
        rows = np.concatenate([np.arange(first.min(), start), np.arange(end, last.max())])
        self._edges = outcomes[rows]
        self._has_edge = ((first[:, None] <= rows) & (rows < last[:, None])).astype(np.float64)
        self._size = last - first

    def moments(self, values: Floats) -> tuple[Floats, Floats]:
        edges, has_edge = self._edges, self._has_edge
        distances = np.abs(edges[:, None] - values[:, None, :])
        total = self._core_distance(values) + (has_edge[:, None, :] @ distances)[:, 0, :]
        edge_pairs = (has_edge @ np.abs(edges[:, None] - edges) * has_edge).sum(axis=1)
        pairs = self._core_pairs + 2 * has_edge @ self._core_distance(edges) + edge_pairs
        with np.errstate(divide="ignore", invalid="ignore"):
            return total / self._size[:, None], pairs / np.square(self._size)

    def _core_distance(self, values: Floats) -> Floats:
        """The sum of |X - z| over the core for each value z."""
        n = len(self._core)
        below = np.searchsorted(self._core, values)
        total: Floats = values * (2 * below - n) + self._core_sums[n] - 2 * self._core_sums[below]
        return total
