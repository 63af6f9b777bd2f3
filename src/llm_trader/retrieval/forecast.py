"""The forecast: how far the price goes next, by the outcomes of the window and of similar states.

Outcomes are taken in units of the volatility that was expected at their own time, and multiplied
by the volatility that is expected now. The base is the whole window; the neighbours add to it with
a weight that was chosen for each horizon. The evaluation judges exactly this mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.retrieval.statistics import OUTCOME_ROWS, in_order_sum
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import PATH, first_touches
from llm_trader.timeframe import HORIZONS

# Chosen on BTC and ETH 2023 and on BTC, ETH and SOL 2025/26, see docs/evaluation.md. Over 24h
# neighbours told nothing.
WEIGHT_OF_NEIGHBOURS: Final = {"15m": 0.6, "1h": 0.4, "4h": 0.3, "24h": 0.0}
# The nearest states, whatever lies between them: a state is one of them by what was known at its
# time alone. 200 an hour apart gained no more (BTC 2023, SOL 2025/26).
NEIGHBOURS: Final = 300
_WEIGHTS: Final = np.array(list(WEIGHT_OF_NEIGHBOURS.values()))
# The horizons at which neighbours have a weight.
MIXED: Final = [row for row, weight in enumerate(_WEIGHTS) if weight]
_SHARES: Final = np.arange(1, NEIGHBOURS + 1)[None] / NEIGHBOURS

# A tenth of moves each lies between them, or nearly so, in units of expected volatility (BTC, ETH
# and SOL, 2023 and 2025/26). Others would compare sizes as well.
SIZE_STEPS: Final = np.array([0.12, 0.23, 0.35, 0.48, 0.63, 0.8, 1.0, 1.3, 1.85])

_ODD: Final = np.arange(1, 2 * len(SIZE_STEPS), 2)
# What `WindowNumbers.of_counts` counts in the ascending outcomes of a window.
OUTCOMES_COUNTED: Final[tuple[tuple[Any, Literal["left", "right"]], ...]] = (
    (SIZE_STEPS, "left"),
    (-SIZE_STEPS, "right"),
    (0.0, "right"),
)

FORECAST_LEVELS: Final = np.arange(1, 100) / 100
# The places of 10 and 90 % among the levels: the ends of an 80 % band.
BAND_ENDS: Final = (9, 89)
# The places of the quantiles that answers name, at 10, 25, 50, 75 and 90 %.
NAMED_PLACES: Final = [round(level * 100) - 1 for level in QUANTILE_LEVELS]

# The expected volatilities are adjacent columns, so those of a whole window are a view.
EXPECTED_ROWS: Final = slice(
    COLUMN_ROW[next(iter(EXPECTED_VOLATILITY.values()))],
    COLUMN_ROW[next(iter(EXPECTED_VOLATILITY.values()))] + len(EXPECTED_VOLATILITY),
)
PATH_ROWS: Final = slice(COLUMN_ROW[PATH[0]], COLUMN_ROW[PATH[-1]] + 1)
# Products of levels and counts may miss a whole number by rounding.
_COUNT_ROUNDING: Final = 1e-9


def relative_outcomes(values: Floats, rows: Rows | slice = slice(None)) -> Floats:
    """Outcomes in units of the volatility expected then, of some points of (columns, n), (horizons,
    rows).
    """
    relative: Floats = values[OUTCOME_ROWS][:, rows] / values[EXPECTED_ROWS][:, rows]
    return relative


class WindowNumbers(NamedTuple):
    """What is known of windows' outcomes in units of expected volatility, (horizons, windows).

    `quantiles` are those at `FORECAST_LEVELS`, (horizons, windows, levels); `size_mean` and
    `size_variance` are of their sizes as `size_numbers` gives them.
    """

    quantiles: Floats
    mean: Floats
    share_up: Floats
    widths: Floats
    size_mean: Floats
    size_variance: Floats

    @classmethod
    def of_counts(
        cls, n: Rows, quantiles: Floats, mean: Floats, nearer: Rows, beyond: Rows, falls: Rows
    ) -> WindowNumbers:
        """Of windows of n outcomes (windows,), by how many lie below each of the `SIZE_STEPS`, or
        at most at its negative, (horizons, windows, steps), and how many are not above 0.
        """
        # The share of the window that moved at least as far as each step.
        further = (n[:, None] - nearer + beyond) / n[:, None]
        size_mean = np.add.reduce(further, axis=-1)
        # E N² of a number N of steps is the sum of (2 k - 1) P(N >= k).
        # Window by window, as a product rounds by its shape.
        squares = np.ascontiguousarray(further.swapaxes(0, 1)) @ _ODD
        size_variance = squares.T - np.square(size_mean)
        widths = quantiles[..., BAND_ENDS[1]] - quantiles[..., BAND_ENDS[0]]
        return cls(quantiles, mean, (n - falls) / n, widths, size_mean, size_variance)


class SortedWindows(Protocol):
    """Windows' outcomes in units of expected volatility, ascending."""

    @property
    def numbers(self) -> WindowNumbers: ...

    @property
    def counts(self) -> Rows:
        """The number of outcomes of each, (windows,)."""

    def at(self, places: Rows) -> Floats:
        """The outcomes at places (mixed horizons, windows, n) among the ascending ones."""


