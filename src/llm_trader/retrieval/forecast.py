"""The forecast: how far the price goes next, by the outcomes of the window and of similar states.

Outcomes are taken in units of the volatility that was expected at their own time, and multiplied
by the volatility that is expected now. The base is the whole window; the neighbours add to it with
a weight that was chosen for each horizon. The evaluation judges exactly this mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.retrieval.statistics import OUTCOME_ROWS
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.timeframe import HORIZONS, HOUR_MS, Millis

# A quarter of 200 states an hour apart gained most in 2023; over 24h neighbours told nothing.
WEIGHT_OF_NEIGHBOURS: Final = {"15m": 0.25, "1h": 0.25, "4h": 0.25, "24h": 0.0}
NEIGHBOURS: Final = 200
NEIGHBOUR_GAP_MS: Final[Millis] = HOUR_MS
# Of quarter-hours, four in an hour hold one neighbour, so these always hold enough.
HITS_OF_FORECAST: Final = 4 * NEIGHBOURS

FORECAST_LEVELS: Final = np.arange(1, 100) / 100
# The places of 10 and 90 % among the levels: the ends of an 80 % band.
BAND_ENDS: Final = (9, 89)

# The expected volatilities are adjacent columns, so those of a whole window are a view.
EXPECTED_ROWS: Final = slice(
    COLUMN_ROW[next(iter(EXPECTED_VOLATILITY.values()))],
    COLUMN_ROW[next(iter(EXPECTED_VOLATILITY.values()))] + len(EXPECTED_VOLATILITY),
)
# Products of levels and counts may miss a whole number by rounding.
_COUNT_ROUNDING: Final = 1e-9


def relative_outcomes(values: Floats) -> Floats:
    """Outcomes of points (columns, n) in units of the volatility expected then, (horizons, n)."""
    relative: Floats = values[OUTCOME_ROWS] / values[EXPECTED_ROWS]
    return relative


@dataclass(frozen=True, slots=True, eq=False)
class ForecastBase:
    """A window's outcomes in units of expected volatility: ascending (horizons, n); their `mean`,
    `share_up` and `widths` (horizons,).
    """

    ascending: Floats
    mean: Floats
    share_up: Floats
    widths: Floats

    @classmethod
    def of(cls, window: PointTable) -> ForecastBase:
        relative = relative_outcomes(window.values)
        n = len(window)
        share_up = np.array([np.count_nonzero(row > 0) / n for row in relative])
        ascending = np.sort(relative, axis=1)
        return cls(ascending, np.add.reduce(relative, axis=1) / n, share_up, widths(ascending))

    def size_ranks(self, row: int, outcomes: Floats) -> Floats:
        """The share of the window that moved less far than each outcome (k,) at a horizon.

        Of what moved exactly as far, one half counts.
        """
        ascending, sizes = self.ascending[row], np.abs(outcomes)
        inside = ascending.searchsorted(sizes) - ascending.searchsorted(-sizes, side="right")
        up_to = ascending.searchsorted(sizes, side="right") - ascending.searchsorted(-sizes)
        return np.asarray((np.maximum(inside, 0) + up_to) / (2 * len(ascending)))


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A forecast of each horizon in units of expected volatility: the quantiles at
    `FORECAST_LEVELS` (horizons, levels), and the mean, the share of rises and the weight of the
    neighbours (horizons,).
    """

    quantiles: Floats
    mean: Floats
    share_up: Floats
    weight: Floats


def mix(base: ForecastBase, neighbours: Floats) -> Mixture:
    """The base mixed with the outcomes of neighbours (horizons, k), in the same units.

    With fewer than `NEIGHBOURS` it is the base alone: their weights are for that many.
    """
    k = neighbours.shape[1]
    weight = np.array(list(WEIGHT_OF_NEIGHBOURS.values())) * (k >= NEIGHBOURS)
    ascending = np.sort(neighbours, axis=1)
    quantiles = np.stack(
        [
            mixture_quantiles(base.ascending[row], ascending[row], float(weight[row]))
            for row in range(len(HORIZONS))
        ]
    )
    if not k:
        return Mixture(quantiles, base.mean, base.share_up, weight)
    mean = weight * (np.add.reduce(neighbours, axis=1) / k) + (1 - weight) * base.mean
    up = np.add.reduce(neighbours > 0, axis=1) / k
    return Mixture(quantiles, mean, weight * up + (1 - weight) * base.share_up, weight)


def mixture_quantiles(
    base: Floats, neighbours: Floats, weight: float, levels: Floats = FORECAST_LEVELS
) -> Floats:
    """Quantiles of (1 - weight) * base + weight * neighbours at the levels, shape (levels,).

    Both are ascending, (n,) and (k,), and either may be empty where it has no weight. A quantile
    is the least of all outcomes at or below which at least that share of the weight lies.
    """
    n, k = len(base), len(neighbours)
    if weight == 0:
        return base[_positions(levels, n)]
    if weight == 1:
        return neighbours[_positions(levels, k)]
    below = np.searchsorted(base, neighbours, side="right")
    at_neighbours = (1 - weight) * below / n + weight * np.arange(1, k + 1) / k
    # The neighbours that lie wholly below each quantile, and the base outcome that then reaches it.
    passed = np.searchsorted(at_neighbours, levels - _COUNT_ROUNDING)
    left = (levels - weight * passed / k) / (1 - weight)
    of_base = np.where(left <= 1 + _COUNT_ROUNDING, base[_positions(left, n)], np.inf)
    of_neighbours = np.where(passed < k, neighbours[np.minimum(passed, k - 1)], np.inf)
    return np.asarray(np.minimum(of_base, of_neighbours))


def widths(ascending: Floats) -> Floats:
    """The distances between the 10 % and the 90 % quantiles of ascending rows, (rows,)."""
    low, high = _positions(FORECAST_LEVELS[list(BAND_ENDS)], ascending.shape[1]).tolist()
    return np.asarray(ascending[:, high] - ascending[:, low])


def _positions(levels: Floats, n: int) -> Rows:
    """Where in n ascending values each level is reached."""
    counts = np.ceil(levels * n - _COUNT_ROUNDING).astype(np.intp)
    return np.asarray(np.minimum(np.maximum(counts, 1), n) - 1)
