"""What followed a wider neighbourhood, beside the base rate, and how far to trust it.

Intervals are closed formulas, so that a query stays cheap, and count overlapping outcomes as the
fewer independent ones that they amount to: Student's t for means, Wilson's for shares, and for
quantiles the order statistics at the levels p ± z·√(p(1-p)/n), the normal approximation.
"""

from __future__ import annotations

from math import isfinite, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats
from llm_trader.embedding.features import LEAST
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
from llm_trader.snapshot.outcome import HORIZONS, STOP_FIRST, TARGET_FIRST

INTERVAL_LEVEL: Final = 0.9
LEAST_EFFECTIVE_EPISODES: Final = 10
NOVEL_PERCENTILE: Final = 99.0

# A mean and a share per horizon and two barriers are compared: one of them leaves its interval by
# chance easily. So a deviation counts only beyond what the largest of all reaches by chance in 1 of
# 10 queries (`weak`) or 1 of 100 (`informative`), by Bonferroni's rule.
_COMPARISONS: Final = 2 * len(HORIZONS) + 2
_Z: Final = NormalDist().inv_cdf((1 + INTERVAL_LEVEL) / 2)
WEAK_Z, INFORMATIVE_Z = (
    NormalDist().inv_cdf(1 - by_chance / 2 / _COMPARISONS) for by_chance in (0.1, 0.01)
)

_HORIZON_NAMES: Final = tuple(HORIZONS)
LONGEST: Final = _HORIZON_NAMES[-1]
_LEVEL_SPREAD: Final = (
    _Z * np.sqrt(QUANTILE_LEVELS * (1 - QUANTILE_LEVELS)) * np.array([[0], [-1], [1]])
)


class Comparison(NamedTuple):
    """One statistic of a horizon against its base rate, in standard errors."""

    what: str
    value: float
    base_rate: float
    deviation: float
    horizon: str = LONGEST


class Neighbourhood(NamedTuple):
    """Rows (n,) of `points` with their similarities (n,), nearest first.

    `points` may hold more than the neighbours: only the fields that are used are picked out.
    """

    points: PointTable
    rows: npt.NDArray[np.intp]
    similarity: Floats

    def take(self, chosen: npt.NDArray[np.intp]) -> Neighbourhood:
        return Neighbourhood(self.points, self.rows[chosen], self.similarity[chosen])

    def at_least(self, similarity: float) -> Neighbourhood:
        return self.take(np.flatnonzero(self.similarity > similarity))

    def column(self, name: str) -> Floats:
        return self.points.column(name)[self.rows]


def weigh(
    neighbours: Neighbourhood,
    base: BaseRates,
    horizons: tuple[str, ...],
    volatility_now_pct: float,
    novelty: Novelty | None,
    calibration: Calibration | None = None,
) -> Evidence:
    """Evidence of a neighbourhood of at least one point, for the chosen horizons.

    `volatility_now_pct` is the realised volatility over 24h, NaN where unknown. The calibration
    is one that may be used for this query.
    """
    similarity = neighbours.similarity
    times = neighbours.points.timestamp_ms[neighbours.rows]
    effective = effective_counts(times, HORIZONS.values()).tolist()
    summed = _summed_up(neighbours, effective, base, volatility_now_pct)
    barriers = _barriers(neighbours, effective[-1], base)
    told = {name: summed[name] for name in _HORIZON_NAMES if name in horizons}
    skilled = None
    if calibration:
        skilled = calibration.skilled
        told = _banded(told, calibration, volatility_now_pct)
    comparisons = compared(told, barriers, effective[-1])
    verdict, reason = judge(comparisons, max(effective), novelty, skilled)
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
        horizons=told,
        calibrated=calibration is not None,
    )


def no_evidence(reason: str, base_rate_points: int) -> Evidence:
    """The answer where there is nothing to weigh."""
    return Evidence("none", reason, 0, INTERVAL_LEVEL, base_rate_points, None, None, None, None, {})


def compared(
    horizons: dict[str, HorizonEvidence], barriers: BarrierEvidence, effective_24h: float
) -> list[Comparison]:
    """Means and shares against their base rates, where there are enough effective episodes."""
    found = []
    for name, horizon in horizons.items():
        n = horizon.effective_episodes
        if n >= LEAST_EFFECTIVE_EPISODES:
            found.append(_mean_compared(name, horizon.mean, n))
            found.append(_share_compared(f"P(up) over {name}", horizon.p_up, n, name))
    if effective_24h >= LEAST_EFFECTIVE_EPISODES:
        for what, share in (
            ("P(stop first) over 24h", barriers.stop_first),
            ("P(target first) over 24h", barriers.target_first),
        ):
            found.append(_share_compared(what, share, effective_24h, LONGEST))
    return found


def judge(
    comparisons: list[Comparison],
    most_effective: float,
    novelty: Novelty | None,
    skilled: frozenset[str] | None = None,
) -> tuple[str, str]:
    """`informative`, `weak` or `none`, and why.

    `skilled`: the horizons at which such neighbours were measured to forecast better than the
    base rate; only they can be informative. `None` where that was not measured.
    """
    if not comparisons:
        return "none", (
            f"only {most_effective:.1f} effective episodes, at least {LEAST_EFFECTIVE_EPISODES} "
            "are needed"
        )
    if novelty and novelty.percentile >= NOVEL_PERCENTILE:
        return "none", (
            f"the state is unlike the past: {novelty.percentile:.0f} % of past states had a "
            f"nearer neighbour than {novelty.nearest_similarity:.2f}"
        )
    most = max(comparisons, key=lambda c: abs(c.deviation))
    if abs(most.deviation) > INFORMATIVE_Z:
        return _beyond_chance(comparisons, most, skilled)
    if abs(most.deviation) > WEAK_Z:
        return "weak", f"{_stated(most)}; by chance fewer than 1 query in 10 show that much"
    return "none", (
        f"nothing differs from the base rate by more than chance; at most, {_stated(most)}"
    )


