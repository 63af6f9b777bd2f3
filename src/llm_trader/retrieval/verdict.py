"""What similar states add to the volatility-scaled base: how far prices go, and where to.

Both are tested by counts, of the steps that a move reached and of rises, which one jump in the past
cannot carry away, however large.
Outcomes that lie near each other in time resemble each other, so those of one UTC day count as one
observation (errors clustered by the day, Liang and Zeger 1986). An error is never below that of as
many independent outcomes as do not overlap.
"""

from __future__ import annotations

from functools import cache
from math import isfinite
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.retrieval.answer import Difference, Novelty
from llm_trader.retrieval.episodes import effective_counts
from llm_trader.retrieval.forecast import WindowNumbers, widths
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


class Thresholds(NamedTuple):
    """The standard errors beyond which a deviation is `weak`, and beyond which `informative`."""

    weak_z: float
    informative_z: float

    @classmethod
    @cache
    def of(cls, looks: float) -> Thresholds:
        """For the largest deviation of so many sets of comparisons, by Bonferroni's rule."""
        levels = (by_chance / 2 / _COMPARISONS / looks for by_chance in (0.1, 0.002))
        # The distribution is symmetric, and small levels keep their digits only this way round.
        return cls(*(-NormalDist().inv_cdf(level) for level in levels))


WEAK_Z, INFORMATIVE_Z = Thresholds.of(1)


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
    base: WindowNumbers, neighbours: Floats, ascending: Floats, sizes: Floats, times_ms: Times
) -> list[list[Comparison]]:
    """Compares neighbours with each window. Their outcomes (horizons, windows, k), in units of the
    volatility expected at their increasing `times_ms` (windows, k), come with the same ascending,
    and with their sizes as `size_numbers` gives them.
    """
    horizons, windows, k = neighbours.shape
    if not k:
        return [[Comparison(name, None, None) for name in HORIZONS]] * windows
    effective = effective_counts(times_ms, HORIZONS.values())
    p_up = base.share_up
    # Above the numbers of steps, below the rises.
    values = np.empty((2 * horizons, windows, k))
    values[:horizons] = sizes
    np.greater(neighbours, 0, out=values[horizons:], casting="unsafe")
    means = np.add.reduce(values, axis=2) / k
    variance = np.concatenate([base.size_variance, p_up * (1 - p_up)]) / np.tile(effective, (2, 1))
    expected = np.concatenate([base.size_mean, p_up])
    deviations = _deviations(values, means, expected, variance, times_ms)
    moved = base.widths > 0
    scales = (widths(ascending) / np.where(moved, base.widths, np.nan)).T.tolist()
    known = (effective >= LEAST_EFFECTIVE_EPISODES).T.tolist()
    rows = zip(known, scales, means[horizons:].T.tolist(), p_up.T.tolist(), deviations, strict=True)
    return [_comparisons(*row) for row in rows]


def _comparisons(
    known: list[bool],
    scales: list[float],
    shares: list[float],
    base_shares: list[float],
    deviations: list[float],
) -> list[Comparison]:
    """Those of one window; all but the last by horizon."""
    comparisons = []
    for row, name in enumerate(HORIZONS):
        scale = direction = None
        if known[row]:
            direction = Difference(shares[row], base_shares[row], deviations[len(HORIZONS) + row])
            if isfinite(scales[row]):  # else the window did not move at all
                scale = Difference(scales[row], 1.0, deviations[row])
        comparisons.append(Comparison(name, scale, direction))
    return comparisons


def _deviations(
    values: Floats, means: Floats, expected: Floats, least_variance: Floats, times_ms: Times
) -> list[list[float]]:
    """How far the means of values (statistics, windows, k) lie from the expected ones,
    (statistics, windows), as normal deviates; by window.
    """
    statistics, _, k = values.shape
    days = times_ms // DAY_MS
    begins = np.ones(days.shape, np.bool_)
    np.not_equal(days[:, 1:], days[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    apart = (values - means[..., None]).reshape(statistics, -1)
    sums = np.add.reduceat(apart, starts, axis=1)
    clusters = np.add.reduce(begins, axis=1)
    ends = np.add.accumulate(clusters).tolist()
    squares = np.array(
        [
            np.vecdot(sums[:, end - size : end], sums[:, end - size : end])
            for end, size in zip(ends, clusters.tolist(), strict=True)
        ]
    ).T
    freedom = np.maximum(clusters - 1, 1)
    variance = squares / k**2 * (clusters / freedom)
    error = np.sqrt(np.maximum(variance, least_variance))
    # A window that never, or always, saw a rise has no spread to measure against.
    t = np.divide(means - expected, error, out=np.zeros(error.shape), where=error > 0)
    rows = zip(t.T.tolist(), freedom.tolist(), strict=True)
    return [[t_as_normal(value, df) for value in row] for row, df in rows]


def decide_verdict(
    comparisons: list[Comparison],
    effective: float,
    novelty: Novelty | None,
    skilled_horizons: frozenset[str] | None = None,
    looks: float = 1,
) -> tuple[str, str]:
    """`informative`, `weak` or `none`, with the reason.

    Only the `skilled_horizons`, at which such a forecast was better than the volatility model in
    a calibration, can be informative. `None` means that there is no calibration. `effective` is
    the largest effective number of episodes. `looks` is how many such verdicts are looked at, of
    which the best one may be picked.
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
    limits = Thresholds.of(looks)
    if deviation > limits.informative_z:
        return _informative_or_weak(known, sentence, skilled_horizons, looks)
    if deviation > limits.weak_z:
        return "weak", f"{sentence}; {_by_chance(10, looks)}"
    return "none", f"similar states show nothing beyond chance; the largest difference: {sentence}"


def _by_chance(queries: int, looks: float) -> str:
    if looks == 1:
        return f"by chance fewer than 1 in {queries} queries show that much"
    return f"by chance fewer than 1 in {queries} states show that much in any of their cohorts"


def _informative_or_weak(
    known: list[Comparison],
    sentence: str,
    skilled_horizons: frozenset[str] | None,
    looks: float,
) -> tuple[str, str]:
    by_chance = _by_chance(500, looks)
    if skilled_horizons is None:
        return "weak", (
            f"{sentence}; {by_chance}; but no calibration has measured whether such forecasts "
            "are better than the volatility model"
        )
    skilled = [comparison for comparison in known if comparison.horizon in skilled_horizons]
    deviation, best = max((comparison.largest for comparison in skilled), default=(0.0, ""))
    if deviation > Thresholds.of(looks).informative_z:
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
