"""What similar states add to the volatility-scaled base: how far prices go, and where to.

Both are tested by counts, of the steps that a move reached and of rises, which one jump in the past
cannot carry away, however large.
Outcomes that lie near each other in time resemble each other, so those of one UTC day count as one
observation (errors clustered by the day, Liang and Zeger 1986). An error is never below that of as
many independent outcomes as do not overlap.
"""

from __future__ import annotations

from math import isfinite
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.retrieval.answer import Difference, Novelty
from llm_trader.retrieval.episodes import effective_counts
from llm_trader.retrieval.forecast import ForecastBase, size_numbers, widths
from llm_trader.retrieval.intervals import t_as_normal
from llm_trader.timeframe import DAY_MS, HORIZONS

# With 5, the errors get rough; with 20, a search for 10 to 19 episodes could never have a verdict.
LEAST_EFFECTIVE_EPISODES: Final = 10
# One state in 100 of an unchanged market lies beyond it and abstains; at 98 it would be two.
NOVEL_PERCENTILE: Final = 99.0

# Two statistics of each horizon are compared, and one of them leaves its interval by chance easily.
# So a deviation counts only beyond what the largest of all reaches by chance in 1 of 10 queries
# (`weak`) or 1 of 500 (`informative`), by Bonferroni's rule.
# Outcomes of a real market depend on each other beyond a day: cut loose from their states, 1.5
# in 100 pass a threshold that is meant for 1 in 100.
_COMPARISONS: Final = 2 * len(HORIZONS)
WEAK_Z, INFORMATIVE_Z = (
    NormalDist().inv_cdf(1 - by_chance / 2 / _COMPARISONS) for by_chance in (0.1, 0.002)
)


class Comparison(NamedTuple):
    """The similar states of one horizon against the window; either is None where too few."""

    horizon: str
    scale: Difference | None
    direction: Difference | None

    @property
    def largest(self) -> tuple[float, str]:
        """The larger deviation of the two without its sign, and what it says."""
        deviations = [(0.0, "")]
        if self.scale is not None:
            deviations.append((abs(self.scale.deviation), _of_scale(self.horizon, self.scale)))
        if self.direction is not None:
            sentence = _of_direction(self.horizon, self.direction)
            deviations.append((abs(self.direction.deviation), sentence))
        return max(deviations)


def compare_neighbours(
    base: ForecastBase, neighbours: Floats, ascending: Floats, times_ms: Times
) -> list[Comparison]:
    """Compares the outcomes of neighbours (horizons, k), in units of the volatility expected at
    their increasing `times_ms` (k,), and the same ascending, with those of the window.
    """
    k = neighbours.shape[1]
    if not k:
        return [Comparison(name, None, None) for name in HORIZONS]
    effective = effective_counts(times_ms, HORIZONS.values())
    horizons, p_up = len(HORIZONS), base.share_up
    # Above the numbers of steps, below the rises.
    values = np.empty((2 * horizons, k))
    values[:horizons] = size_numbers(neighbours)
    np.greater(neighbours, 0, out=values[horizons:], casting="unsafe")
    means = np.add.reduce(values, axis=1) / k
    variance = np.array([base.size_variance, p_up * (1 - p_up)]) / effective
    expected = np.array([base.size_mean, p_up]).ravel()
    deviations = _deviations(values, means, expected, variance.ravel(), times_ms)
    moved = base.widths > 0
    scales = (widths(ascending) / np.where(moved, base.widths, np.nan)).tolist()
    shares, base_shares = means[horizons:].tolist(), p_up.tolist()
    comparisons = []
    for row, name in enumerate(HORIZONS):
        scale = direction = None
        if effective[row] >= LEAST_EFFECTIVE_EPISODES:
            direction = Difference(shares[row], base_shares[row], deviations[len(HORIZONS) + row])
            if isfinite(scales[row]):  # else the window did not move at all
                scale = Difference(scales[row], 1.0, deviations[row])
        comparisons.append(Comparison(name, scale, direction))
    return comparisons


