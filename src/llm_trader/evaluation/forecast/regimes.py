"""Where the skill is: by regime of volatility, funding and trend, by hour and by weekday."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from llm_trader.arrays import Mask
from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.skills import Scored
from llm_trader.evaluation.results import RegimeSkill
from llm_trader.index.points import PointTable
from llm_trader.timeframe import DAY_MS

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TREND: Final = 0.005
_HOURS: Final = 4


def slices_of(scored: Scored, *, reps: int, seed: int) -> list[RegimeSkill]:
    """Skill against the base rate treated alike among the queries of each regime.

    Those chosen lie apart in time, and a block is of rows: an interval is cautious where a regime
    comes in short stretches.
    """
    found = []
    for by, value, chosen in regimes(scored.walk.queries):
        loss = np.where(chosen, scored.losses.forecast, np.nan)
        known = int(np.isfinite(loss).sum())
        interval = None
        if known:
            interval = significance.skill_interval(
                loss, scored.losses.base_alike, scored.block, reps, seed
            )
        found.append(
            RegimeSkill(
                symbol=scored.walk.points.symbol,
                horizon=scored.horizon,
                by=by,
                value=value,
                queries=known,
                skill=interval,
            )
        )
    return found


def regimes(queries: PointTable) -> Iterator[tuple[str, str, Mask]]:
    """What divides the queries, its value, and who has it, shape (n,)."""
    volatility = queries.column("realized_volatility_24h")
    known = volatility[np.isfinite(volatility)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if len(known) else (np.nan, np.nan)
    yield "volatility", "low", volatility <= low
    yield "volatility", "middle", (volatility > low) & (volatility <= high)
    yield "volatility", "high", volatility > high
    funding = queries.column("funding_rate")
    yield "funding", "negative", funding < 0
    yield "funding", "positive", funding >= 0
    ratio = queries.column("ema_ratio") - 1
    yield "trend", "down", ratio < -_TREND
    yield "trend", "sideways", np.abs(ratio) <= _TREND
    yield "trend", "up", ratio > _TREND
    hour = queries.column("hour_of_day")
    for start in range(0, 24, _HOURS):
        within = (hour >= start) & (hour < start + _HOURS)
        yield "hour (UTC)", f"{start:02d}-{start + _HOURS:02d}", within
    weekday = (queries.timestamp_ms // DAY_MS + 3) % 7  # 1 January 1970 was a Thursday
    for number, name in enumerate(_WEEKDAYS):
        yield "weekday", name, weekday == number
