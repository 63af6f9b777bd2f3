"""Walks through the past, and the skill of its forecasts over a volatility model and base rates.

The unit of evidence is not a query but a stretch of time: outcomes of neighbouring queries overlap
and calm follows calm. Intervals resample stretches of four horizons, at least a day, together for
a forecast and its reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from llm_trader.arrays import Floats, Mask
from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.ensembles import (
    Forecasts,
    HorizonOutcomes,
    Losses,
    all_losses,
    make_forecasts,
)
from llm_trader.evaluation.forecast.neighbour_search import Neighbours, find_neighbours
from llm_trader.evaluation.plan import ForecastRule, Search, StudyPlan
from llm_trader.evaluation.results import Direction, Reference, RegimeSkill, Skill
from llm_trader.index.points import PointTable
from llm_trader.retrieval.episodes import effective_counts
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis, Timeframe

# A block of b horizons misses 1 / (3 b) of the variance, see `significance`: 8 % at 4.
_HORIZONS_PER_BLOCK: Final = 4
# Times of 256 queries' neighbours are compared at once; all of a year's would not fit into memory.
_QUERIES_AT_ONCE: Final = 256

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Relative distance of the 4h EMAs of 20 and 50. BTC and ETH spent 26 to 43 % of 2023 in each of
# the three regimes.
_TREND: Final = 0.005
_HOURS_PER_REGIME: Final = 4


def rows_per_block(horizon: str, step_ms: Millis) -> int:
    """Steps in four horizons, and in a day at least."""
    return -(-max(_HORIZONS_PER_BLOCK * HORIZONS[horizon], DAY_MS) // step_ms)


class WalkForward(NamedTuple):
    """One symbol's queries with the neighbours that were found, and with random ones."""

    points: PointTable
    queries: PointTable
    neighbours: Neighbours
    random: Neighbours
    intraday: Timeframe
    step_ms: Millis

    def block(self, horizon: str) -> int:
        """Queries in a stretch that counts as one piece of evidence."""
        return rows_per_block(horizon, self.step_ms)

    def at_steps_of(self, step_ms: Millis) -> WalkForward:
        """With as many of its queries as lie so far apart, at least."""
        every = max(1, -(-step_ms // self.step_ms))
        some = slice(None, None, every)
        return self._replace(
            queries=self.queries.take(some),
            neighbours=self.neighbours.take(some),
            random=self.random.take(some),
            step_ms=every * self.step_ms,
        )

    @property
    def mean_similarity(self) -> Floats:
        """Mean over each query's neighbours, shape (n,); NaN where episodes are missing."""
        return np.asarray(self.neighbours.similarity.mean(axis=1, dtype=np.float64))

    def effective_episodes(self, horizon: str, neighbours: Neighbours) -> Floats:
        """How many independent outcomes neighbours are worth, (n,); NaN without all episodes."""
        times_ms, complete = self.points.timestamp_ms, neighbours.complete
        effective = np.full(len(complete), np.nan)
        for start in range(0, len(complete), _QUERIES_AT_ONCE):
            rows = start + np.flatnonzero(complete[start : start + _QUERIES_AT_ONCE])
            neighbour_times_ms = times_ms[neighbours.rows[rows]]
            (effective[rows],) = effective_counts(neighbour_times_ms, [HORIZONS[horizon]])
        return effective


class ScoredForecasts(NamedTuple):
    """A walk's forecasts at one horizon, and their losses."""

    walk: WalkForward
    horizon: str
    rule: ForecastRule
    forecasts: Forecasts
    losses: Losses
    # Of this program's own forecast, beside that of others.
    served: Floats | None = None

    @property
    def block(self) -> int:
        return self.walk.block(self.horizon)

    @property
    def symbol(self) -> str:
        return self.walk.points.symbol

    def where(self, mask: Mask) -> ScoredForecasts:
        """Losses and forecasts of the queries in `mask` (n,); NaN for the others."""
        losses = Losses(*(np.where(mask, loss, np.nan) for loss in self.losses))
        return self._replace(losses=losses, forecasts=self.forecasts.where(mask))

    def abstaining(self, mask: Mask) -> ScoredForecasts:
        """With the volatility model's loss for the queries in `mask`, (n,), and no forecast."""
        if not mask.any():
            return self
        forecast, potential, random = (
            np.where(mask, self.losses.volatility_model, loss) for loss in self.losses[:3]
        )
        losses = self.losses._replace(forecast=forecast, potential=potential, random=random)
        return self._replace(losses=losses, forecasts=self.forecasts.where(~mask))

    def references(self) -> dict[Reference, Floats]:
        """The losses that a forecast is compared with, by name."""
        references: dict[Reference, Floats] = {
            "base rate": self.losses.base,
            "rescaled base rate": self.losses.rescaled_base,
            "volatility model": self.losses.volatility_model,
            "random neighbours": self.losses.random,
        }
        if self.served is not None:
            references["served forecast"] = self.served
        return references


def walk_forward(
    points: PointTable,
    queries: PointTable,
    search: Search,
    *,
    intraday: Timeframe,
    step_ms: Millis,
    seed: int,
    progress: Callable[[int], None] = lambda queries: None,
) -> WalkForward:
    """Find the neighbours of a symbol's queries; random ones see the same windows and filters.

    `progress` is called with the number of further queries that are done; each is done twice.
    """
    neighbours, random = (
        find_neighbours(points, queries, spec, seed=draw, progress=progress)
        for spec, draw in ((search, seed), (replace(search, vector="random"), seed + 1))
    )
    return WalkForward(points, queries, neighbours, random, intraday, step_ms)


def score_forecasts(
    walk: WalkForward, rules: Mapping[str, ForecastRule], least_similarity: float | None = None
) -> list[ScoredForecasts]:
    """Forecasts and losses by horizon; the volatility model where neighbours are less similar."""
    scored = []
    dissimilar = np.zeros(len(walk.queries), np.bool_)
    if least_similarity is not None:
        dissimilar = walk.mean_similarity < least_similarity
    for name, rule in rules.items():
        tables = walk.points, walk.queries, walk.neighbours
        outcomes = HorizonOutcomes(*tables, name, rule.scale)
        losses = all_losses(*tables, walk.random, name, rule)
        forecasts = make_forecasts(outcomes, walk.neighbours, rule)
        scored.append(ScoredForecasts(walk, name, rule, forecasts, losses).abstaining(dissimilar))
    return scored


def measure_skills(
    scored: ScoredForecasts, variant: str, plan: StudyPlan, *, comparisons: int = 1
) -> list[Skill]:
    """Skills against all references; p-values are not adjusted yet.

    The potential is of the fair score. The smallest skill that can be detected allows for the
    number of `comparisons` made in all.
    """
    loss, block = scored.losses.forecast, scored.block
    level = significance.SIGNIFICANCE_LEVEL / comparisons
    skills = []
    for name, reference in scored.references().items():
        interval = significance.skill_interval(loss, reference, block, plan.reps, plan.seed)
        compared = np.isfinite(loss) & np.isfinite(reference)
        p_value = detectable = None
        if interval.low is not None:
            test = significance.diebold_mariano(loss[compared], reference[compared], block)
            p_value = test.p_value if np.isfinite(test.p_value) else None
            gain = reference[compared] - loss[compared]
            effect = significance.minimum_detectable_effect(gain, block, level=level)
            detectable = effect / float(reference[compared].mean())
        skills.append(
            Skill(
                variant=variant,
                symbol=scored.symbol,
                horizon=scored.horizon,
                reference=name,
                queries=int(compared.sum()),
                skill=interval,
                potential=_potential(scored.losses.potential, reference),
                p_value=p_value,
                p_adjusted=None,
                detectable=detectable,
                verdict=significance.verdict(interval),
            )
        )
    return skills


def _potential(loss: Floats, reference: Floats) -> float | None:
    compared = np.isfinite(loss) & np.isfinite(reference)
    if not compared.any():
        return None
    return float(1 - loss[compared].mean() / reference[compared].mean())


def measure_direction(scored: ScoredForecasts, variant: str, plan: StudyPlan) -> Direction:
    """A market that did not move, or a forecast that names no direction, counts neither way."""
    product = np.sign(scored.forecasts.median) * np.sign(scored.forecasts.observed)
    hits = np.where(product == 0, np.nan, (product + 1) / 2)
    accuracy = significance.mean_interval(hits, scored.block, plan.reps, plan.seed)
    return Direction(
        variant=variant, symbol=scored.symbol, horizon=scored.horizon, accuracy=accuracy
    )


def measure_regimes(scored: ScoredForecasts, plan: StudyPlan) -> list[RegimeSkill]:
    """Skill against the volatility model among the queries of each regime.

    The queries of a regime lie apart in time and a block counts rows, so an interval is cautious
    where a regime comes in short stretches.
    """
    resampling = scored.losses.volatility_model, scored.block, plan.reps, plan.seed
    skills = []
    for by, value, mask in regimes(scored.walk.queries):
        loss = np.where(mask, scored.losses.forecast, np.nan)
        queries = int(np.isfinite(loss).sum())
        interval = significance.skill_interval(loss, *resampling) if queries else None
        skills.append(
            RegimeSkill(
                symbol=scored.symbol,
                horizon=scored.horizon,
                by=by,
                value=value,
                queries=queries,
                skill=interval,
            )
        )
    return skills


def regimes(queries: PointTable) -> Iterator[tuple[str, str, Mask]]:
    """What divides the queries, its value, and a mask (n,) of the queries that have it."""
    volatility = queries.column("realized_volatility_24h")
    finite = volatility[np.isfinite(volatility)]
    low, high = np.quantile(finite, [1 / 3, 2 / 3]) if len(finite) else (np.nan, np.nan)
    yield "volatility", "low", volatility <= low
    yield "volatility", "middle", (volatility > low) & (volatility <= high)
    yield "volatility", "high", volatility > high
    funding = queries.column("funding_rate")
    yield "funding", "negative", funding < 0
    yield "funding", "positive", funding >= 0
    trend = queries.column("ema_ratio") - 1
    yield "trend", "down", trend < -_TREND
    yield "trend", "sideways", np.abs(trend) <= _TREND
    yield "trend", "up", trend > _TREND
    hour = queries.column("hour_of_day")
    for start in range(0, 24, _HOURS_PER_REGIME):
        end = start + _HOURS_PER_REGIME
        yield "hour (UTC)", f"{start:02d}-{end:02d}", (hour >= start) & (hour < end)
    weekday = (queries.timestamp_ms // DAY_MS + 3) % 7  # 1 January 1970 was a Thursday
    for number, name in enumerate(_WEEKDAYS):
        yield "weekday", name, weekday == number
