"""Runs of candles that go on across short holes, and windows of time in them.

Nothing is put into a hole: a value is computed of the candles that are there, and windows reach
back by time, not by a number of rows.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Mask, Rows, Times
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import Millis

# The share of its candles that a stretch of time must have to be computed across its holes.
MIN_PRESENT_SHARE: Final = 0.9
# 256 windows of a day of 5-minute candles take 0.6 MB and stay in the processor's cache.
_WINDOWS_AT_ONCE: Final = 256


class CandleRuns:
    """Candles and their runs, in which no hole is longer than `max_hole_candles`.

    `first_row` (n,) is the row of each candle at which its run begins.
    """

    def __init__(self, candles: CandleSeries, max_hole_candles: int) -> None:
        starts = candles.segment_starts(max_hole_candles)
        ends = np.append(starts, len(candles))[1:]
        self.candles = candles
        self.bounds = list(zip(starts.tolist(), ends.tolist(), strict=True))
        self.first_row = np.repeat(starts, ends - starts)

    def last_closed(self, as_of_ms: Times, warm_up: int) -> tuple[Rows, Rows, Rows]:
        """For each time, the row of the candle that closed last.

        Returns the indices of times that have this candle, the indices of times that also have
        `warm_up` candles of one run up to it, few of them missing, and the row for every time.
        """
        row, is_present = self.candles.last_closed(as_of_ms)
        present = np.flatnonzero(is_present)
        last_row = row[present]
        start_row = last_row - warm_up + 1
        warm = start_row >= self.first_row[last_row]
        warm[warm] = self.is_dense(start_row[warm], last_row[warm])
        return present, present[warm], row

    def windows(self, last_row: Rows, window_ms: Millis) -> tuple[Rows, Rows]:
        """The windows up to each row of which both ends are there, in one run.

        Returns their places in `last_row`, and the rows that closed `window_ms` earlier; one is
        that many candles back where the window has no hole.
        """
        start_row = self.rows_before(last_row, np.array([window_ms]))[:, 0]
        places = np.flatnonzero(start_row >= self.first_row[last_row])
        return places, start_row[places]

    def rows_before(self, last_row: Rows, distances_ms: Times) -> Rows:
        """The rows that closed at given distances before each row, (n, distances); -1: missing."""
        times, step_ms = self.candles.open_time_ms, self.candles.timeframe.ms
        rows = last_row[:, None] - distances_ms // step_ms
        wanted_ms = times[last_row][:, None] - distances_ms
        elsewhere = (rows < 0) | (times[np.maximum(rows, 0)] != wanted_ms)
        if elsewhere.any():
            # The last candle is no earlier than what is wanted, so there is such a row.
            found = np.searchsorted(times, wanted_ms[elsewhere])
            rows[elsewhere] = np.where(times[found] == wanted_ms[elsewhere], found, -1)
        return rows

    def missing_before(self, last_row: Rows, window_ms: Millis) -> Floats:
        """How many candles the run of each row lacks in the window up to it, shape (n,)."""
        times = self.candles.open_time_ms
        start_row = np.searchsorted(times, times[last_row] - window_ms)
        return self.missing(np.maximum(start_row, self.first_row[last_row]), last_row)

    def missing(self, start_row: Rows, last_row: Rows) -> Floats:
        """How many candles are missing between two rows, shape (n,)."""
        times, step_ms = self.candles.open_time_ms, self.candles.timeframe.ms
        steps = (times[last_row] - times[start_row]) // step_ms
        return (steps - (last_row - start_row)).astype(np.float64)

    def is_dense(self, start_row: Rows, last_row: Rows) -> Mask:
        """Whether most of the candles between two rows are there, shape (n,)."""
        there = last_row - start_row
        missing = self.missing(start_row, last_row)
        return np.asarray(there >= MIN_PRESENT_SHARE * (there + missing))


def window_sums(values: Floats, start_row: Rows, last_row: Rows, count: int) -> Floats:
    """Sums of the values after each start row up to its last row, shape (n,).

    Windows without a hole have `count` values. Each is summed on its own: a running sum would make
    a sum depend on how much history was loaded before it.
    """
    sums = np.empty(len(last_row))
    is_gapless = last_row - start_row == count
    gapless = np.flatnonzero(is_gapless)
    for first in range(0, len(gapless), _WINDOWS_AT_ONCE):
        part = gapless[first : first + _WINDOWS_AT_ONCE]
        sums[part] = values[last_row[part, None] + np.arange(-count + 1, 1)].sum(axis=1)
    for place in np.flatnonzero(~is_gapless).tolist():
        sums[place] = values[start_row[place] + 1 : last_row[place] + 1].sum()
    return sums
