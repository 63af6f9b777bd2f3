"""Builds snapshots of candles, funding and open interest: one path for history and for now.

The last digits of recursive indicators such as RSI and EMA depend on where the recursion began.
Here it begins at a fixed distance before midnight of the snapshot's UTC day, or after the last
long hole. So a snapshot is the same to the bit however much history is loaded, and however many
snapshots are built.

Across short holes, indicators go on from candle to candle, and windows reach back by time. A return
across a hole is the one of the time that it lasted; prices in it are not made up. Each snapshot
says how many candles it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Rows, Times
from llm_trader.errors import InvalidInputError
from llm_trader.market.candle_runs import CandleRuns, window_sums
from llm_trader.market.history import MarketHistory
from llm_trader.snapshot.config import MAX_HOLE_CANDLES
from llm_trader.snapshot.indicators import IndicatorRuns
from llm_trader.snapshot.model import EXPECTED_VOLATILITY, SERIES_LENGTH
from llm_trader.snapshot.table import ROW, SERIES_ROW, SnapshotTable
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis
from llm_trader.volatility.expected import expected_volatility
from llm_trader.volatility.model import BUILT_IN, LONGEST_WINDOW_MS, VolatilityModel

# Candles. After 300, RSI(14) has forgotten its start to 1 part in 10^9; after 150, to 1 in 25,000.
INTRADAY_WARM_UP: Final = 300
# EMA(50) starts at a mean of 50 candles. That start weighs 6 % after 120 candles, 67 % after 60.
FOUR_HOUR_WARM_UP: Final = 120

# The distance before midnight at which a day's recursion begins: 576 candles of 5 minutes and 360
# of 4 hours. It exceeds the warm-up, so most states survive a gap that is some days old.
INTRADAY_REACH_MS: Final[Millis] = 2 * DAY_MS
FOUR_HOUR_REACH_MS: Final[Millis] = 60 * DAY_MS
# Expected volatility needs a week of returns, and so one close before it.
VOLATILITY_REACH_MS: Final[Millis] = LONGEST_WINDOW_MS + HOUR_MS

_SERIES_STEPS: Final = np.arange(SERIES_LENGTH - 1, -1, -1)
_WINDOWS: Final = {"1h": HOUR_MS, "4h": 4 * HOUR_MS, "24h": DAY_MS}
_AVG_VOLUME_4H_CANDLES: Final = 20


@dataclass(frozen=True, slots=True)
class SnapshotRules:
    """What snapshots depend on beside the market: where two differ, so do the snapshots."""

    volatility: VolatilityModel = BUILT_IN
    max_hole_candles: int = MAX_HOLE_CANDLES


DEFAULT_RULES: Final = SnapshotRules()


def build_snapshots(
    history: MarketHistory, as_of_ms: Times, rules: SnapshotRules = DEFAULT_RULES
) -> SnapshotTable:
    """Snapshots at the given increasing times, shape (n,); NaN marks unknown values.

    A snapshot uses candles that closed, funding that settled, and open interest that was published
    by its time. `source.read_history` reads a `history` that reaches far enough back; a later
    start counts as a long hole. Raises `InvalidInputError` for times that do not increase.
    """
    as_of_ms = np.ascontiguousarray(as_of_ms, dtype=np.int64)
    if (np.diff(as_of_ms) <= 0).any():
        raise InvalidInputError("snapshot times must increase")
    table = SnapshotTable.unknown(history.symbol, history.intraday.timeframe, as_of_ms)
    day = as_of_ms // DAY_MS
    starts = np.flatnonzero(np.diff(day, prepend=-1))
    for first, last in zip(starts, np.append(starts, len(day))[1:], strict=True):
        midnight, end = int(day[first]) * DAY_MS, int(as_of_ms[last - 1])
        rows = slice(first, last)
        intraday = history.intraday.between(midnight - INTRADAY_REACH_MS, end)
        four_hour = history.four_hour.between(midnight - FOUR_HOUR_REACH_MS, end)
        _fill_intraday(table, rows, IndicatorRuns(intraday, rules.max_hole_candles))
        _fill_four_hour(table, rows, IndicatorRuns(four_hour, rules.max_hole_candles))
    _fill_from_week(table, CandleRuns(history.intraday, rules.max_hole_candles), rules.volatility)
    _fill_derivatives(table, history)
    table.derive()
    return table


def _fill_intraday(table: SnapshotTable, rows: slice, runs: IndicatorRuns) -> None:
    candles = runs.candles
    present, warm, row = runs.last_closed(table.as_of_ms[rows], INTRADAY_WARM_UP)
    scalars, series = table.scalars[:, rows], table.series[:, rows]
    scalars[ROW["price"], present] = candles.close[row[present]]
    if not len(warm):
        return
    last_row = row[warm]
    points = runs.rows_before(last_row, _SERIES_STEPS * candles.timeframe.ms)
    for name, values_name, values in (
        ("price", "mid_prices", candles.close),
        ("rsi_7", "rsi_7_values", runs.rsi(7)),
        ("rsi_14", "rsi_14_values", runs.rsi(14)),
        ("macd", "macd_values", runs.macd()),
        ("ema_20", "ema_20_values", runs.ema(20)),
    ):
        scalars[ROW[name], warm] = values[last_row]
        series[SERIES_ROW[values_name], warm] = _values_at(values, points)
    _fill_windows(scalars, warm, last_row, runs)


def _values_at(values: Floats, rows: Rows) -> Floats:
    """The values of rows; NaN for a row of -1."""
    return np.where(rows < 0, np.nan, values[rows])


def _fill_windows(scalars: Floats, warm: Rows, last_row: Rows, runs: IndicatorRuns) -> None:
    """Changes, volatilities and volumes over the last 1, 4 and 24 hours."""
    candles = runs.candles
    squared = candles.squared_log_returns()
    volume_sums: dict[str, Floats] = {}
    for name, window_ms in _WINDOWS.items():
        count = window_ms // candles.timeframe.ms
        places, start_row = runs.windows(last_row, window_ms)
        targets, end = warm[places], last_row[places]
        start_price = candles.close[start_row]
        scalars[ROW[f"price_change_{name}"], targets] = (candles.close[end] / start_price - 1) * 100
        variance = window_sums(squared, start_row, end, count)
        scalars[ROW[f"realized_volatility_{name}"], targets] = np.sqrt(variance) * 100
        # As if the missing candles had the mean volume of the others; exactly 1 without a hole.
        per_missing = count / (end - start_row)
        volume_sums[name] = np.full(len(last_row), np.nan)
        volume = window_sums(candles.volume, start_row, end, count)
        volume_sums[name][places] = volume * per_missing
    day = volume_sums["24h"]
    ratio = np.full(len(last_row), np.nan)
    np.divide(volume_sums["1h"], day / 24, out=ratio, where=day > 0)
    scalars[ROW["volume_ratio"], warm] = ratio


def _fill_four_hour(table: SnapshotTable, rows: slice, runs: IndicatorRuns) -> None:
    candles = runs.candles
    _, warm, row = runs.last_closed(table.as_of_ms[rows], FOUR_HOUR_WARM_UP)
    if not len(warm):
        return
    scalars, series = table.scalars[:, rows], table.series[:, rows]
    last_row, macd, rsi = row[warm], runs.macd(), runs.rsi(14)
    volumes = candles.volume[last_row[:, None] + np.arange(-_AVG_VOLUME_4H_CANDLES + 1, 1)]
    for name, values in (
        ("ema_20_4h", runs.ema(20)[last_row]),
        ("ema_50_4h", runs.ema(50)[last_row]),
        ("atr_3_4h", runs.atr(3)[last_row]),
        ("atr_14_4h", runs.atr(14)[last_row]),
        ("macd_4h", macd[last_row]),
        ("rsi_14_4h", rsi[last_row]),
        ("current_volume_4h", candles.volume[last_row]),
        ("avg_volume_4h", volumes.mean(axis=1)),
        ("missing_candles_4h", runs.missing(last_row - FOUR_HOUR_WARM_UP + 1, last_row)),
    ):
        scalars[ROW[name], warm] = values
    points = runs.rows_before(last_row, _SERIES_STEPS * candles.timeframe.ms)
    series[SERIES_ROW["macd_4h_values"], warm] = _values_at(macd, points)
    series[SERIES_ROW["rsi_14_4h_values"], warm] = _values_at(rsi, points)


def _fill_from_week(table: SnapshotTable, runs: CandleRuns, volatility: VolatilityModel) -> None:
    """Expected volatilities, and the number of candles that the week before lacks."""
    expected = expected_volatility(volatility, runs, table.as_of_ms)
    table.scalars[[ROW[name] for name in EXPECTED_VOLATILITY.values()]] = expected
    present, _, row = runs.last_closed(table.as_of_ms, 1)
    missing = runs.missing_before(row[present], LONGEST_WINDOW_MS)
    table.scalars[ROW["missing_candles"], present] = missing


def _fill_derivatives(table: SnapshotTable, history: MarketHistory) -> None:
    interest, interval_ms = history.open_interest, history.open_interest_interval_ms
    scalars, as_of_ms = table.scalars, table.as_of_ms
    scalars[ROW["funding_rate"]] = history.funding.rate_at(as_of_ms)
    scalars[ROW["funding_interval_hours"]] = history.funding.interval_hours_at(as_of_ms)
    scalars[ROW["open_interest_latest"]] = interest.latest_at(as_of_ms, interval_ms)
    scalars[ROW["open_interest_avg_24h"]] = interest.mean_over(as_of_ms, DAY_MS, interval_ms)
