"""How good forecast probabilities were: of a rise, and of which barrier is touched first."""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.ensembles import ForecastRule, neighbour_weights
from llm_trader.evaluation.forecast.scores import brier, reliability
from llm_trader.evaluation.forecast.skills import Scored, Walk
from llm_trader.evaluation.results import Bin, Probability
from llm_trader.snapshot.outcome import STOP_FIRST, TARGET_FIRST

_BARRIERS: Final = {"stop first": STOP_FIRST, "target first": TARGET_FIRST}
_LONGEST: Final = "24h"


def rises(scored: Scored, *, reps: int, seed: int) -> Probability:
    """P(up) of one horizon, the mixture's against the base rate's."""
    horizon = scored.walk.points.column(f"outcome_{scored.horizon}") > 0
    base = scored.walk.neighbours.share(horizon)
    observed = scored.forecasts.observed
    happened = np.where(np.isfinite(observed), observed > 0, np.nan)
    event = f"up over {scored.horizon}"
    return _probability(
        scored.walk, event, scored.forecasts.p_up, base, happened, scored.block, reps, seed
    )


def barriers(walk: Walk, rule: ForecastRule, *, reps: int, seed: int) -> list[Probability]:
    """P(stop first) and P(target first) within 24 hours."""
    found = []
    weights = neighbour_weights(walk.neighbours, rule.kernel)
    for event, code in _BARRIERS.items():
        touched = walk.points.column("first_barrier") == code
        base = walk.neighbours.share(touched)
        near = weights * touched[walk.neighbours.rows]
        share = np.where(walk.neighbours.complete, near.sum(axis=1), np.nan)
        mixed = rule.neighbour_share * share + (1 - rule.neighbour_share) * base
        first = walk.queries.column("first_barrier")
        happened = np.where(np.isfinite(first), first == code, np.nan)
        block = walk.block(_LONGEST)
        found.append(_probability(walk, event, mixed, base, happened, block, reps, seed))
    return found


def _probability(
    walk: Walk,
    event: str,
    made: Floats,
    base: Floats,
    happened: Floats,
    block: int,
    reps: int,
    seed: int,
) -> Probability:
    loss, usual = brier(made, happened), brier(base, happened)
    known = np.isfinite(loss) & np.isfinite(usual)
    return Probability(
        symbol=walk.points.symbol,
        event=event,
        brier=float(loss[known].mean()) if known.any() else None,
        base_brier=float(usual[known].mean()) if known.any() else None,
        skill=significance.skill_interval(loss, usual, block, reps, seed),
        bins=_bins(made[known], happened[known]),
    )


def _bins(made: Floats, happened: Floats) -> list[Bin]:
    if not len(made):
        return []
    bins = reliability(made, happened)
    return [
        Bin(forecast, observed, count)
        for forecast, observed, count in zip(
            bins.mean_forecast, bins.observed_frequency, bins.counts, strict=True
        )
        if count
    ]