def _deviations(
    values: Floats, means: Floats, expected: Floats, least_variance: Floats, times_ms: Times
) -> list[float]:
    """How far the means of values (statistics, k) lie from the expected ones, (statistics,), as
    normal deviates.
    """
    days = times_ms // DAY_MS
    starts = np.concatenate([[0], (days[1:] != days[:-1]).nonzero()[0] + 1])
    sums = np.add.reduceat(values - means[:, None], starts, axis=1)
    clusters = len(starts)
    variance = np.vecdot(sums, sums) / values.shape[1] ** 2 * (clusters / max(clusters - 1, 1))
    error = np.sqrt(np.maximum(variance, least_variance))
    # A window that never, or always, saw a rise has no spread to measure against.
    t = np.divide(means - expected, error, out=np.zeros(len(error)), where=error > 0)
    degrees_of_freedom = max(clusters - 1, 1)
    return [t_as_normal(value, degrees_of_freedom) for value in t.tolist()]


def decide_verdict(
    comparisons: list[Comparison],
    effective: float,
    novelty: Novelty | None,
    skilled_horizons: frozenset[str] | None = None,
) -> tuple[str, str]:
    """`informative`, `weak` or `none`, with the reason.

    Only the `skilled_horizons`, at which such a forecast was better than the volatility model in
    a calibration, can be informative. `None` means that there is no calibration. `effective` is
    the largest effective number of episodes.
    """
    known = [comparison for comparison in comparisons if comparison.direction is not None]
    if not known:
        return "none", (
            f"only {effective:.1f} effective episodes; a verdict needs at least "
            f"{LEAST_EFFECTIVE_EPISODES}"
        )
    if novelty and novelty.percentile >= NOVEL_PERCENTILE:
        return "none", (
            f"the state is unlike the past: {novelty.percentile:.0f} % of past states had a "
            f"nearer neighbour than {novelty.nearest_similarity:.2f}"
        )
    deviation, sentence = max(comparison.largest for comparison in known)
    if deviation > INFORMATIVE_Z:
        return _informative_or_weak(known, sentence, skilled_horizons)
    if deviation > WEAK_Z:
        return "weak", f"{sentence}; by chance fewer than 1 in 10 queries show that much"
    return "none", f"similar states show nothing beyond chance; the largest difference: {sentence}"


def _informative_or_weak(
    known: list[Comparison], sentence: str, skilled_horizons: frozenset[str] | None
) -> tuple[str, str]:
    by_chance = "by chance fewer than 1 in 500 queries show that much"
    if skilled_horizons is None:
        return "weak", (
            f"{sentence}; {by_chance}; but no calibration has measured whether such forecasts "
            "are better than the volatility model"
        )
    skilled = [comparison for comparison in known if comparison.horizon in skilled_horizons]
    deviation, best = max((comparison.largest for comparison in skilled), default=(0.0, ""))
    if deviation > INFORMATIVE_Z:
        return "informative", (
            f"{best}; {by_chance}, and there such forecasts were better than the volatility "
            "model in the calibration"
        )
    where = "there such forecasts were not" if skilled_horizons else "at no horizon were they"
    return "weak", (
        f"{sentence}; {by_chance}; but {where} better than the volatility model in the calibration"
    )


def summary(
    comparison: Comparison,
    expected_volatility_pct: float,
    band_80: tuple[float, float],
) -> str:
    """One horizon in words."""
    low, high = band_80
    return (
        f"Next {comparison.horizon}: expect ±{expected_volatility_pct:.2f} % (8 of 10 times "
        f"between {low:+.2f} and {high:+.2f}). {_scale_in_words(comparison.scale)} "
        f"{_direction_in_words(comparison.direction)}"
    )


def _scale_in_words(scale: Difference | None) -> str:
    if scale is None:
        return "Similar states: too few."
    if abs(scale.deviation) <= WEAK_Z:
        return "Similar states moved more or less than usual: no evidence."
    word = "more" if scale.deviation > 0 else "less"
    return f"Similar states moved {word} than usual: yes, by {abs(scale.value - 1) * 100:.0f} %."


def _direction_in_words(direction: Difference | None) -> str:
    if direction is None or abs(direction.deviation) <= WEAK_Z:
        return "Direction: no evidence."
    return (
        f"Direction: the price rose after {direction.value * 100:.0f} % of them, after "
        f"{direction.base_rate * 100:.0f} % of all states."
    )


def _of_scale(horizon: str, scale: Difference) -> str:
    return (
        f"over {horizon} the price moved {scale.value:.2f} times as far as usual, "
        f"{abs(scale.deviation):.1f} standard errors away"
    )


def _of_direction(horizon: str, direction: Difference) -> str:
    return (
        f"over {horizon} the price rose after {direction.value * 100:.0f} % of similar states "
        f"against {direction.base_rate * 100:.0f} % of all, {abs(direction.deviation):.1f} "
        "standard errors away"
    )
