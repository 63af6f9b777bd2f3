"""The candles of a file: put in order, checked as a whole, and read in parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.file_order import (
    leave_out_unclosed,
    leave_out_unknown,
    refuse_future,
    sort_rows,
)
from llm_trader.market.file_rows import FileReading, FileRows
from llm_trader.market.samples import sampling_interval_ms
from llm_trader.market.store import MarketStore
from llm_trader.market.timeframe_agreement import Span
from llm_trader.timeframe import DAY_MS, SECOND_MS, Millis, Timeframe, iso8601

# Some 25 MB while they are written. A day has 1,440 at most, and is never divided.
ROWS_PER_PART: Final = 50_000


@dataclass(frozen=True, slots=True)
class FileCandles:
    """Sorted rows of which every one is a candle."""

    rows: FileRows
    timeframe: Timeframe

    def __len__(self) -> int:
        return len(self.rows.times)

    @property
    def span(self) -> Span:
        first_ms, last_ms = self.rows.times[[0, -1]].tolist()
        return first_ms, last_ms + self.timeframe.ms

    def parts(self) -> Iterator[CandleSeries]:
        """All candles, each part up to the end of a UTC day."""
        for part in day_slices(self.rows.times, ROWS_PER_PART):
            yield self._series(part)

    def between(self, start_ms: Millis, end_ms: Millis) -> CandleSeries:
        """The candles with `start_ms <= open time < end_ms`."""
        first, last = np.searchsorted(self.rows.times, [start_ms, end_ms]).tolist()
        return self._series(slice(first, last))

    def check(self) -> None:
        """Raises `InvalidDataError` with a count and a place for all reasons to refuse a row."""
        counts: dict[str, int] = {}
        first_rows: dict[str, int] = {}
        for part in day_slices(self.rows.times, ROWS_PER_PART):
            try:
                self._series(part)
            except InvalidDataError as error:
                for reason, count in error.reasons.items():
                    counts[reason] = counts.get(reason, 0) + count
                    first_rows.setdefault(reason, part.start + error.first_rows[reason])
        if counts:
            raise InvalidDataError(self.rows.name, counts, first_rows=first_rows)

    def _series(self, part: slice) -> CandleSeries:
        columns = {name: self.rows.values(name, part) for name in CandleSeries.value_fields}
        columns_and_times = {"open_time_ms": self.rows.times[part], **columns}
        return CandleSeries.validated(self.timeframe, columns_and_times, self.rows.name)


def day_slices(times: Times, most_rows: int) -> Iterator[slice]:
    """Slices of increasing times, of which each but the last ends with a UTC day."""
    start = 0
    while start < len(times):
        end = min(start + most_rows, len(times))
        if end < len(times):
            midnight_ms = times[end] // DAY_MS * DAY_MS
            end = max(int(np.searchsorted(times, midnight_ms)), start + 1)
        yield slice(start, end)
        start = end


def checked_candles(
    rows: FileRows,
    timeframe: Timeframe,
    store: MarketStore,
    symbol: str,
    reading: FileReading,
    now_ms: Millis,
) -> FileCandles:
    """Puts rows in order and leaves out what is no closed candle; all else that is wrong raises."""
    if reading.stamp == "close":
        # Some exchanges write the last second or millisecond of a candle.
        to_close_ms = -rows.times % timeframe.ms
        rows.times += np.where(to_close_ms <= SECOND_MS, to_close_ms, 0) - timeframe.ms
    refuse_future(rows, now_ms)
    leave_out_unclosed(rows, timeframe, now_ms)
    leave_out_unknown(rows, "candles")
    sort_rows(rows)
    median_ms = sampling_interval_ms(rows.times)
    is_guessed = reading.origin == "unknown"
    if is_guessed and median_ms is not None and median_ms != timeframe.ms:
        reason = f"candle mostly {Timeframe(median_ms)} from the next, not {timeframe}"
        remedy = f"give --interval {Timeframe(median_ms)} if that is what they are"
        raise InvalidDataError(rows.name, {reason: len(rows.times)}, remedy=remedy)
    candles = FileCandles(rows, timeframe)
    try:
        candles.check()
    except InvalidDataError as error:
        if (-rows.times % timeframe.ms <= SECOND_MS).all() and (rows.times % timeframe.ms).all():
            raise rows.refused(error, "these are times of close: add --stamp close") from error
        raise rows.refused(error) from error
    if reading.stamp is None and is_guessed:
        _ask_for_stamp(candles, store, symbol)
    return candles


def _ask_for_stamp(candles: FileCandles, store: MarketStore, symbol: str) -> None:
    """Files mostly begin with a day, whose first candle opens at 00:00 and never later."""
    step, first_ms = candles.timeframe.ms, candles.span[0]
    if first_ms % DAY_MS != step:
        return
    if len(store.candles(symbol, candles.timeframe, first_ms - step, first_ms)):
        return  # it goes on where the store ends
    raise InvalidInputError(
        f"{candles.rows.name} begins with a candle at {iso8601(first_ms)} and has none at "
        f"{iso8601(first_ms - step)}: are its times those of close? Then add --stamp close; if "
        "they are times of open, --stamp open"
    )
