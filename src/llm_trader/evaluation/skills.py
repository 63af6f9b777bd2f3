"""How good forecasts were: against base rates, against random neighbours, by direction.

The unit of evidence is not a query but a stretch of time: outcomes of neighbouring queries overlap
and calm follows calm. Intervals resample stretches of four horizons, at least a day, together for
a forecast and its reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from llm_trader.evaluation import significance
from llm_trader.evaluation.forecasts import (
    ForecastRule,
    Forecasts,
    Losses,
    forecast,
    horizon_of,
    losses,
)
from llm_trader.evaluation.results import Direction, Reference, Skill
from llm_trader.evaluation.scores import direction_hits
from llm_trader.evaluation.significance import Interval
from llm_trader.evaluation.walk import Neighbours, Search, find_neighbours
from llm_trader.index.points import PointTable
from llm_trader.market.candles import Floats
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.timeframe import DAY_MS, Millis, Timeframe

_HORIZONS_A_BLOCK: Final = 4
_PLAIN: Final = ForecastRule(rescale=0.0)


class Walk(NamedTuple):
    """One symbol's queries with the neighbours that were found, and with random ones."""

    points: PointTable
    queries: PointTable
    neighbours: Neighbours
    random: Neighbours
    step_ms: Millis

    def block(self, horizon: str) -> int:
        """Queries in a stretch that counts as one piece of evidence."""
        return int(max(_HORIZONS_A_BLOCK * HORIZONS[horizon], DAY_MS) // self.step_ms)


class Scored(NamedTuple):
    """A walk's forecasts at one horizon, and their losses."""

    walk: Walk
    horizon: str
    rule: ForecastRule
    forecasts: Forecasts
    losses: Losses

    @property
    def block(self) -> int:
        return self.walk.block(self.horizon)


def walk_of(
    points: PointTable,
    queries: PointTable,
    search: Search,
    *,
    intraday: Timeframe,
    step_ms: Millis,
    seed: int,
) -> Walk:
    """Walk through a symbol's queries. Random neighbours see the same windows and filters."""
    by_chance = Search(
        vector="random",
        lookback_days=search.lookback_days,
        episodes=search.episodes,
        min_gap_hours=search.min_gap_hours,
        include_regime_filters=search.include_regime_filters,
        embargo_hours=search.embargo_hours,
    )
    neighbours = find_neighbours(points, queries, search, intraday=intraday, seed=seed)
    random = find_neighbours(points, queries, by_chance, intraday=intraday, seed=seed + 1)
    return Walk(points, queries, neighbours, random, step_ms)


def score(walk: Walk, rules: Mapping[str, ForecastRule]) -> list[Scored]:
    """Forecasts and losses of a walk, by horizon."""
    found = []
    for name, rule in rules.items():
        horizon = horizon_of(walk.points, walk.queries, walk.neighbours, name, rule)
        plain = horizon_of(walk.points, walk.queries, walk.neighbours, name, _PLAIN)
        lost = losses(horizon, plain, walk.neighbours, walk.random, rule)
        made = forecast(horizon, walk.neighbours, rule)
        found.append(Scored(walk, name, rule, made, lost))
    return found


def references(scored: Scored) -> dict[Reference, Floats]:
    """Losses of what a forecast is compared with, by name."""
    return {
        "base rate": scored.losses.base,
        "base rate treated alike": scored.losses.base_alike,
        "random neighbours": scored.losses.random,
    }


def skills_of(scored: Scored, *, reps: int, seed: int) -> list[Skill]:
    """Skills of one symbol and horizon against all references; p-values are not adjusted yet."""
    loss = scored.losses.forecast
    return [_skill(scored, name, loss, of, reps, seed) for name, of in references(scored).items()]


def _skill(
    scored: Scored, name: Reference, loss: Floats, reference: Floats, reps: int, seed: int
) -> Skill:
    interval = significance.skill_interval(loss, reference, scored.block, reps, seed)
    known = np.isfinite(loss) & np.isfinite(reference)
    p_value = detectable = None
    if np.isfinite(interval.low):
        test = significance.diebold_mariano(loss[known], reference[known], scored.block)
        p_value = test.p_value
        better = reference[known] - loss[known]
        least = significance.minimum_detectable_effect(better, scored.block)
        detectable = least / float(reference[known].mean())
    return Skill(
        symbol=scored.walk.points.symbol,
        horizon=scored.horizon,
        reference=name,
        queries=int(known.sum()),
        skill=interval,
        p_value=p_value,
        p_adjusted=None,
        detectable=detectable,
        verdict=significance.verdict(interval),
    )


def direction_of(scored: Scored, *, reps: int, seed: int) -> Direction:
    made = scored.forecasts
    hits = direction_hits(made.median, made.observed)
    accuracy: Interval = significance.mean_interval(hits, scored.block, reps, seed)
    return Direction(symbol=scored.walk.points.symbol, horizon=scored.horizon, accuracy=accuracy)
