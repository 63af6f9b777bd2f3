"""How good forecast probabilities were: of a rise, and of which barrier is touched first."""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.skills import ScoredForecasts, WalkForward
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Bin, Probability
from llm_trader.retrieval.forecast import barrier_shares
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import (
    STOP_FIRST,
    STOP_LOSS_PCT,
    TAKE_PROFIT_PCT,
    TARGET_FIRST,
)

_BARRIERS: Final = {"stop first": STOP_FIRST, "target first": TARGET_FIRST}
_BARRIER_HORIZON: Final = "24h"
# Ten bins of equal counts keep hundreds of forecasts in each at a year of hourly queries.
_BINS: Final = 10


def measure_rises(scored: ScoredForecasts, plan: StudyPlan) -> Probability:
    """P(up) of one horizon, the mixture's against the base rate's."""
    walk = scored.walk
    base = walk.neighbours.window_share(walk.points.column(f"outcome_{scored.horizon}") > 0)
    observed = scored.forecasts.observed
    events = np.where(np.isfinite(observed), observed > 0, np.nan)
    name = f"up over {scored.horizon}"
    return _probability(walk, name, scored.horizon, scored.forecasts.p_up, base, events, plan)


def measure_barriers(walk: WalkForward, plan: StudyPlan) -> list[Probability]:
    """P(stop first) and P(target first) within 24 hours, the volatility model's against the base
    rate's.
    """
    expected_pct = walk.queries.column(EXPECTED_VOLATILITY[_BARRIER_HORIZON])
    known = walk.neighbours.complete & (walk.neighbours.last > walk.neighbours.first)
    shares = np.full((len(_BARRIERS), len(walk.queries)), np.nan)
    for row in np.flatnonzero(known):
        window = walk.points.take(slice(walk.neighbours.first[row], walk.neighbours.last[row]))
        moves = (distance / expected_pct[row] for distance in (-STOP_LOSS_PCT, TAKE_PROFIT_PCT))
        shares[:, row] = barrier_shares(window, *moves)
    touched, past = walk.queries.column("first_barrier"), walk.points.column("first_barrier")
    share_known = walk.neighbours.window_share(np.isfinite(past))
    probabilities = []
    for (name, code), share in zip(_BARRIERS.items(), shares, strict=True):
        base = walk.neighbours.window_share(past == code) / share_known
        events = np.where(np.isfinite(touched), touched == code, np.nan)
        probabilities.append(_probability(walk, name, _BARRIER_HORIZON, share, base, events, plan))
    return probabilities


def _probability(
    walk: WalkForward,
    name: str,
    horizon: str,
    forecast: Floats,
    base: Floats,
    events: Floats,
    plan: StudyPlan,
) -> Probability:
    loss, base_loss = brier(forecast, events), brier(base, events)
    scored = np.isfinite(loss) & np.isfinite(base_loss)
    block = walk.block(horizon)
    return Probability(
        symbol=walk.points.symbol,
        event=name,
        brier=float(loss[scored].mean()) if scored.any() else None,
        base_brier=float(base_loss[scored].mean()) if scored.any() else None,
        skill=significance.skill_interval(loss, base_loss, block, plan.reps, plan.seed),
        bins=reliability_bins(forecast[scored], events[scored]),
    )


def brier(probability: Floats, event: Floats) -> Floats:
    """Squared error of a probability, (p − o)² with o = 1 where it happened (Brier 1950), (n,).

    NaN where the forecast or the event is unknown, so that scores stay side by side.
    """
    return np.asarray((probability - event) ** 2)


def reliability_bins(probability: Floats, event: Floats, bins: int = _BINS) -> list[Bin]:
    """Forecast probabilities (n,) and observed frequencies of the events (n,), by bin.

    Bins have about equal counts and are cut between different forecasts only: one for each value
    where there are no more values than bins. A bin holds its lower edge; the last holds both.
    """
    if bins < 1:
        raise InvalidInputError(f"{bins} bins hold no forecast: take at least 1")
    if not len(probability):
        return []
    distinct = np.unique(probability)
    inner_edges = distinct[1:]
    if len(distinct) > bins:
        levels = np.arange(1, bins) / bins
        edges = np.unique(np.quantile(probability, levels, method="inverted_cdf"))
        inner_edges = edges[edges > distinct[0]]
    place = np.searchsorted(inner_edges, probability, side="right")
    counts = np.bincount(place, minlength=len(inner_edges) + 1)
    forecast = np.bincount(place, probability, len(counts))
    observed = np.bincount(place, event, len(counts))
    return [
        Bin(float(forecast[i] / count), float(observed[i] / count), int(count))
        for i, count in enumerate(counts)
        if count
    ]
