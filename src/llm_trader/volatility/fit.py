"""Fits a volatility model to candles: hour factors, then least squares of log variances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.errors import InvalidInputError
from llm_trader.market.candle_runs import CandleRuns
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis
from llm_trader.volatility.expected import (
    UNIT_MS,
    VARIANCE_FLOOR,
    deseasonalised_squares,
    regressors,
    with_weekend_ahead,
)
from llm_trader.volatility.model import HOURS_PER_DAY, TERMS, VolatilityModel

# With fewer the five windows, which move together, cannot be told from each other.
MIN_DAYS: Final = 60
# An hour without a trade, whose logarithm must be finite.
_HOUR_VARIANCE_FLOOR: Final = 1e-12


def fit_model(
    candles: Sequence[CandleSeries], start_ms: Millis, end_ms: Millis, step_ms: Millis
) -> VolatilityModel:
    """A model of the symbols' candles, with equal weight for each state, pooled.

    States lie on the grid of `step_ms` from `start_ms` on; the last one is known a day before
    `end_ms`, so that nothing after `end_ms` is used. Raises `InvalidInputError` where fewer than
    `MIN_DAYS` days of states have all windows and outcomes.
    """
    known = [series.known_at(end_ms) for series in candles]
    used = [series for series in known if len(series.between(start_ms, None))]
    hour_factors = _hour_factors([series.between(start_ms, None) for series in used])
    times = np.arange(start_ms + -start_ms % step_ms, end_ms - DAY_MS + 1, step_ms, dtype=np.int64)
    draft = VolatilityModel(
        hour_factors=hour_factors, coefficients=dict.fromkeys(HORIZONS, (0.0,) * TERMS)
    )
    runs = [CandleRuns(series, max_hole_candles=0) for series in used]
    terms = np.concatenate([regressors(draft, series, times) for series in runs], axis=1)
    pooled_times = np.tile(times, len(used))
    coefficients = {}
    for name, horizon_ms in HORIZONS.items():
        target = np.concatenate(
            [_log_variance_ahead(hour_factors, series, times, horizon_ms) for series in used]
        )
        equation = with_weekend_ahead(terms, pooled_times, horizon_ms)
        complete = np.isfinite(target) & np.isfinite(equation).all(axis=0)
        if complete.sum() * step_ms < MIN_DAYS * DAY_MS:
            raise InvalidInputError(
                f"only {complete.sum() * step_ms / DAY_MS:.0f} days of states have all windows and "
                f"the {name} after them; a volatility model needs {MIN_DAYS}: import more candles"
            )
        solution, *_ = np.linalg.lstsq(equation[:, complete].T, target[complete], rcond=None)
        coefficients[name] = tuple(round(float(value), 4) for value in solution)
    known_by_ms = max(int(series.open_time_ms[-1]) + series.timeframe.ms for series in used)
    return VolatilityModel(
        hour_factors=hour_factors, coefficients=coefficients, known_by_ms=known_by_ms
    )


def _hour_factors(candles: Sequence[CandleSeries]) -> tuple[float, ...]:
    """The geometric mean of each hour's variance over the days, of mean 1 over the hours.

    An arithmetic mean would be that of the few hours with the greatest moves.
    """
    sums, counts = np.zeros(HOURS_PER_DAY), np.zeros(HOURS_PER_DAY)
    for series in candles:
        hours, variances = _whole_hours(series)
        logs = np.log(np.maximum(variances, _HOUR_VARIANCE_FLOOR))
        hour_of_day = hours % HOURS_PER_DAY
        # Less the symbol's mean, or an hour in which a calm symbol has gaps would look wild.
        sums += np.bincount(hour_of_day, logs - logs.mean(), HOURS_PER_DAY)
        counts += np.bincount(hour_of_day, minlength=HOURS_PER_DAY)
    if not counts.all():
        raise InvalidInputError(
            "an hour of the day has no candles at all, so its factor is unknown; import more"
        )
    factors = np.exp(sums / counts)
    return tuple(round(float(factor), 4) for factor in factors / factors.mean())


def _whole_hours(candles: CandleSeries) -> tuple[Times, Floats]:
    """The hours since 1970 that have every candle, and their mean squared returns."""
    squared = deseasonalised_squares((1.0,) * HOURS_PER_DAY, candles)
    known = np.isfinite(squared)
    hours, start, counts = np.unique(
        candles.open_time_ms[known] // HOUR_MS, return_index=True, return_counts=True
    )
    means = np.add.reduceat(squared[known], start) / counts
    whole = counts >= HOUR_MS // candles.timeframe.ms - 1
    return hours[whole], means[whole]


def _log_variance_ahead(
    hour_factors: tuple[float, ...], candles: CandleSeries, times: Times, horizon_ms: Millis
) -> Floats:
    """Log of the mean squared 5-minute return of the coming horizon; NaN where candles lack."""
    squared = np.nan_to_num(deseasonalised_squares(hour_factors, candles))
    total = np.concatenate([[0.0], np.cumsum(squared)])
    # The first return starts from the close of the candle before `as_of`.
    row, present = candles.last_closed(times)
    count = horizon_ms // candles.timeframe.ms
    gapless, start_row = candles.followed_by(row, np.flatnonzero(present), count)
    rows = start_row + 1
    variance = (total[rows + count] - total[rows]) / (horizon_ms / UNIT_MS)
    target = np.full(len(times), np.nan)
    target[gapless] = np.log(np.maximum(variance, VARIANCE_FLOOR))
    return target
