"""Where the skill is: by regime of volatility, funding and trend, by hour and by weekday."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from llm_trader.arrays import Mask
from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.skills import ScoredForecasts
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import RegimeSkill
from llm_trader.index.points import PointTable
from llm_trader.timeframe import DAY_MS

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Relative distance of the 4h EMAs of 20 and 50. BTC and ETH spent 26 to 43 % of 2023 in each of
# the three regimes.
_TREND: Final = 0.005
_HOURS_PER_REGIME: Final = 4


def measure_regimes(scored: ScoredForecasts, plan: StudyPlan) -> list[RegimeSkill]:
    """Skill against the volatility-rescaled base rate among the queries of each regime.

    The queries of a regime lie apart in time and a block counts rows, so an interval is cautious
    where a regime comes in short stretches.
    """
    skills = []
    for by, value, mask in regimes(scored.walk.queries):
        loss = np.where(mask, scored.losses.forecast, np.nan)
        queries = int(np.isfinite(loss).sum())
        interval = None
        if queries:
            interval = significance.skill_interval(
                loss, scored.losses.rescaled_base, scored.block, plan.reps, plan.seed
            )
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
    known = volatility[np.isfinite(volatility)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if len(known) else (np.nan, np.nan)
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
