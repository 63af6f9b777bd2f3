"""Builds snapshots of candles, funding and open interest: one path for history and for now.

The last digits of recursive indicators such as RSI and EMA depend on where the recursion began.
Here it begins at a fixed distance before midnight of the snapshot's UTC day, or after the last
gap. So a snapshot is the same to the bit however much history is loaded, and however many
snapshots are built.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Rows, Times
from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.snapshot.indicators import Runs
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

_SERIES_OFFSETS = np.arange(-SERIES_LENGTH + 1, 1)
_WINDOWS: Final = {"1h": HOUR_MS, "4h": 4 * HOUR_MS, "24h": DAY_MS}
_AVG_VOLUME_4H_CANDLES: Final = 20


def build_snapshots(
    history: MarketHistory, as_of_ms: Times, volatility: VolatilityModel = BUILT_IN
) -> SnapshotTable:
    """Snapshots at the given increasing times, shape (n,); NaN marks unknown values.

    A snapshot uses candles that closed, funding that settled, and open interest that was published
    by its time. `source.read_history` reads a `history` that reaches far enough back; a later
    start counts as a gap. Raises `InvalidInputError` for times that do not increase.
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
        _fill_intraday(table, rows, history.intraday.between(midnight - INTRADAY_REACH_MS, end))
        _fill_four_hour(table, rows, history.four_hour.between(midnight - FOUR_HOUR_REACH_MS, end))
    table.scalars[[ROW[name] for name in EXPECTED_VOLATILITY.values()]] = expected_volatility(
        volatility, history.intraday, as_of_ms
    )
    _fill_derivatives(table, history)
    table.derive()
    return table


def _closed_rows(runs: Runs, as_of_ms: Times, warm_up: int) -> tuple[Rows, Rows, Rows]:
    """For each time, the row of the candle that closed last.

    Returns the indices of times that have this candle, the indices of times that also have a
    warm run of candles before it, and the row for every time.
    """
    row, is_present = runs.candles.last_closed(as_of_ms)
    present = np.flatnonzero(is_present)
    warm = present[runs.age[row[present]] >= warm_up]
    return present, warm, row


def _fill_intraday(table: SnapshotTable, rows: slice, candles: CandleSeries) -> None:
    runs = Runs(candles)
    present, warm, row = _closed_rows(runs, table.as_of_ms[rows], INTRADAY_WARM_UP)
    scalars, series = table.scalars[:, rows], table.series[:, rows]
    scalars[ROW["price"], present] = candles.close[row[present]]
    if not len(warm):
        return
    last_row = row[warm]
    points = last_row[:, None] + _SERIES_OFFSETS
    for name, values_name, values in (
        ("price", "mid_prices", candles.close),
        ("rsi_7", "rsi_7_values", runs.rsi(7)),
        ("rsi_14", "rsi_14_values", runs.rsi(14)),
        ("macd", "macd_values", runs.macd()),
        ("ema_20", "ema_20_values", runs.ema(20)),
    ):
        scalars[ROW[name], warm] = values[last_row]
        series[SERIES_ROW[values_name], warm] = values[points]
    _fill_windows(scalars, warm, last_row, runs)


def _fill_windows(scalars: Floats, warm: Rows, last_row: Rows, runs: Runs) -> None:
    """Changes, volatilities and volumes over the last 1, 4 and 24 hours."""
    candles = runs.candles
    squared = candles.squared_log_returns()
    volume_sums: dict[str, Floats] = {}
    for name, window_ms in _WINDOWS.items():
        count = window_ms // candles.timeframe.ms
        is_long_enough = runs.age[last_row] > count
        targets, end = warm[is_long_enough], last_row[is_long_enough]
        start_price = candles.close[end - count]
        scalars[ROW[f"price_change_{name}"], targets] = (candles.close[end] / start_price - 1) * 100
        window = end[:, None] + np.arange(-count + 1, 1)
        variance = squared[window].sum(axis=1)
        scalars[ROW[f"realized_volatility_{name}"], targets] = np.sqrt(variance) * 100
        volume_sums[name] = np.full(len(last_row), np.nan)
        volume_sums[name][is_long_enough] = candles.volume[window].sum(axis=1)
    day = volume_sums["24h"]
    ratio = np.full(len(last_row), np.nan)
    np.divide(volume_sums["1h"], day / 24, out=ratio, where=day > 0)
    scalars[ROW["volume_ratio"], warm] = ratio


def _fill_four_hour(table: SnapshotTable, rows: slice, candles: CandleSeries) -> None:
    runs = Runs(candles)
    _, warm, row = _closed_rows(runs, table.as_of_ms[rows], FOUR_HOUR_WARM_UP)
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
    ):
        scalars[ROW[name], warm] = values
    points = last_row[:, None] + _SERIES_OFFSETS
    series[SERIES_ROW["macd_4h_values"], warm] = macd[points]
    series[SERIES_ROW["rsi_14_4h_values"], warm] = rsi[points]


def _fill_derivatives(table: SnapshotTable, history: MarketHistory) -> None:
    interest, interval_ms = history.open_interest, history.open_interest_interval_ms
    scalars, as_of_ms = table.scalars, table.as_of_ms
    scalars[ROW["funding_rate"]] = history.funding.rate_at(as_of_ms)
    scalars[ROW["open_interest_latest"]] = interest.latest_at(as_of_ms, interval_ms)
    scalars[ROW["open_interest_avg_24h"]] = interest.mean_over(as_of_ms, DAY_MS, interval_ms)
