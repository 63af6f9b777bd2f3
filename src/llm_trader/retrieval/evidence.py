"""What followed the episodes beside the base rate of the window, and how far to trust it.

Intervals are closed formulas, so that a query stays cheap, and `n` counts overlapping outcomes as
the fewer independent ones that they amount to: Student's t for means, Wilson's for shares, and for
quantiles the order statistics at the levels p ± z·√(p(1-p)/n), the normal approximation.
"""

from __future__ import annotations

from math import isfinite, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.index.points import PointTable
from llm_trader.retrieval.answer import (
    BarrierEvidence,
    Estimate,
    Evidence,
    HorizonEvidence,
    Novelty,
    Rescaled,
)
from llm_trader.retrieval.calibration import Calibration, band
from llm_trader.retrieval.episodes import effective_counts
from llm_trader.retrieval.intervals import share_deviation, student_t, t_as_normal, wilson
from llm_trader.retrieval.reference import QUANTILE_LEVELS, BaseRates
from llm_trader.retrieval.statistics import OUTCOME_ROWS, quantiles
from llm_trader.snapshot.outcome import STOP_FIRST, TARGET_FIRST
from llm_trader.timeframe import HORIZONS

INTERVAL_LEVEL: Final = 0.9
# With 5, the formulas for intervals get rough; with 20, a search for 10 to 19 episodes could never
# have a verdict.
LEAST_EFFECTIVE_EPISODES: Final = 10
# One state in 100 of an unchanged market lies beyond it and abstains; at 98 it would be two.
NOVEL_PERCENTILE: Final = 99.0

# A mean and a share per horizon and two barriers are compared: one of them leaves its interval by
# chance easily. So a deviation counts only beyond what the largest of all reaches by chance in 1 of
# 10 queries (`weak`) or 1 of 100 (`informative`), by Bonferroni's rule.
_COMPARISONS: Final = 2 * len(HORIZONS) + 2
_Z: Final = NormalDist().inv_cdf((1 + INTERVAL_LEVEL) / 2)
WEAK_Z, INFORMATIVE_Z = (
    NormalDist().inv_cdf(1 - by_chance / 2 / _COMPARISONS) for by_chance in (0.1, 0.01)
)

LONGEST: Final = list(HORIZONS)[-1]
# Rows: the level itself, and what its lower and upper bound lie off at one observation.
_LEVEL_SPREAD: Final = (
    _Z * np.sqrt(QUANTILE_LEVELS * (1 - QUANTILE_LEVELS)) * np.array([[0], [-1], [1]])
)


class Comparison(NamedTuple):
    """One statistic of a horizon against its base rate. `deviation` is in standard errors."""

    statistic: str
    value: float
    base_rate: float
    deviation: float
    horizon: str = LONGEST

    def __str__(self) -> str:
        return (
            f"{self.statistic} is {self.value:.2f} against a base rate of {self.base_rate:.2f}, "
            f"{abs(self.deviation):.1f} standard errors away"
        )


class Neighbourhood(NamedTuple):
    """Rows (n,) of `points` with their similarities (n,), nearest first.

    `points` may hold more than the neighbours: only the fields that are used are picked out.
    """

    points: PointTable
    rows: Rows
    similarity: Floats

    def take(self, positions: Rows) -> Neighbourhood:
        return Neighbourhood(self.points, self.rows[positions], self.similarity[positions])

    def at_least(self, similarity: float) -> Neighbourhood:
        return self.take(np.flatnonzero(self.similarity > similarity))

    def column(self, name: str) -> Floats:
        return self.points.column(name)[self.rows]