@dataclass(frozen=True, slots=True, eq=False)
class ForecastBase:
    """A window's outcomes in units of expected volatility, ascending (horizons, n)."""

    ascending: Floats
    numbers: WindowNumbers

    @classmethod
    def of(cls, window: PointTable) -> ForecastBase:
        relative = relative_outcomes(window.values)
        mean = np.add.reduce(relative, axis=1) / len(window)
        relative.sort(axis=1)
        return cls.of_ascending(relative, mean)

    @classmethod
    def of_ascending(cls, ascending: Floats, mean: Floats) -> ForecastBase:
        n = ascending.shape[1]
        nearer, beyond, falls = (
            np.array([row.searchsorted(sought, side=side) for row in ascending])[:, None]
            for sought, side in OUTCOMES_COUNTED
        )
        quantiles = ascending[:, None, quantile_places(FORECAST_LEVELS, n)]
        numbers = WindowNumbers.of_counts(
            np.array([n]), quantiles, mean[:, None], nearer, beyond, falls
        )
        return cls(ascending, numbers)

    @property
    def counts(self) -> Rows:
        return np.array([self.ascending.shape[1]])

    def at(self, places: Rows) -> Floats:
        rows = zip(MIXED, places, strict=True)
        return np.array([self.ascending[row][places_of_row] for row, places_of_row in rows])

    def counts_up_to(self, neighbours: Floats) -> Rows:
        """How many outcomes lie at or below each neighbour (horizons, 1, k), of mixed horizons."""
        rows = [self.ascending[row].searchsorted(neighbours[row], side="right") for row in MIXED]
        return np.array(rows)

    def mixed_with(self, neighbours: Floats) -> Mixture:
        """With the ascending outcomes of neighbours (horizons, 1, k)."""
        enough = neighbours.shape[-1] >= NEIGHBOURS
        [mixture] = mix(self, neighbours, self.counts_up_to(neighbours) if enough else None)
        return mixture


