"""80 % bands: by how much they miss, the margins that correct them, and what the corrected cover.

A band is the one the server gives: p10 and p90 of the neighbours' outcomes, fully rescaled. A
margin is made again at each UTC midnight from the outcomes known by then, so that no margin is
made from what it corrects.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.plan import ForecastRule, StudyPlan
from llm_trader.evaluation.results import Band
from llm_trader.index.points import PointTable
from llm_trader.retrieval.calibration import BAND_LEVEL
from llm_trader.retrieval.statistics import quantiles
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis

# Weeks follow a drifting market: a margin of half a year covers too little, or too much, in the
# next quarter, and one of a month rests on too few outcomes over 24h.
WINDOW_DAYS: Final = 60
# The 80 % quantile of fewer independent scores is one of the two highest.
MIN_EFFECTIVE_SCORES: Final = 10

BAND_ENDS: Final = np.array([[0.1, 0.9]])
# The forecast that a server gives as evidence: of neighbours alone, fully rescaled.
SERVED_RULE: Final = ForecastRule()


class BandCoverage(NamedTuple):
    """For n queries, 1 where the outcome was inside the band and 0 where not, (n,).

    NaN where the outcome is unknown, or where there was no margin yet.
    """

    before: Floats
    after: Floats


def cover(walk: WalkForward, horizon: str) -> BandCoverage:
    times_ms = walk.queries.timestamp_ms
    scores = served_scores(walk.points, walk.queries, walk.neighbours, horizon)
    midnights_ms = np.arange(times_ms[0] - times_ms[0] % DAY_MS, times_ms[-1] + 1, DAY_MS)
    margins = trailing_margins(times_ms, scores, midnights_ms, HORIZONS[horizon], walk.step_ms)
    after = covered(scores, margins[(times_ms - midnights_ms[0]) // DAY_MS])
    return BandCoverage(np.where(np.isfinite(after), covered(scores, 0.0), np.nan), after)


def measure_band(walk: WalkForward, horizon: str, coverage: BandCoverage, plan: StudyPlan) -> Band:
    resampling = walk.block(horizon), plan.reps, plan.seed
    return Band(
        symbol=walk.points.symbol,
        horizon=horizon,
        before=significance.mean_interval(coverage.before, *resampling),
        after=significance.mean_interval(coverage.after, *resampling),
        queries=int(np.isfinite(coverage.after).sum()),
    )


def served_scores(
    points: PointTable, queries: PointTable, neighbours: Neighbours, horizon: str
) -> Floats:
    """`band_scores` of the bands that the server gives, shape (n,); NaN without all episodes."""
    served = HorizonOutcomes(points, queries, neighbours, horizon, SERVED_RULE)
    low, high = quantiles(np.sort(served.outcomes(neighbours.rows), axis=1), BAND_ENDS).T
    scores = band_scores(low, high, served.observed, queries.column("realized_volatility_24h"))
    return np.where(neighbours.complete, scores, np.nan)


def band_scores(low: Floats, high: Floats, observed: Floats, volatility_pct: Floats) -> Floats:
    """How far outside [low, high] each observation is, below 0 inside, in units of volatility."""
    distance = np.maximum(low - observed, observed - high)
    return np.asarray(distance / np.maximum(volatility_pct, VOLATILITY_FLOOR))


def covered(scores: Floats, margin: Floats | float) -> Floats:
    """1 where the outcome lay inside the widened band, 0 where not, NaN where either is unknown."""
    comparable = np.isfinite(scores) & np.isfinite(margin)
    return np.where(comparable, scores <= margin, np.nan)


def trailing_margins(
    time_ms: Times, scores: Floats, as_of_ms: Times, horizon_ms: Millis, step_ms: Millis
) -> Floats:
    """The margin at each `as_of_ms` of the `WINDOW_DAYS` before, from the scores known by then.

    Scores (n,) of queries at `time_ms` (n,), increasing; shape (times,), NaN where too few were.
    """
    scored = np.isfinite(scores)
    time_ms, scores = time_ms[scored], scores[scored]
    last_ms = as_of_ms - LONGEST_HORIZON_MS
    first = np.searchsorted(time_ms, last_ms - WINDOW_DAYS * DAY_MS, side="right")
    last = np.searchsorted(time_ms, last_ms, side="right")
    margins = np.full(len(as_of_ms), np.nan)
    for i, (start, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        effective = effective_scores(time_ms[start:end], horizon_ms, step_ms)
        if effective >= MIN_EFFECTIVE_SCORES:
            margins[i] = conformal_quantile(scores[start:end], effective)
    return margins


def effective_scores(time_ms: Times, horizon_ms: Millis, step_ms: Millis) -> float:
    """How many outcomes do not overlap; several symbols at one time count as one."""
    return len(np.unique(time_ms)) * min(1.0, step_ms / horizon_ms)


def conformal_quantile(scores: Floats, effective: float, level: float = BAND_LEVEL) -> float:
    """The score below which a new one lies with a chance of at least `level`.

    The order statistic at level (n + 1) / n of scores (m,) that are worth n independent ones. With
    n = m exchangeable scores the chance is between `level` and `level` + 1 / (n + 1).
    """
    corrected_level = min(level * (effective + 1) / effective, 1.0)
    return float(np.quantile(scores, corrected_level, method="inverted_cdf"))