def build_evidence(
    episodes: Neighbourhood,
    base: BaseRates,
    requested_horizons: tuple[str, ...],
    current_volatility_pct: float,
    novelty: Novelty | None,
    calibration: Calibration | None = None,
) -> Evidence:
    """Evidence of at least one episode, for the requested horizons.

    `current_volatility_pct` is the realised volatility over 24h, NaN where unknown. The caller
    has checked that the calibration may be used for this query.
    """
    similarity = episodes.similarity
    times = episodes.points.timestamp_ms[episodes.rows]
    effective = effective_counts(times, HORIZONS.values()).tolist()
    all_horizons = _horizons(episodes, effective, base, current_volatility_pct, calibration)
    horizons = {name: all_horizons[name] for name in HORIZONS if name in requested_horizons}
    barriers = _barriers(episodes, effective[-1], base)
    comparisons = compare_with_base_rates(horizons, barriers, effective[-1])
    verdict, reason = decide_verdict(
        comparisons, max(effective), novelty, calibration.skilled_horizons if calibration else None
    )
    return Evidence(
        verdict=verdict,
        reason=reason,
        episodes=len(similarity),
        interval_level=INTERVAL_LEVEL,
        base_rate_points=base.points,
        similarity_mean=float(similarity.mean()),
        similarity_range=(float(similarity.min()), float(similarity.max())),
        novelty=novelty,
        barriers=barriers,
        horizons=horizons,
        calibrated=calibration is not None,
    )


def no_evidence(reason: str, base_rate_points: int) -> Evidence:
    """The evidence where no episode was found."""
    return Evidence("none", reason, 0, INTERVAL_LEVEL, base_rate_points, None, None, None, None, {})


def compare_with_base_rates(
    horizons: dict[str, HorizonEvidence], barriers: BarrierEvidence, effective_24h: float
) -> list[Comparison]:
    """Compares means and shares that have enough effective episodes with their base rates."""
    comparisons = []
    for name, horizon in horizons.items():
        n = horizon.effective_episodes
        if n >= LEAST_EFFECTIVE_EPISODES:
            comparisons.append(_compare_mean(name, horizon.mean, n))
            comparisons.append(_compare_share("P(up)", horizon.p_up, n, name))
    if (n := effective_24h) >= LEAST_EFFECTIVE_EPISODES:
        comparisons.append(_compare_share("P(stop first)", barriers.stop_first, n, LONGEST))
        comparisons.append(_compare_share("P(target first)", barriers.target_first, n, LONGEST))
    return comparisons


def decide_verdict(
    comparisons: list[Comparison],
    most_effective: float,
    novelty: Novelty | None,
    skilled_horizons: frozenset[str] | None = None,
) -> tuple[str, str]:
    """`informative`, `weak` or `none`, with the reason.

    Only the `skilled_horizons`, at which such neighbours forecast better than the base rate in
    a calibration, can be informative. `None` means that there is no calibration.
    """
    if not comparisons:
        return "none", (
            f"only {most_effective:.1f} effective episodes; a verdict needs at least "
            f"{LEAST_EFFECTIVE_EPISODES}"
        )
    if novelty and novelty.percentile >= NOVEL_PERCENTILE:
        return "none", (
            f"the state is unlike the past: {novelty.percentile:.0f} % of past states had a "
            f"nearer neighbour than {novelty.nearest_similarity:.2f}"
        )
    largest = _largest(comparisons)
    if abs(largest.deviation) > INFORMATIVE_Z:
        return _informative_or_weak(comparisons, largest, skilled_horizons)
    if abs(largest.deviation) > WEAK_Z:
        return "weak", f"{largest}; by chance fewer than 1 in 10 queries show that much"
    return "none", (
        f"nothing differs from its base rate by more than chance; the largest difference: {largest}"
    )


def _informative_or_weak(
    comparisons: list[Comparison], largest: Comparison, skilled_horizons: frozenset[str] | None
) -> tuple[str, str]:
    by_chance = "by chance fewer than 1 in 100 queries show that much"
    if skilled_horizons is None:
        return "informative", f"{largest}; {by_chance}"
    skilled = [comparison for comparison in comparisons if comparison.horizon in skilled_horizons]
    if skilled and abs((best := _largest(skilled)).deviation) > INFORMATIVE_Z:
        return "informative", (
            f"{best}; {by_chance}, and over {best.horizon} such neighbours forecast better "
            "than the base rate in the calibration"
        )
    where = (
        f"over {largest.horizon} such neighbours did not forecast"
        if skilled_horizons
        else "at no horizon did such neighbours forecast"
    )
    return "weak", (
        f"{largest}; {by_chance}; but {where} better than the base rate in the calibration"
    )


def _largest(comparisons: list[Comparison]) -> Comparison:
    return max(comparisons, key=lambda comparison: abs(comparison.deviation))


