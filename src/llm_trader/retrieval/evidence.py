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
    relative_outcomes,
    size_numbers,
)
from llm_trader.retrieval.intervals import student_t, wilson
from llm_trader.retrieval.reference import QUANTILE_LEVELS, BaseRates
from llm_trader.retrieval.statistics import OUTCOME_ROWS, in_order_sum, quantiles
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


class Prospect(NamedTuple):
    """The forecast in units of expected volatility, and how its neighbours compare with the
    window.
    """

    mixture: Mixture
    comparisons: list[Comparison]

    @classmethod
    def of(cls, base: ForecastBase, neighbours: Neighbourhood) -> Prospect:
        points, rows = neighbours.points, neighbours.rows[None]
        outcomes = relative_outcomes(points.values, rows)
        ascending = np.sort(outcomes, axis=2)
        sizes = size_numbers(outcomes)
        [comparisons] = compare_neighbours(
            base.numbers, outcomes, ascending, sizes, points.timestamp_ms[rows]
        )
        return cls(base.mixed_with(ascending), comparisons)


class Outlook(NamedTuple):
    """A prospect with the volatilities expected now in %, NaN where unknown, the margins of a
    calibration, both by horizon, and the chances of barriers.
    """

    mixture: Mixture
    comparisons: list[Comparison]
    expected_pct: list[float]
    margins: list[float] | None
    barriers: list[BarrierForecast] | None

    @classmethod
    def of(
        cls,
        prospect: Prospect,
        window: PointTable,
        expected_pct: list[float],
        margins: list[float] | None = None,
        barriers_pct: Sequence[tuple[float, float]] = (),
    ) -> Outlook:
        barriers = None
        if isfinite(expected_pct[-1]) and np.isfinite(window.column("first_barrier")).any():
            barriers = [_barrier_forecast(window, *pair, expected_pct[-1]) for pair in barriers_pct]
        return cls(*prospect, expected_pct, margins, barriers)


class EpisodeNumbers(NamedTuple):
    """Numbers of the episodes of a query, by horizon; the lists of `means` and `quantiles` are
    those of the outcomes and then of the rescaled ones.

    `squares` are sums of squared differences from the mean; `ups` count the rises; `quantiles` are
    (3, levels), the level itself, its lower and its upper bound. `similarity` is the mean, the
    least and the greatest; `first_barrier` is NaN where unknown.
    """

    episodes: int
    effective: list[float]
    means: list[float]
    squares: list[float]
    ups: list[int]
    quantiles: list[list[list[float]]]
    similarity: list[float]
    first_barrier: list[float]

    @classmethod
    def of(
        cls, points: PointTable, rows: Rows, similarity: Floats, current_volatility_pct: Floats
    ) -> list[EpisodeNumbers]:
        """Of the episodes at rows (queries, n), with their similarities, and the volatilities of
        the queries (queries,).
        """
        (queries, count), values = rows.shape, points.values
        outcomes = np.take(values[OUTCOME_ROWS], rows, axis=1)
        horizons = len(outcomes)
        effective = effective_counts(points.timestamp_ms[rows], HORIZONS.values())
        former_pct = np.maximum(points.column("realized_volatility_24h")[rows], VOLATILITY_FLOOR)
        rescaled = outcomes * (current_volatility_pct[:, None] / former_pct)
        # Rescaled outcomes lie below the plain ones, so that each step is one call for both.
        ascending = np.sort(np.concatenate([outcomes, rescaled]), axis=2)
        roots = np.sqrt(np.tile(effective, (2, 1)))[..., None, None]
        levels = (QUANTILE_LEVELS + _LEVEL_SPREAD / roots).reshape(2 * horizons * queries, -1)
        quantile_rows = quantiles(ascending.reshape(-1, count), levels)
        means = in_order_sum(ascending) / count
        squares = in_order_sum(np.square(outcomes - means[:horizons, :, None]))
        mean_similarity = np.add.reduce(similarity, axis=1) / count
        ends = np.minimum.reduce(similarity, axis=1), np.maximum.reduce(similarity, axis=1)
        by_query = zip(
            effective.T.tolist(),
            means.T.tolist(),
            squares.T.tolist(),
            np.add.reduce(outcomes > 0, axis=2).T.tolist(),
            quantile_rows.reshape(2 * horizons, queries, 3, -1).swapaxes(0, 1).tolist(),
            np.array([mean_similarity, *ends]).T.tolist(),
            points.column("first_barrier")[rows].tolist(),
            strict=True,
        )
        return [cls(count, *row) for row in by_query]


def build_evidence(
    episodes: EpisodeNumbers,
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
    all_horizons = _horizons(episodes, base, outlook, current_volatility_pct)
    horizons = {name: all_horizons[name] for name in HORIZONS if name in requested_horizons}
    verdict, reason = decide_verdict(
        [comparison for comparison in outlook.comparisons if comparison.horizon in horizons],
        max(episodes.effective),
        novelty,
        calibration.skilled_horizons if calibration else None,
    )
    similarity_mean, least, greatest = episodes.similarity
    return Evidence(
        verdict=verdict,
        reason=reason,
        episodes=episodes.episodes,
        interval_level=INTERVAL_LEVEL,
        base_rate_points=base.points,
        similarity_mean=similarity_mean,
        similarity_range=(least, greatest),
        novelty=novelty,
        barriers=_barriers(episodes.first_barrier, episodes.effective[-1], base),
        horizons=horizons,
        calibrated=calibration is not None,
        barrier_forecasts=outlook.barriers,
    )


def no_evidence(reason: str, base_rate_points: int) -> Evidence:
    """The evidence where no episode was found."""
    return Evidence("none", reason, 0, INTERVAL_LEVEL, base_rate_points, None, None, None, None, {})


def _horizons(
    episodes: EpisodeNumbers,
    base: BaseRates,
    outlook: Outlook,
    current_volatility_pct: float,
) -> dict[str, HorizonEvidence]:
    count, effective, means = episodes.episodes, episodes.effective, episodes.means
    mean_estimates = _mean_estimates(episodes, base)
    base_quantiles, base_ups = base.quantiles.tolist(), base.p_up.tolist()
    evidence = {}
    for row, name in enumerate(HORIZONS):
        rescaled_stats = None
        if isfinite(current_volatility_pct):
            rescaled_row = len(HORIZONS) + row
            rescaled_stats = Rescaled(means[rescaled_row], *episodes.quantiles[rescaled_row][0])
        p_up = _share_estimate(episodes.ups[row] / count, effective[row], base_ups[row])
        p10, p25, p50, p75, p90 = map(Estimate, *episodes.quantiles[row], base_quantiles[row])
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


def _mean_estimates(episodes: EpisodeNumbers, base: BaseRates) -> list[Estimate]:
    estimates, count = [], episodes.episodes
    means = episodes.means[: len(HORIZONS)]
    rows = zip(means, episodes.squares, episodes.effective, base.mean.tolist(), strict=True)
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


def _barriers(
    first_barrier: list[float], effective: float, base: BaseRates
) -> BarrierEvidence | None:
    """Of the episodes that know which barrier was touched; None without any."""
    first = [barrier for barrier in first_barrier if barrier == barrier]
    n = len(first)
    if not n:
        return None
    effective = min(effective, n)
    return BarrierEvidence(
        _share_estimate(first.count(STOP_FIRST) / n, effective, base.stop_first),
        _share_estimate(first.count(TARGET_FIRST) / n, effective, base.target_first),
    )
