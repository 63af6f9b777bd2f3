"""Candles on contiguous arrays: validation, gaps and slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Mask, Rows, Times
from llm_trader.market.series import Refusals, TimeSeries, contiguous_columns
from llm_trader.timeframe import Millis, Timeframe

CANDLE_FIELDS: Final = ("open", "high", "low", "close", "volume")
_NO_TIMES: Final = np.empty(0, np.int64)


class Gap(NamedTuple):
    """Missing candles: the first one's open time, the open time after the last one, how many."""

    start_ms: Millis
    end_ms: Millis
    missing: int


@dataclass(frozen=True, slots=True, eq=False)
class CandleSeries(TimeSeries):
    """Candles of one symbol and timeframe, strictly increasing by open time, gaps allowed.

    All arrays have the shape (n,). A candle opens at `open_time_ms` and is known from
    `open_time_ms + timeframe.ms` on. Prices are in quote currency, volume in base units.

    `jumps_ms` are the open times of the candles at which a jump arrives that nobody has accepted
    (`jumps.py`); a history that is read from a store has them. Like a hole, a jump ends a run.
    """

    time_field: ClassVar[str] = "open_time_ms"
    value_fields: ClassVar[tuple[str, ...]] = CANDLE_FIELDS

    timeframe: Timeframe
    open_time_ms: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    jumps_ms: Times = field(default_factory=lambda: _NO_TIMES, kw_only=True)

    @classmethod
    def validated(
        cls, timeframe: Timeframe, columns: Mapping[str, npt.ArrayLike], label: str = "candles"
    ) -> CandleSeries:
        """Build from columns `open_time_ms open high low close volume`, each of shape (n,).

        Raises `InvalidDataError` with a count per reason when any candle is unsorted,
        duplicated, off the grid, not finite, or contradicts itself. Nothing is repaired.
        """
        times, values = contiguous_columns(columns, cls.time_field, CANDLE_FIELDS, label)
        series = cls(timeframe, times, *values)
        return series.checked(label, _refusals(series))

    def differ_from_previous(self) -> Mask:
        """Which candles differ from the one before in any price or in volume; the first does."""
        differ = np.ones(len(self), np.bool_)
        columns = np.array([column for _, column in self.columns()])
        differ[1:] = (columns[:, 1:] != columns[:, :-1]).any(axis=0)
        return differ

    def known_at(self, as_of_ms: Millis) -> CandleSeries:
        """The candles that had closed at `as_of_ms`."""
        return self.between(None, as_of_ms - self.timeframe.ms + 1)

    def with_jumps(self, jumps_ms: Times) -> CandleSeries:
        """The same candles with other unaccepted jumps."""
        if not len(jumps_ms) and not len(self.jumps_ms):
            return self
        series = replace(self, jumps_ms=jumps_ms)
        object.__setattr__(series, "is_validated", self.is_validated)
        return series

    def gaps(self) -> list[Gap]:
        return gaps_between(self.open_time_ms, self.timeframe)

    def last_closed(self, as_of_ms: Times) -> tuple[Rows, Mask]:
        """The row of the candle that closed last at each time, and whether the series has it."""
        last_open_ms = as_of_ms - as_of_ms % self.timeframe.ms - self.timeframe.ms
        row = np.searchsorted(self.open_time_ms, last_open_ms)
        present = row < len(self)
        present[present] = self.open_time_ms[row[present]] == last_open_ms[present]
        return row, present

    def followed_by(self, row: Rows, places: Rows, count: int) -> tuple[Rows, Rows]:
        """The places in `row` whose candles `count` others follow, and their rows.

        There is no gap among them, and no unaccepted jump arrives at those that follow.
        """
        inside = places[row[places] + count < len(self)]
        start_row = row[inside]
        span_ms = self.open_time_ms[start_row + count] - self.open_time_ms[start_row]
        unbroken = span_ms == count * self.timeframe.ms
        if len(self.jumps_ms):
            unbroken &= self.jumps_up_to(start_row) == self.jumps_up_to(start_row + count)
        return inside[unbroken], start_row[unbroken]

    def closed_later(self, row: Rows, places: Rows, distance_ms: Millis) -> tuple[Rows, Rows, Rows]:
        """The places in `row` for which a candle closed that much later, their rows and its.

        Holes between them do not matter, but no unaccepted jump may arrive there.
        """
        start_row = row[places]
        later_ms = self.open_time_ms[start_row] + distance_ms
        end_row = np.searchsorted(self.open_time_ms, later_ms)
        found = end_row < len(self)
        found[found] = self.open_time_ms[end_row[found]] == later_ms[found]
        if len(self.jumps_ms):
            found[found] = self.jumps_up_to(start_row[found]) == self.jumps_up_to(end_row[found])
        return places[found], start_row[found], end_row[found]

    def squared_log_returns(self) -> Floats:
        """By the close of each candle and the one in the row before it, (n,); NaN for the first."""
        squared: Floats = np.square(np.diff(np.log(self.close), prepend=np.nan))
        return squared

    def segment_starts(self, max_hole_candles: int = 0) -> npt.NDArray[np.intp]:
        """Rows that open a run: row 0, and each after a longer hole or at an unaccepted jump."""
        if not len(self):
            return np.empty(0, np.intp)
        longest_step_ms = (max_hole_candles + 1) * self.timeframe.ms
        begins = np.diff(self.open_time_ms, prepend=-longest_step_ms) > longest_step_ms
        if len(self.jumps_ms):
            begins |= np.isin(self.open_time_ms, self.jumps_ms)
        return np.flatnonzero(begins)

    def jumps_up_to(self, rows: Rows) -> Rows:
        """How many unaccepted jumps have arrived by the candle of each row."""
        return np.searchsorted(self.jumps_ms, self.open_time_ms[rows], side="right")

    def _with_columns(self, times: Times, *values: Floats) -> CandleSeries:
        jumps_ms = self.jumps_ms
        if len(jumps_ms):
            jumps_ms = jumps_ms[np.isin(jumps_ms, times)]
        return CandleSeries(self.timeframe, times, *values, jumps_ms=jumps_ms)


def gaps_between(open_time_ms: Times, timeframe: Timeframe) -> list[Gap]:
    """The holes in increasing open times on the grid of `timeframe`, in order."""
    step = timeframe.ms
    rows = np.flatnonzero(np.diff(open_time_ms) != step)
    return [
        Gap(int(a) + step, int(b), (int(b) - int(a)) // step - 1)
        for a, b in zip(open_time_ms[rows], open_time_ms[rows + 1], strict=True)
    ]


def _refusals(series: CandleSeries) -> Refusals:
    high, low = series.high, series.low
    prices = np.stack([series.open, high, low, series.close])
    finite = np.isfinite(prices).all(axis=0)
    outside = (high < np.maximum(series.open, series.close)) | (
        low > np.minimum(series.open, series.close)
    )
    return {
        f"open time off the {series.timeframe} grid": series.times % series.timeframe.ms != 0,
        "price not finite": ~finite,
        "price not positive": finite & (prices <= 0).any(axis=0),
        "high below low": high < low,
        "high or low does not bracket open and close": finite & (high >= low) & outside,
        "volume not finite": ~np.isfinite(series.volume),
        "negative volume": series.volume < 0,
    }