def _horizons(
    episodes: Neighbourhood,
    effective: list[float],
    base: BaseRates,
    current_volatility_pct: float,
    calibration: Calibration | None,
) -> dict[str, HorizonEvidence]:
    outcomes = episodes.points.values[OUTCOME_ROWS][:, episodes.rows]
    horizons, count = outcomes.shape
    former_volatility_pct = np.maximum(episodes.column("realized_volatility_24h"), VOLATILITY_FLOOR)
    rescaled = outcomes * (current_volatility_pct / former_volatility_pct)
    # Rescaled outcomes lie below the plain ones, so that each step is one call for both.
    ascending = np.sort(np.concatenate([outcomes, rescaled]), axis=1)
    roots = np.sqrt(effective + effective)[:, None, None]
    levels = (QUANTILE_LEVELS + _LEVEL_SPREAD / roots).reshape(2 * horizons, -1)
    quantile_rows = quantiles(ascending, levels).reshape(2 * horizons, 3, -1).tolist()
    means = (np.add.reduce(ascending, axis=1) / count).tolist()
    mean_estimates = _mean_estimates(outcomes, means[:horizons], effective, base)
    base_quantiles = base.quantiles.tolist()
    ups = np.add.reduce(outcomes > 0, axis=1).tolist()
    evidence = {}
    for row, name in enumerate(HORIZONS):
        rescaled_stats = band_80 = None
        if isfinite(current_volatility_pct):
            rescaled_stats = Rescaled(means[horizons + row], *quantile_rows[horizons + row][0])
            if calibration:
                ends = rescaled_stats.p10, rescaled_stats.p90
                band_80 = band(calibration, name, *ends, current_volatility_pct)
        p_up = _share_estimate(ups[row] / count, effective[row], float(base.p_up[row]))
        p10, p25, p50, p75, p90 = map(Estimate, *quantile_rows[row], base_quantiles[row])
        estimates = mean_estimates[row], p_up, p10, p25, p50, p75, p90
        evidence[name] = HorizonEvidence(effective[row], *estimates, rescaled_stats, band_80)
    return evidence


def _mean_estimates(
    outcomes: Floats, means: list[float], effective: list[float], base: BaseRates
) -> list[Estimate]:
    count = outcomes.shape[1]
    squares = np.add.reduce(np.square(outcomes - np.array(means)[:, None]), axis=1).tolist()
    estimates = []
    rows = zip(means, squares, effective, base.mean.tolist(), strict=True)
    for mean, square, n, base_rate in rows:
        if count == 1:
            estimates.append(Estimate(mean, None, None, base_rate))
            continue
        reach = student_t(_Z, max(n - 1, 1.0)) * sqrt(square / (count - 1) / n)
        estimates.append(Estimate(mean, mean - reach, mean + reach, base_rate))
    return estimates


def _share_estimate(share: float, n: float, base_rate: float) -> Estimate:
    low, high = wilson(share, n, _Z)
    return Estimate(share, low, high, base_rate)


def _barriers(episodes: Neighbourhood, effective: float, base: BaseRates) -> BarrierEvidence:
    first = episodes.column("first_barrier").tolist()
    n = len(first)
    return BarrierEvidence(
        _share_estimate(first.count(STOP_FIRST) / n, effective, base.stop_first),
        _share_estimate(first.count(TARGET_FIRST) / n, effective, base.target_first),
    )


def _compare_mean(horizon: str, mean: Estimate, n: float) -> Comparison:
    degrees_of_freedom = max(n - 1, 1.0)
    error = 0.0
    if mean.high is not None:
        error = (mean.high - mean.value) / student_t(_Z, degrees_of_freedom)
    t = (mean.value - mean.base_rate) / error if error > 0 else 0.0
    deviation = t_as_normal(t, degrees_of_freedom)
    statistic = f"the mean change in % over {horizon}"
    return Comparison(statistic, mean.value, mean.base_rate, deviation, horizon)


def _compare_share(statistic: str, share: Estimate, n: float, horizon: str) -> Comparison:
    deviation = share_deviation(share.value, share.base_rate, n)
    statistic = f"{statistic} over {horizon}"
    return Comparison(statistic, share.value, share.base_rate, deviation, horizon)
