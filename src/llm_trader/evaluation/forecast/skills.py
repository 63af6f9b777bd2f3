"""How good forecasts were: against base rates, against random neighbours, by direction.

The unit of evidence is not a query but a stretch of time: outcomes of neighbouring queries overlap
and calm follows calm. Intervals resample stretches of four horizons, at least a day, together for
a forecast and its reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from llm_trader.arrays import Floats
from llm_trader.evaluation import significance
from llm_trader.evaluation.controls.alterations import signs_by_chance
from llm_trader.evaluation.forecast.ensembles import (
    ForecastRule,
    Forecasts,
    Losses,
    forecast,
    horizon_of,
    losses,
    losses_beside_base,
)
from llm_trader.evaluation.forecast.neighbour_search import Neighbours, Search, find_neighbours
from llm_trader.evaluation.forecast.scores import direction_hits
from llm_trader.evaluation.results import Direction, Reference, Skill
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL
from llm_trader.index.points import PointTable
from llm_trader.retrieval.episodes import effective_counts
from llm_trader.retrieval.intervals import Interval
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.timeframe import DAY_MS, Millis, Timeframe

_HORIZONS_A_BLOCK: Final = 4
_ROWS_AT_ONCE: Final = 256
_PLAIN: Final = ForecastRule(rescale=0.0)


def block_of(horizon: str, step_ms: Millis) -> int:
    """Four horizons, and a day at least, in steps."""
    return -(-max(_HORIZONS_A_BLOCK * HORIZONS[horizon], DAY_MS) // step_ms)


class Walk(NamedTuple):
    """One symbol's queries with the neighbours that were found, and with random ones."""

    points: PointTable
    queries: PointTable
    neighbours: Neighbours
    random: Neighbours
    intraday: Timeframe
    step_ms: Millis

    def block(self, horizon: str) -> int:
        """Queries in a stretch that counts as one piece of evidence."""
        return block_of(horizon, self.step_ms)

    @property
    def mean_similarity(self) -> Floats:
        """Of each query's neighbours, shape (n,); NaN without all episodes."""
        mean: Floats = self.neighbours.similarity.mean(axis=1, dtype=np.float64)
        return mean

    def effective_episodes(self, horizon: str, neighbours: Neighbours) -> Floats:
        """How many independent outcomes the neighbours amount to, (n,); NaN without all."""
        times, whole = self.points.timestamp_ms, neighbours.complete
        found = np.full(len(whole), np.nan)
        for start in range(0, len(whole), _ROWS_AT_ONCE):
            rows = start + np.flatnonzero(whole[start : start + _ROWS_AT_ONCE])
            (found[rows],) = effective_counts(times[neighbours.rows[rows]], [HORIZONS[horizon]])
        return found


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

    def kept(self, rows: npt.NDArray[np.bool_]) -> Scored:
        """With losses and forecasts of some queries only, (n,); others' are not known."""
        losses = Losses(*(np.where(rows, of, np.nan) for of in self.losses))
        return self._replace(losses=losses, forecasts=self.forecasts.kept(rows))

    def abstaining(self, rows: npt.NDArray[np.bool_]) -> Scored:
        """With the base rate as the forecast of some queries, shape (n,), and no probabilities."""
        alike = self.losses.base_alike
        forecast, random = (
            np.where(rows, alike, of) for of in (self.losses.forecast, self.losses.random)
        )
        return self._replace(
            losses=self.losses._replace(forecast=forecast, random=random),
            forecasts=self.forecasts.kept(~rows),
        )


def walk_of(
    points: PointTable,
    queries: PointTable,
    search: Search,
    *,
    intraday: Timeframe,
    step_ms: Millis,
    seed: int,
    progress: Callable[[int], None] = lambda more: None,
) -> Walk:
    """Walk through a symbol's queries. Random neighbours see the same windows and filters.

    `progress` is told how many more queries are done; each is done twice.
    """
    by_chance = replace(search, vector="random")
    neighbours, random = (
        find_neighbours(points, queries, of, intraday=intraday, seed=drawn, progress=progress)
        for of, drawn in ((search, seed), (by_chance, seed + 1))
    )
    return Walk(points, queries, neighbours, random, intraday, step_ms)


def score(
    walk: Walk, rules: Mapping[str, ForecastRule], least_similarity: float | None = None
) -> list[Scored]:
    """Forecasts and losses of a walk, by horizon; the base rate where neighbours are less alike."""
    found = []
    unlike = np.zeros(len(walk.queries), np.bool_)
    if least_similarity is not None:
        unlike = walk.mean_similarity < least_similarity
    for name, rule in rules.items():
        horizon = horizon_of(walk.points, walk.queries, walk.neighbours, name, rule)
        plain = horizon_of(walk.points, walk.queries, walk.neighbours, name, _PLAIN)
        lost = losses(horizon, plain, walk.neighbours, walk.random, rule)
        made = forecast(horizon, walk.neighbours, rule)
        found.append(Scored(walk, name, rule, made, lost).abstaining(unlike))
    return found


def undirected(
    walk: Walk, rules: Mapping[str, ForecastRule], seed: int
) -> dict[str, tuple[Floats, Floats]]:
    """By horizon `losses_beside_base` of the same neighbours on outcomes whose signs are drawn by
    chance, by stretches of time.
    """
    points = signs_by_chance(walk.points, seed)
    queries = points.take(np.searchsorted(points.timestamp_ms, walk.queries.timestamp_ms))
    found = {}
    for name, rule in rules.items():
        horizon = horizon_of(points, queries, walk.neighbours, name, rule)
        found[name] = losses_beside_base(horizon, walk.neighbours, rule)
    return found


def references(scored: Scored) -> dict[Reference, Floats]:
    """Losses of what a forecast is compared with, by name."""
    return {
        "base rate": scored.losses.base,
        "base rate treated alike": scored.losses.base_alike,
        "random neighbours": scored.losses.random,
    }


def skills_of(
    scored: Scored, variant: str, *, comparisons: int = 1, reps: int, seed: int
) -> list[Skill]:
    """Skills of one symbol and horizon against all references; p-values are not adjusted yet.

    `comparisons` that are made in all: what can be detected allows for them.
    """
    return [
        _skill(scored, variant, name, of, comparisons, reps, seed)
        for name, of in references(scored).items()
    ]


def _skill(
    scored: Scored,
    variant: str,
    name: Reference,
    reference: Floats,
    comparisons: int,
    reps: int,
    seed: int,
) -> Skill:
    loss = scored.losses.forecast
    interval = significance.skill_interval(loss, reference, scored.block, reps, seed)
    known = np.isfinite(loss) & np.isfinite(reference)
    p_value = detectable = None
    if interval.low is not None:
        test = significance.diebold_mariano(loss[known], reference[known], scored.block)
        p_value = test.p_value if np.isfinite(test.p_value) else None
        better = reference[known] - loss[known]
        least = significance.minimum_detectable_effect(
            better, scored.block, level=SIGNIFICANCE_LEVEL / comparisons
        )
        detectable = least / float(reference[known].mean())
    return Skill(
        variant=variant,
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


def direction_of(scored: Scored, variant: str, *, reps: int, seed: int) -> Direction:
    made = scored.forecasts
    hits = direction_hits(made.median, made.observed)
    accuracy: Interval = significance.mean_interval(hits, scored.block, reps, seed)
    return Direction(
        variant=variant,
        symbol=scored.walk.points.symbol,
        horizon=scored.horizon,
        accuracy=accuracy,
    )