def size_numbers(relative: Floats) -> Floats:
    """How far outcomes in units of expected volatility went: the number of `SIZE_STEPS` reached."""
    steps = SIZE_STEPS.searchsorted(np.abs(relative).ravel(), side="right")
    return np.asarray(steps.reshape(relative.shape).astype(np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A forecast of each horizon in units of expected volatility: the quantiles at
    `FORECAST_LEVELS` (horizons, levels), and the mean, the share of rises and the weight of the
    neighbours (horizons,). `base_quantiles` are those of the window alone.
    """

    quantiles: Floats
    mean: Floats
    share_up: Floats
    weight: Floats
    base_quantiles: Floats

    def named(self, expected_pct: Sequence[float]) -> list[list[float]]:
        """The quantiles that answers name, in % (horizons, 5)."""
        return _named(self.quantiles, expected_pct)

    def named_without_neighbours(self, expected_pct: Sequence[float]) -> list[list[float]]:
        """Those of the window alone."""
        return _named(self.base_quantiles, expected_pct)


def _named(quantiles: Floats, expected_pct: Sequence[float]) -> list[list[float]]:
    named: list[list[float]] = (
        quantiles[:, NAMED_PLACES] * np.array(expected_pct)[:, None]
    ).tolist()
    return named


def mix(windows: SortedWindows, neighbours: Floats, counts_up_to: Rows | None) -> list[Mixture]:
    """Each window mixed with the ascending outcomes of its neighbours (horizons, windows, k), in
    the same units.

    With fewer than `NEIGHBOURS` it is the window alone: their weights are for that many.
    `counts_up_to` say of the mixed horizons how many outcomes of the window lie at or below each.
    """
    numbers, (_, count, k) = windows.numbers, neighbours.shape
    if counts_up_to is None or k < NEIGHBOURS:
        weight = np.zeros(len(HORIZONS))
        return _mixtures(numbers.quantiles, numbers.mean, numbers.share_up, weight, numbers)
    quantiles = numbers.quantiles.copy()
    base = _BaseRows(np.tile(windows.counts, len(MIXED))[:, None], windows.at, count)
    mixed = _mixture_quantiles(
        base,
        counts_up_to.reshape(-1, k),
        neighbours[MIXED].reshape(-1, k),
        np.repeat(_WEIGHTS[MIXED], count),
        _SHARES,
        FORECAST_LEVELS,
    )
    quantiles[MIXED] = mixed.reshape(len(MIXED), count, -1)
    weights = _WEIGHTS[:, None]
    mean = weights * (in_order_sum(neighbours) / k) + (1 - weights) * numbers.mean
    up = np.add.reduce(neighbours > 0, axis=-1) / k
    share_up = weights * up + (1 - weights) * numbers.share_up
    return _mixtures(quantiles, mean, share_up, _WEIGHTS, numbers)


def _mixtures(
    quantiles: Floats, mean: Floats, share_up: Floats, weight: Floats, base: WindowNumbers
) -> list[Mixture]:
    return [
        Mixture(quantiles[:, i], mean[:, i], share_up[:, i], weight, base.quantiles[:, i])
        for i in range(mean.shape[1])
    ]


def mixture_quantiles(
    base: Sequence[Floats],
    neighbours: Floats,
    weight: Floats,
    shares: Floats,
    levels: Floats = FORECAST_LEVELS,
) -> Floats:
    """Quantiles of (1 - weight) * base + weight * neighbours at the levels, (rows, levels).

    Ascending are the rows of the base, of any length, and neighbours (rows, k); weight is (rows,),
    and `shares` (rows or 1, k) are the sums of the weights of neighbours up to each one.
    A quantile is the least of all outcomes at or below which at least that share of weight lies.
    """
    pairs = zip(base, neighbours, strict=True)
    below = np.array([outcomes.searchsorted(sought, side="right") for outcomes, sought in pairs])
    rows = _BaseRows(np.array([[len(outcomes)] for outcomes in base]), _Lookup(base), 1)
    return _mixture_quantiles(rows, below, neighbours, weight, shares, levels)


class _Lookup:
    """Outcomes of rows of any length by their places, (rows, 1, places)."""

    def __init__(self, rows: Sequence[Floats]) -> None:
        self._rows = rows

    def __call__(self, places: Rows) -> Floats:
        return np.array([row[at] for row, at in zip(self._rows, places, strict=True)])


class _BaseRows(NamedTuple):
    """Ascending rows of n outcomes each (rows, 1). `at` gives those at places (horizons, windows,
    places); the rows are those of the first horizon, then of the next.
    """

    n: Rows
    at: Callable[[Rows], Floats]
    windows: int


def _mixture_quantiles(
    base: _BaseRows,
    below: Rows,
    neighbours: Floats,
    weight: Floats,
    shares: Floats,
    levels: Floats,
) -> Floats:
    """`below` (rows, k) are how many outcomes of the base lie at or below each neighbour."""
    n, (count, k) = base.n, neighbours.shape
    row, weight = np.arange(count)[:, None], weight[:, None]
    of_neighbours = weight * shares
    at_neighbours = below * ((1 - weight) / n) + of_neighbours
    # The neighbours that lie wholly below each quantile, and the base outcome that then reaches it;
    # for all rows in one search, as no share exceeds 1.
    sought_shares = (levels - _COUNT_ROUNDING) + 2 * row
    passed = (at_neighbours + 2 * row).ravel().searchsorted(sought_shares) - k * row
    weight_passed = np.where(passed > 0, of_neighbours[row, passed - 1], 0.0)
    base_levels = (levels - weight_passed) / np.maximum(1 - weight, _COUNT_ROUNDING**2)
    positions = quantile_places(np.minimum(base_levels, 1.0), n)
    base_quantiles = base.at(positions.reshape(-1, base.windows, len(levels)))
    base_quantiles = base_quantiles.reshape(count, -1)
    base_quantiles[base_levels > 1 + _COUNT_ROUNDING] = np.inf
    next_neighbours = neighbours[row, np.minimum(passed, k - 1)]
    next_neighbours[passed == k] = np.inf
    quantiles: Floats = np.minimum(base_quantiles, next_neighbours)
    return quantiles


def barrier_shares(
    points: PointTable, stop_moves: float, target_moves: float
) -> tuple[float, float]:
    """The shares of points after which the stop, and the target, was touched first within 24h.

    Both are distances in moves that were expected of the 24h, the stop below, the target above. The
    shares are of the points that know their path; NaN without any.
    """
    expected_pct = points.column(EXPECTED_VOLATILITY["24h"])
    path = points.values[PATH_ROWS]
    known = np.isfinite(path[0])
    if not known.all():
        path, expected_pct = path[:, known], expected_pct[known]
    stop_first, target_first = first_touches(
        path, stop_moves * expected_pct, target_moves * expected_pct
    )
    n = len(expected_pct) or np.nan
    return int(np.count_nonzero(stop_first)) / n, int(np.count_nonzero(target_first)) / n


def widths(ascending: Floats) -> Floats:
    """The distances between the 10 % and the 90 % quantiles of ascending rows (..., n), (...,)."""
    low, high = quantile_places(FORECAST_LEVELS[list(BAND_ENDS)], ascending.shape[-1]).tolist()
    return np.asarray(ascending[..., high] - ascending[..., low])


def quantile_places(levels: Floats, n: int | Rows) -> Rows:
    """Where in n ascending values each level is reached."""
    counts = np.ceil(levels * n - _COUNT_ROUNDING).astype(np.intp)
    return np.asarray(np.minimum(np.maximum(counts, 1), n) - 1)
