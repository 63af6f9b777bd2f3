"""What followed a wider neighbourhood, beside the base rate, and how far to trust it.

Intervals are closed formulas, so that a query stays cheap, and count overlapping outcomes as the
fewer independent ones that they amount to:

- means: Student's t, its quantile by the Cornish-Fisher expansion (Abramowitz & Stegun 26.7.5)
- shares: Wilson's score interval (1927)
- quantiles: order statistics at the level ± z·√(p(1-p)/n), by the normal approximation
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from llm_trader.index.points import PointTable
from llm_trader.market.candles import Floats
from llm_trader.retrieval.answer import (
    BarrierEvidence,
    Estimate,
    Evidence,
    HorizonEvidence,
    Novelty,
    Rescaled,
)
from llm_trader.retrieval.episodes import effective_count
from llm_trader.retrieval.reference import QUANTILE_LEVELS, BaseRates
from llm_trader.retrieval.statistics import OUTCOME_ROWS, quantiles
from llm_trader.snapshot.outcome import HORIZONS, STOP_FIRST, TARGET_FIRST

INTERVAL_LEVEL: Final = 0.9
LEAST_EFFECTIVE_EPISODES: Final = 10
NOVEL_PERCENTILE: Final = 99.0

_HORIZON_NAMES: Final = tuple(HORIZONS)
_LEVELS: Final = np.array(QUANTILE_LEVELS)

# A mean and a share per horizon and two barriers are looked at; by chance alone one of them
# leaves its interval easily, so "informative" asks for the level that Bonferroni's rule gives.
_COMPARISONS: Final = 2 * len(HORIZONS) + 2
_Z: Final = NormalDist().inv_cdf((1 + INTERVAL_LEVEL) / 2)
_STRICT_Z: Final = NormalDist().inv_cdf(1 - (1 - INTERVAL_LEVEL) / 2 / _COMPARISONS)


class Comparison(NamedTuple):
    """One statistic against its base rate, in standard errors."""

    what: str
    value: float
    base_rate: float
    deviation: float


class Neighbourhood(NamedTuple):
    """The neighbours' points, most similar first, and similarities (n,)."""

    points: PointTable
    similarity: Floats

    def take(self, rows: slice) -> Neighbourhood:
        return Neighbourhood(self.points.take(rows), self.similarity[rows])


def weigh(
    neighbours: Neighbourhood,
    base: BaseRates,
    horizons: tuple[str, ...],
    volatility_now_pct: float,
    novelty: Novelty | None,
) -> Evidence:
    """Evidence of a neighbourhood for the chosen horizons.

    `volatility_now_pct` is the realised volatility over 24h, NaN where unknown.
    """
    points = neighbours.points
    outcomes = points.values[OUTCOME_ROWS]
    effective = effective_count(points.timestamp_ms, HORIZONS.values())
    summaries = _Summaries(outcomes, effective, base)
    barriers = _barriers(points, float(effective[-1]), base)
    rescaled = _rescaled(points, outcomes, volatility_now_pct)
    wanted = [_HORIZON_NAMES.index(name) for name in horizons]
    comparisons = [c for row in wanted for c in summaries.comparisons(row)]
    comparisons += _barrier_comparisons(barriers, float(effective[-1]))
    verdict, reason = judge(comparisons, effective[wanted], novelty)
    return Evidence(
        verdict=verdict,
        reason=reason,
        episodes=len(points),
        interval_level=INTERVAL_LEVEL,
        base_rate_points=base.points,
        similarity_mean=float(neighbours.similarity.mean()),
        similarity_range=(float(neighbours.similarity[-1]), float(neighbours.similarity[0])),
        novelty=novelty,
        barriers=barriers,
        horizons={
            _HORIZON_NAMES[row]: summaries.horizon(row, rescaled[row] if rescaled else None)
            for row in wanted
        },
    )


def no_evidence(reason: str, base_rate_points: int) -> Evidence:
    """The answer where there is nothing to weigh."""
    return Evidence("none", reason, 0, INTERVAL_LEVEL, base_rate_points, None, None, None, None, {})


def judge(
    comparisons: list[Comparison], effective: Floats, novelty: Novelty | None
) -> tuple[str, str]:
    """`informative`, `weak` or `none`, and why."""
    fewest = float(effective.min())
    if fewest < LEAST_EFFECTIVE_EPISODES:
        return "none", (
            f"only {fewest:.1f} effective episodes, at least {LEAST_EFFECTIVE_EPISODES} are needed"
        )
    if novelty and novelty.percentile >= NOVEL_PERCENTILE:
        return "none", (
            f"the state is unlike the past: {novelty.percentile:.0f} % of past states had a "
            f"nearer neighbour than {novelty.nearest_similarity:.2f}"
        )
    most = max(comparisons, key=lambda c: abs(c.deviation))
    told = (
        f"{most.what} is {most.value:.2f} against a base rate of {most.base_rate:.2f}, "
        f"{abs(most.deviation):.1f} standard errors away"
    )
    if abs(most.deviation) > _STRICT_Z:
        return "informative", f"{told}: more than chance over {_COMPARISONS} comparisons"
    if abs(most.deviation) > _Z:
        return "weak", f"{told}: chance over {_COMPARISONS} comparisons does that easily"
    return "none", "nothing differs from the base rate by more than chance"


