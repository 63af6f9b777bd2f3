"""What followed the episodes beside the base rate of the window, and how far to trust it.

Intervals are closed formulas, so that a query stays cheap, and `n` counts overlapping outcomes as
the fewer independent ones that they amount to: Student's t for means, Wilson's for shares, and for
quantiles the order statistics at the levels p ± z·√(p(1-p)/n), the normal approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.index.points import PointTable
from llm_trader.retrieval.answer import (
    BarrierEvidence,
    BarrierForecast,
    Difference,
    Estimate,
    Evidence,
    Forecast,
    HorizonEvidence,
    Novelty,
    Rescaled,
)
from llm_trader.retrieval.calibration import Calibration, band
from llm_trader.retrieval.episodes import effective_counts
from llm_trader.retrieval.forecast import (
    BAND_ENDS,
    ForecastBase,
    Mixture,
    barrier_shares,
    mix,
    relative_outcomes,
)
from llm_trader.retrieval.intervals import student_t, wilson
from llm_trader.retrieval.reference import QUANTILE_LEVELS, BaseRates
from llm_trader.retrieval.statistics import OUTCOME_ROWS, quantiles
from llm_trader.retrieval.verdict import Comparison, compare_neighbours, decide_verdict, summary
from llm_trader.snapshot.outcome import STOP_FIRST, TARGET_FIRST
from llm_trader.timeframe import HORIZONS

INTERVAL_LEVEL: Final = 0.9
_Z: Final = NormalDist().inv_cdf((1 + INTERVAL_LEVEL) / 2)
# Rows: the level itself, and what its lower and upper bound lie off at one observation.
_LEVEL_SPREAD: Final = (
    _Z * np.sqrt(QUANTILE_LEVELS * (1 - QUANTILE_LEVELS)) * np.array([[0], [-1], [1]])
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

    def first(self, count: int) -> Neighbourhood:
        """The nearest, in the order of time."""
        return self.take(np.argsort(self.rows[:count]))

    def at_least(self, similarity: float) -> Neighbourhood:
        return self.take(np.flatnonzero(self.similarity > similarity))

    def column(self, name: str) -> Floats:
        return self.points.column(name)[self.rows]


class Outlook(NamedTuple):
    """The forecast in units of expected volatility, how its neighbours compare with the window, the
    volatilities expected now in %, NaN where unknown, the margins of a calibration, both by
    horizon, and the chances of barriers.
    """

    mixture: Mixture
    comparisons: list[Comparison]
    expected_pct: list[float]
    margins: list[float] | None
    barriers: list[BarrierForecast] | None

    @classmethod
    def of(
        cls,
        base: ForecastBase,
        window: PointTable,
        neighbours: Neighbourhood,
        expected_pct: list[float],
        margins: list[float] | None = None,
        barriers_pct: Sequence[tuple[float, float]] = (),
    ) -> Outlook:
        points, rows = neighbours.points, neighbours.rows
        outcomes = relative_outcomes(points.values, rows)
        ascending = np.sort(outcomes, axis=1)
        comparisons = compare_neighbours(base, outcomes, ascending, points.timestamp_ms[rows])
        barriers = None
        if isfinite(expected_pct[-1]) and np.isfinite(window.column("first_barrier")).any():
            barriers = [_barrier_forecast(window, *pair, expected_pct[-1]) for pair in barriers_pct]
        return cls(mix(base, ascending), comparisons, expected_pct, margins, barriers)


def build_evidence(
    episodes: Neighbourhood,
    base: BaseRates,
    outlook: Outlook,
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
    all_horizons = _horizons(episodes, effective, base, outlook, current_volatility_pct)
    horizons = {name: all_horizons[name] for name in HORIZONS if name in requested_horizons}
    barriers = _barriers(episodes, effective[-1], base)
    verdict, reason = decide_verdict(
        [comparison for comparison in outlook.comparisons if comparison.horizon in horizons],
        max(effective),
        novelty,
        calibration.skilled_horizons if calibration else None,
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
        barrier_forecasts=outlook.barriers,
    )


def no_evidence(reason: str, base_rate_points: int) -> Evidence:
    """The evidence where no episode was found."""
    return Evidence("none", reason, 0, INTERVAL_LEVEL, base_rate_points, None, None, None, None, {})


def _horizons(
    episodes: Neighbourhood,
    effective: list[float],
    base: BaseRates,
    outlook: Outlook,
    current_volatility_pct: float,
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
        rescaled_stats = None
        if isfinite(current_volatility_pct):
            rescaled_stats = Rescaled(means[horizons + row], *quantile_rows[horizons + row][0])
        p_up = _share_estimate(ups[row] / count, effective[row], float(base.p_up[row]))
        p10, p25, p50, p75, p90 = map(Estimate, *quantile_rows[row], base_quantiles[row])
        estimates = mean_estimates[row], p_up, p10, p25, p50, p75, p90
        evidence[name] = HorizonEvidence(
            effective[row], *estimates, rescaled_stats, *_ahead(row, outlook)
        )
    return evidence


class _Ahead(NamedTuple):
    """The last fields of `HorizonEvidence`."""

    band_80: tuple[float, float] | None
    expected_volatility_pct: float | None
    forecast: Forecast | None
    scale: Difference | None
    direction: Difference | None
    summary: str | None


def _ahead(row: int, outlook: Outlook) -> _Ahead:
    comparison, mixture = outlook.comparisons[row], outlook.mixture
    expected_pct = outlook.expected_pct[row]
    if not isfinite(expected_pct):
        return _Ahead(None, None, None, comparison.scale, comparison.direction, None)
    forecast = Forecast(
        (mixture.quantiles[row] * expected_pct).tolist(),
        float(mixture.mean[row]) * expected_pct,
        float(mixture.share_up[row]),
        float(mixture.weight[row]),
    )
    ends = low, high = forecast.quantiles[BAND_ENDS[0]], forecast.quantiles[BAND_ENDS[1]]
    band_80 = band(low, high, outlook.margins[row] * expected_pct) if outlook.margins else None
    words = summary(comparison, expected_pct, band_80 or ends)
    return _Ahead(band_80, expected_pct, forecast, comparison.scale, comparison.direction, words)


def _barrier_forecast(
    window: PointTable, stop_pct: float, target_pct: float, expected_pct: float
) -> BarrierForecast:
    moves = stop_pct / expected_pct, target_pct / expected_pct
    stop_first, target_first = barrier_shares(window, *moves)
    neither = 1 - stop_first - target_first
    return BarrierForecast(stop_pct, target_pct, *moves, stop_first, target_first, neither)


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


def _barriers(episodes: Neighbourhood, effective: float, base: BaseRates) -> BarrierEvidence | None:
    """Of the episodes that know which barrier was touched; None without any."""
    first = [barrier for barrier in episodes.column("first_barrier").tolist() if barrier == barrier]
    n = len(first)
    if not n:
        return None
    effective = min(effective, n)
    return BarrierEvidence(
        _share_estimate(first.count(STOP_FIRST) / n, effective, base.stop_first),
        _share_estimate(first.count(TARGET_FIRST) / n, effective, base.target_first),
    )
