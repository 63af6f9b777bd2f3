"""Expected volatility at `as_of`, in %, from the candles that had closed by then.

Every value depends on the candles of its own windows and on the calendar alone, in one order of
summation: a live value and one of a year computed at once are equal to the bit. Windows are
lengths of time, so candles of 1, 3 and 5 minutes mean the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Rows, Times
from llm_trader.market.candle_runs import CandleRuns, window_sums
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, MINUTE_MS, Millis, Timeframe
from llm_trader.volatility.model import LONGEST_WINDOW_MS, TERMS, WINDOWS, VolatilityModel

# Variances are of a 5-minute return, whatever the candles; the constants are in this unit.
UNIT_MS: Final = 5 * MINUTE_MS
# A window without a trade has a variance of 0, whose logarithm must be finite.
VARIANCE_FLOOR: Final = 1e-9

_WEEK_MS: Final = 7 * DAY_MS
# 1 January 1970 was a Thursday.
_EPOCH_IN_WEEK_MS: Final = 3 * DAY_MS
_WEEKEND: Final = np.repeat([0.0, 1.0], [5 * 24, 2 * 24])


def expected_volatility(model: VolatilityModel, runs: CandleRuns, as_of_ms: Times) -> Floats:
    """Expected volatility of each horizon in %, shape (horizons, n), rows as in `HORIZONS`.

    NaN where the last 7 days are no run of candles at `as_of_ms` (n,), or the candle at the start
    of a window is missing, and at times before all that the model was fitted to was known.
    """
    terms = regressors(model, runs, as_of_ms)
    expected = np.empty((len(HORIZONS), len(as_of_ms)))
    for row, (name, horizon_ms) in enumerate(HORIZONS.items()):
        equation = with_weekend_ahead(terms, as_of_ms, horizon_ms)
        # Term by term: a matrix product may sum another number of rows in another order.
        log_variance = np.zeros(len(as_of_ms))
        for coefficient, term in zip(model.coefficients[name], equation, strict=True):
            log_variance += coefficient * term
        factor = mean_over(_hour_of_week_factors(model), as_of_ms, horizon_ms)
        variance = np.exp(log_variance) * factor * (horizon_ms / UNIT_MS)
        expected[row] = 100 * np.sqrt(variance)
    expected[:, ~model.known_at(as_of_ms)] = np.nan
    return expected


def regressors(model: VolatilityModel, runs: CandleRuns, as_of_ms: Times) -> Floats:
    """The terms of a model's equations at each time, shape (terms, n), in the order of a model.

    The weekend share of the coming horizon is NaN here: it is another one for each horizon.
    """
    terms = np.full((TERMS, len(as_of_ms)), np.nan)
    variances = window_variances(model.hour_factors, runs, as_of_ms)
    terms[0] = 1.0
    terms[1 : 1 + len(WINDOWS)] = np.log(np.maximum(variances, VARIANCE_FLOOR))
    terms[-1] = mean_over(_WEEKEND, as_of_ms - DAY_MS, DAY_MS)
    return terms


def with_weekend_ahead(terms: Floats, as_of_ms: Times, horizon_ms: Millis) -> Floats:
    """The terms of one horizon's equation."""
    complete = terms.copy()
    complete[-2] = mean_over(_WEEKEND, as_of_ms, horizon_ms)
    return complete


def window_variances(hour_factors: tuple[float, ...], runs: CandleRuns, as_of_ms: Times) -> Floats:
    """Mean squared 5-minute returns of each window before each time, shape (windows, n).

    Each squared return is divided by the factor of the hour in which its candle opened. A return
    across a hole counts like the returns that are missing, whose sum it is. NaN where the candle
    that closed at the start of a window is missing, or too many in it are.
    """
    squared = deseasonalised_squares(hour_factors, runs.candles)
    present, _, row = runs.last_closed(as_of_ms, 1)
    last_row = row[present]
    variances = np.full((len(WINDOWS), len(as_of_ms)), np.nan)
    for number, window_ms in enumerate(WINDOWS.values()):
        places, start_row = runs.windows(last_row, window_ms)
        sums = _sums_over(squared, start_row, last_row[places], window_ms, runs.candles.timeframe)
        if window_ms == LONGEST_WINDOW_MS:
            sums[~runs.is_dense(start_row, last_row[places])] = np.nan
        variances[number, present[places]] = sums / (window_ms / UNIT_MS)
    return variances


def _sums_over(
    values: Floats, start_row: Rows, last_row: Rows, window_ms: Millis, candle: Timeframe
) -> Floats:
    """The sums of windows; a gapless week is the sum of its days.

    Neighbouring times share nearly all of a week's days, so each is summed once.
    """
    count = window_ms // candle.ms
    if window_ms <= DAY_MS:
        return window_sums(values, start_row, last_row, count)
    sums = np.empty(len(last_row))
    is_gapless = last_row - start_row == count
    holed = ~is_gapless
    sums[holed] = window_sums(values, start_row[holed], last_row[holed], count)
    per_day = DAY_MS // candle.ms
    ends = last_row[is_gapless] - per_day * np.arange(window_ms // DAY_MS)[:, None]
    distinct, place = np.unique(ends, return_inverse=True)
    days = window_sums(values, distinct - per_day, distinct, per_day)[place.reshape(ends.shape)]
    total = days[0].copy()
    for day in days[1:]:
        total += day
    sums[is_gapless] = total
    return sums


def deseasonalised_squares(hour_factors: tuple[float, ...], candles: CandleSeries) -> Floats:
    """Squared log returns divided by the factor of their hour, shape (n,); NaN for the first."""
    hours = candles.open_time_ms // HOUR_MS % 24
    deseasonalised: Floats = candles.squared_log_returns() / np.asarray(hour_factors)[hours]
    return deseasonalised


def mean_over(by_hour_of_week: Floats, start_ms: Times, length_ms: Millis) -> Floats:
    """The mean of a value by hour of the week, Monday first, over a length of time, shape (n,).

    The length is at most a week.
    """
    two_weeks = np.tile(by_hour_of_week, 2)
    integral = np.concatenate([[0.0], np.cumsum(two_weeks)])
    begin = (start_ms + _EPOCH_IN_WEEK_MS) % _WEEK_MS
    ends = []
    for time_ms in (begin, begin + length_ms):
        hour = time_ms // HOUR_MS
        # At the very end of the second week the hour has not begun, and any value will do.
        value = two_weeks[hour % len(two_weeks)]
        ends.append(integral[hour] + value * (time_ms % HOUR_MS / HOUR_MS))
    mean: Floats = (ends[1] - ends[0]) / (length_ms / HOUR_MS)
    return mean


def _hour_of_week_factors(model: VolatilityModel) -> Floats:
    return np.tile(model.hour_factors, 7)