class _Summaries:
    """All horizons at once: values, intervals and base rates of means, shares and quantiles."""

    def __init__(self, outcomes: Floats, effective: Floats, base: BaseRates) -> None:
        n = outcomes.shape[1]
        self.effective, self.base = effective, base
        self.mean = outcomes.mean(axis=1)
        deviation = outcomes.std(axis=1, ddof=1) if n > 1 else np.full(len(outcomes), np.nan)
        self.mean_error = deviation / np.sqrt(effective)
        reach = student_t(_Z, np.maximum(effective - 1, 1)) * self.mean_error
        self.mean_low, self.mean_high = self.mean - reach, self.mean + reach
        self.p_up = (outcomes > 0).mean(axis=1)
        self.p_low, self.p_high = wilson(self.p_up, effective)
        off = _Z * np.sqrt(_LEVELS * (1 - _LEVELS) / effective[:, None])
        levels = np.concatenate([_LEVELS + 0 * off, _LEVELS - off, _LEVELS + off], axis=1)
        self.quantiles = quantiles(np.sort(outcomes, axis=1), levels).tolist()

    def horizon(self, row: int, rescaled: Rescaled | None) -> HorizonEvidence:
        mean = Estimate(
            float(self.mean[row]),
            float(self.mean_low[row]),
            float(self.mean_high[row]),
            float(self.base.mean[row]),
        )
        p_up = Estimate(
            float(self.p_up[row]),
            float(self.p_low[row]),
            float(self.p_high[row]),
            float(self.base.p_up[row]),
        )
        k, values = len(QUANTILE_LEVELS), self.quantiles[row]
        base = self.base.quantiles[row].tolist()
        p10, p25, p50, p75, p90 = map(
            Estimate, values[:k], values[k : 2 * k], values[2 * k :], base
        )
        n = float(self.effective[row])
        return HorizonEvidence(n, mean, p_up, p10, p25, p50, p75, p90, rescaled)

    def comparisons(self, row: int) -> list[Comparison]:
        name, n = _HORIZON_NAMES[row], float(self.effective[row])
        mean, base_mean = float(self.mean[row]), float(self.base.mean[row])
        p_up, base_p_up = float(self.p_up[row]), float(self.base.p_up[row])
        error = float(self.mean_error[row])
        away = (mean - base_mean) / error if error > 0 else 0.0
        return [
            Comparison(f"the mean change in % over {name}", mean, base_mean, _as_normal(away, n)),
            Comparison(f"P(up) over {name}", p_up, base_p_up, _share_deviation(p_up, base_p_up, n)),
        ]


def _barriers(points: PointTable, effective: float, base: BaseRates) -> BarrierEvidence:
    first = points.column("first_barrier")
    estimates = []
    for code, base_rate in ((STOP_FIRST, base.stop_first), (TARGET_FIRST, base.target_first)):
        share = float((first == code).mean())
        low, high = wilson(np.array(share), np.array(effective))
        estimates.append(Estimate(share, float(low), float(high), base_rate))
    return BarrierEvidence(*estimates)


def _barrier_comparisons(barriers: BarrierEvidence, effective: float) -> list[Comparison]:
    return [
        Comparison(what, e.value, e.base_rate, _share_deviation(e.value, e.base_rate, effective))
        for what, e in (
            ("P(stop first) over 24h", barriers.stop_first),
            ("P(target first) over 24h", barriers.target_first),
        )
    ]


def _rescaled(
    points: PointTable, outcomes: Floats, volatility_now_pct: float
) -> list[Rescaled] | None:
    then = points.column("realized_volatility_24h")
    if not np.isfinite(volatility_now_pct) or not (then > 0).all():
        return None
    scaled = outcomes * (volatility_now_pct / then)
    at_levels = quantiles(np.sort(scaled, axis=1), _LEVELS[None]).tolist()
    means = scaled.mean(axis=1).tolist()
    return [Rescaled(mean, *values) for mean, values in zip(means, at_levels, strict=True)]


def student_t(z: float, freedom: Floats) -> Floats:
    """Student's t quantile for the normal quantile z; 3 digits from 5 degrees of freedom on."""
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    t: Floats = z + g1 / freedom + g2 / freedom**2 + g3 / freedom**3
    return t


def _as_normal(t: float, n: float) -> float:
    """The normal deviate as unlikely as a Student's t of n observations (Wallace 1959)."""
    freedom = max(n - 1, 1.0)
    size = np.sqrt(freedom * np.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return float(np.copysign(size, t))


def wilson(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Wilson's score interval of a share out of n observations, n not necessarily whole."""
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    reach = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return np.maximum(centre - reach, 0.0), np.minimum(centre + reach, 1.0)


def _share_deviation(share: float, base_rate: float, n: float) -> float:
    error = np.sqrt(base_rate * (1 - base_rate) / n)
    if error > 0:
        return float((share - base_rate) / error)
    # The window never (or always) saw it: nothing to be measured against.
    return 0.0