def _beyond_chance(
    comparisons: list[Comparison], most: Comparison, skilled: frozenset[str] | None
) -> tuple[str, str]:
    seldom = "by chance fewer than 1 query in 100 show that much"
    if skilled is None:
        return "informative", f"{_stated(most)}; {seldom}"
    founded = [c for c in comparisons if c.horizon in skilled]
    best = max(founded, key=lambda c: abs(c.deviation), default=None)
    if best and abs(best.deviation) > INFORMATIVE_Z:
        return "informative", (
            f"{_stated(best)}; {seldom}, and over {best.horizon} such neighbours forecast better "
            "than the base rate in the calibration"
        )
    if not skilled:
        where = "at no horizon did such neighbours forecast"
    else:
        where = f"over {most.horizon} such neighbours did not forecast"
    return "weak", (
        f"{_stated(most)}; {seldom}; but {where} better than the base rate in the calibration"
    )


def _stated(of: Comparison) -> str:
    return (
        f"{of.what} is {of.value:.2f} against a base rate of {of.base_rate:.2f}, "
        f"{abs(of.deviation):.1f} standard errors away"
    )


def _banded(
    horizons: dict[str, HorizonEvidence], calibration: Calibration, volatility_now_pct: float
) -> dict[str, HorizonEvidence]:
    return {
        name: msgspec.structs.replace(
            of,
            band_80=band(calibration, name, of.rescaled.p10, of.rescaled.p90, volatility_now_pct),
        )
        if of.rescaled
        else of
        for name, of in horizons.items()
    }


def _summed_up(
    neighbours: Neighbourhood, effective: list[float], base: BaseRates, volatility_now_pct: float
) -> dict[str, HorizonEvidence]:
    outcomes = neighbours.points.values[OUTCOME_ROWS][:, neighbours.rows]
    count = len(neighbours.rows)
    horizons = len(outcomes)
    # The rescaled outcomes below the plain ones: each step is then one call for both.
    then = np.maximum(neighbours.column("realized_volatility_24h"), LEAST)
    rescaled = outcomes * (volatility_now_pct / then)
    both = np.sort(np.concatenate([outcomes, rescaled]), axis=1)
    roots = np.sqrt(effective + effective)[:, None, None]
    levels = (QUANTILE_LEVELS + _LEVEL_SPREAD / roots).reshape(2 * horizons, -1)
    of_levels = quantiles(both, levels).reshape(2 * horizons, 3, -1).tolist()
    means = (np.add.reduce(both, axis=1) / count).tolist()
    estimates = _means(outcomes, means[:horizons], effective, base)
    rescalable = isfinite(volatility_now_pct)
    base_quantiles = base.quantiles.tolist()
    ups = np.add.reduce(outcomes > 0, axis=1).tolist()
    found = {}
    for row, name in enumerate(_HORIZON_NAMES):
        p_up = _share(ups[row] / count, effective[row], float(base.p_up[row]))
        p10, p25, p50, p75, p90 = map(Estimate, *of_levels[row], base_quantiles[row])
        scaled = Rescaled(means[horizons + row], *of_levels[horizons + row][0])
        found[name] = HorizonEvidence(
            effective[row],
            estimates[row],
            p_up,
            p10,
            p25,
            p50,
            p75,
            p90,
            scaled if rescalable else None,
        )
    return found


def _means(
    outcomes: Floats, means: list[float], effective: list[float], base: BaseRates
) -> list[Estimate]:
    k = outcomes.shape[1]
    squares = np.square(outcomes - np.array(means)[:, None])
    estimates = []
    for value, square, n, base_rate in zip(
        means, np.add.reduce(squares, axis=1).tolist(), effective, base.mean.tolist(), strict=True
    ):
        if k == 1:
            estimates.append(Estimate(value, None, None, base_rate))
            continue
        reach = student_t(_Z, max(n - 1, 1.0)) * sqrt(square / (k - 1) / n)
        estimates.append(Estimate(value, value - reach, value + reach, base_rate))
    return estimates


def _share(share: float, n: float, base_rate: float) -> Estimate:
    low, high = wilson(share, n, _Z)
    return Estimate(share, low, high, base_rate)


def _barriers(neighbours: Neighbourhood, effective: float, base: BaseRates) -> BarrierEvidence:
    first = neighbours.column("first_barrier").tolist()
    n = len(first)
    return BarrierEvidence(
        _share(first.count(STOP_FIRST) / n, effective, base.stop_first),
        _share(first.count(TARGET_FIRST) / n, effective, base.target_first),
    )


def _mean_compared(name: str, mean: Estimate, n: float) -> Comparison:
    freedom = max(n - 1, 1.0)
    error = (mean.high - mean.value) / student_t(_Z, freedom) if mean.high is not None else 0.0
    away = (mean.value - mean.base_rate) / error if error > 0 else 0.0
    deviation = t_as_normal(away, freedom)
    what = f"the mean change in % over {name}"
    return Comparison(what, mean.value, mean.base_rate, deviation, name)


def _share_compared(what: str, share: Estimate, n: float, horizon: str) -> Comparison:
    deviation = share_deviation(share.value, share.base_rate, n)
    return Comparison(what, share.value, share.base_rate, deviation, horizon)
