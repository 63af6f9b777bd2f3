"""Candles on contiguous arrays: validation, gaps and slices. Pure computation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Times
from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.timeframe import MAX_TIME_MS, MIN_TIME_MS, Millis, Timeframe

CANDLE_FIELDS: Final = ("open", "high", "low", "close", "volume")


class Gap(NamedTuple):
    """Missing candles: the first one's open time, the open time after the last one, how many."""

    start_ms: Millis
    end_ms: Millis
    missing: int


@dataclass(frozen=True, slots=True, eq=False)
class CandleSeries:
    """Candles of one symbol and timeframe, strictly increasing by open time, gaps allowed.

    All arrays have the shape (n,). A candle opens at `open_time_ms` and is known from
    `open_time_ms + timeframe.ms` on. Prices are in quote currency, volume in base units.
    """

    timeframe: Timeframe
    open_time_ms: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    # Not copied by `dataclasses.replace`, whose result may break the rules.
    is_validated: bool = field(default=False, init=False, repr=False)

    @classmethod
    def validated(
        cls, timeframe: Timeframe, columns: Mapping[str, npt.ArrayLike], what: str = "candles"
    ) -> CandleSeries:
        """Build from columns `open_time_ms open high low close volume`, each of shape (n,).

        Raises `InvalidDataError` with a count per reason when any candle is unsorted,
        duplicated, off the grid, not finite, or contradicts itself. Nothing is repaired.
        """
        times = np.ascontiguousarray(columns["open_time_ms"], dtype=np.int64)
        values = [np.ascontiguousarray(columns[f], dtype=np.float64) for f in CANDLE_FIELDS]
        if any(v.shape != times.shape or v.ndim != 1 for v in values):
            raise InvalidInputError(f"{what}: columns differ in length")
        reasons = _refusals(timeframe, times, *values)
        if reasons:
            raise InvalidDataError(what, reasons)
        return cls(timeframe, times, *values)._marked(True)

    @classmethod
    def empty(cls, timeframe: Timeframe) -> CandleSeries:
        none = np.empty(0)
        return cls(timeframe, np.empty(0, np.int64), none, none, none, none, none)

    def __len__(self) -> int:
        return len(self.open_time_ms)

    def columns(self) -> Iterator[tuple[str, Floats]]:
        for name in CANDLE_FIELDS:
            yield name, getattr(self, name)

    def rows(self, part: slice) -> CandleSeries:
        """A view of some rows; nothing is copied."""
        columns = (values[part] for _, values in self.columns())
        series = CandleSeries(self.timeframe, self.open_time_ms[part], *columns)
        return series._marked(self.is_validated)

    def between(self, start_ms: Millis | None, end_ms: Millis | None) -> CandleSeries:
        """Candles with `start_ms <= open time < end_ms`; `None` leaves a side open."""
        first = 0 if start_ms is None else int(np.searchsorted(self.open_time_ms, start_ms))
        last = len(self) if end_ms is None else int(np.searchsorted(self.open_time_ms, end_ms))
        return self.rows(slice(first, last))

    def known_at(self, as_of_ms: Millis) -> CandleSeries:
        """The candles that had closed at `as_of_ms`."""
        return self.between(None, as_of_ms - self.timeframe.ms + 1)

    def _marked(self, is_validated: bool) -> CandleSeries:
        object.__setattr__(self, "is_validated", is_validated)
        return self

    def gaps(self) -> list[Gap]:
        return gaps_between(self.open_time_ms, self.timeframe)

    def segment_starts(self) -> npt.NDArray[np.intp]:
        """Rows that open a gapless run: row 0, and each row after a gap. Shape (runs,)."""
        if not len(self):
            return np.empty(0, np.intp)
        breaks = np.flatnonzero(np.diff(self.open_time_ms) != self.timeframe.ms) + 1
        return np.concatenate(([0], breaks)).astype(np.intp)


def gaps_between(open_time_ms: Times, timeframe: Timeframe) -> list[Gap]:
    """The holes in increasing open times on the grid of `timeframe`, in order."""
    step = timeframe.ms
    before = np.flatnonzero(np.diff(open_time_ms) != step)
    return [
        Gap(int(a) + step, int(b), (int(b) - int(a)) // step - 1)
        for a, b in zip(open_time_ms[before], open_time_ms[before + 1], strict=True)
    ]


def _refusals(
    timeframe: Timeframe,
    times: Times,
    open_: Floats,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
) -> dict[str, int]:
    prices = np.stack([open_, high, low, close])
    finite = np.isfinite(prices).all(axis=0)
    step = np.diff(times)
    found = {
        "not in time order": step < 0,
        "duplicate time": step == 0,
        f"open time off the {timeframe} grid": times % timeframe.ms != 0,
        "time outside 2001 to 2286": (times < MIN_TIME_MS) | (times > MAX_TIME_MS),
        "price not finite": ~finite,
        "price not positive": finite & (prices <= 0).any(axis=0),
        "high below low": high < low,
        "high or low does not bracket open and close": finite
        & (high >= low)
        & ((high < np.maximum(open_, close)) | (low > np.minimum(open_, close))),
        "volume not finite": ~np.isfinite(volume),
        "negative volume": volume < 0,
    }
    return {reason: int(mask.sum()) for reason, mask in found.items() if mask.any()}
