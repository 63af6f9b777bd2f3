"""Funding and open interest: sampled values with a lookup of what was known at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Times
from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.timeframe import HOUR_MS, MAX_TIME_MS, MIN_TIME_MS, MINUTE_MS, Millis

# Exchanges stamp settlements some milliseconds late, now and then a few seconds.
_STAMP_TOLERANCE_MS = MINUTE_MS


@dataclass(frozen=True, slots=True, eq=False)
class FundingSeries:
    """Settled funding, strictly increasing by settlement time, known from that time on.

    Arrays of shape (n,): `rate` as a fraction per settlement, `interval_hours` until the next.
    """

    time_ms: Times
    rate: Floats
    interval_hours: Floats

    @classmethod
    def validated(
        cls, columns: Mapping[str, npt.ArrayLike], what: str = "funding"
    ) -> FundingSeries:
        """Build from columns `time_ms rate interval_hours`; raises `InvalidDataError`."""
        series = cls(*_checked_columns(columns, ("rate", "interval_hours"), what))
        reasons = _time_refusals(series.time_ms) | _count(
            {
                "rate not finite": ~np.isfinite(series.rate),
                "rate of 100 % or more": np.abs(series.rate) >= 1,
                "interval not between 0 and 24 hours": ~(
                    (series.interval_hours > 0) & (series.interval_hours <= 24)
                ),
            }
        )
        if reasons:
            raise InvalidDataError(what, reasons)
        return series

    @classmethod
    def empty(cls) -> FundingSeries:
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0))

    def __len__(self) -> int:
        return len(self.time_ms)

    def between(self, start_ms: Millis | None, end_ms: Millis | None) -> FundingSeries:
        """Settlements with `start_ms <= time < end_ms`; `None` leaves a side open."""
        part = _between(self.time_ms, start_ms, end_ms)
        return FundingSeries(self.time_ms[part], self.rate[part], self.interval_hours[part])

    def rate_at(self, as_of_ms: Times) -> Floats:
        """The last settled rate at each time, shape (m,); NaN where none, or one was missed."""
        row = np.searchsorted(self.time_ms, as_of_ms, side="right") - 1
        max_age_ms = self.interval_hours * HOUR_MS + _STAMP_TOLERANCE_MS
        return _as_of(self.time_ms, self.rate, max_age_ms, row, as_of_ms)


@dataclass(frozen=True, slots=True, eq=False)
class OpenInterestSeries:
    """Open interest, strictly increasing by publication time, known from that time on.

    Arrays of shape (n,): `open_interest` in base units, `open_interest_value` in USD or NaN.
    """

    time_ms: Times
    open_interest: Floats
    open_interest_value: Floats

    @classmethod
    def validated(
        cls, columns: Mapping[str, npt.ArrayLike], what: str = "open interest"
    ) -> OpenInterestSeries:
        """Build from columns `time_ms open_interest open_interest_value`.

        Raises `InvalidDataError`; the USD value alone may be NaN, where the source had none.
        """
        series = cls(*_checked_columns(columns, ("open_interest", "open_interest_value"), what))
        value = series.open_interest_value
        reasons = _time_refusals(series.time_ms) | _count(
            {
                "open interest not finite": ~np.isfinite(series.open_interest),
                "negative open interest": series.open_interest < 0,
                "value infinite or negative": np.isinf(value) | (value < 0),
            }
        )
        if reasons:
            raise InvalidDataError(what, reasons)
        return series

    @classmethod
    def empty(cls) -> OpenInterestSeries:
        return cls(np.empty(0, np.int64), np.empty(0), np.empty(0))

    def __len__(self) -> int:
        return len(self.time_ms)

    def between(self, start_ms: Millis | None, end_ms: Millis | None) -> OpenInterestSeries:
        """Samples with `start_ms <= time < end_ms`; `None` leaves a side open."""
        part = _between(self.time_ms, start_ms, end_ms)
        return OpenInterestSeries(
            self.time_ms[part], self.open_interest[part], self.open_interest_value[part]
        )

    def latest_at(self, as_of_ms: Times, interval_ms: Millis) -> Floats:
        """The last published value at each time, shape (m,); NaN where one was missed.

        A sample speaks for `interval_ms` after its time, the next sample's included.
        """
        row = np.searchsorted(self.time_ms, as_of_ms, side="right") - 1
        max_age_ms = np.full(len(self), float(interval_ms + _STAMP_TOLERANCE_MS))
        return _as_of(self.time_ms, self.open_interest, max_age_ms, row, as_of_ms)

    def mean_over(
        self, as_of_ms: Times, window_ms: Millis, interval_ms: Millis, min_coverage: float = 0.9
    ) -> Floats:
        """Mean of the samples with `as_of - window < time <= as_of`, shape (m,).

        NaN where fewer than `min_coverage` of the expected samples are there.
        """
        first = np.searchsorted(self.time_ms, as_of_ms - window_ms, side="right")
        last = np.searchsorted(self.time_ms, as_of_ms, side="right")
        count = last - first
        enough = (count >= min_coverage * (window_ms / interval_ms)) & (count > 0)
        means = np.full(len(as_of_ms), np.nan)
        # Each window is summed on its own: a running sum would make a mean depend on how
        # much history was loaded before it.
        for i in np.flatnonzero(enough):
            means[i] = self.open_interest[first[i] : last[i]].mean()
        return means


def sampling_interval_ms(time_ms: Times) -> Millis | None:
    """The usual distance between samples, the median; `None` with fewer than two samples."""
    return int(np.median(np.diff(time_ms))) if len(time_ms) > 1 else None


def _as_of(
    time_ms: Times,
    values: Floats,
    max_age_ms: Floats,
    row: npt.NDArray[np.intp],
    as_of_ms: Times,
) -> Floats:
    found = np.full(len(row), np.nan)
    there = row >= 0
    at = row[there]
    fresh = as_of_ms[there] - time_ms[at] <= max_age_ms[at]
    found[there] = np.where(fresh, values[at], np.nan)
    return found


def _checked_columns(
    columns: Mapping[str, npt.ArrayLike], fields: tuple[str, str], what: str
) -> tuple[Times, Floats, Floats]:
    times = np.ascontiguousarray(columns["time_ms"], dtype=np.int64)
    first, second = (np.ascontiguousarray(columns[f], dtype=np.float64) for f in fields)
    if times.ndim != 1 or first.shape != times.shape or second.shape != times.shape:
        raise InvalidInputError(f"{what}: columns differ in length")
    return times, first, second


def _time_refusals(times: Times) -> dict[str, int]:
    step = np.diff(times)
    return _count(
        {
            "not in time order": step < 0,
            "duplicate time": step == 0,
            "time outside 2001 to 2286": (times < MIN_TIME_MS) | (times > MAX_TIME_MS),
        }
    )


def _count(masks: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, int]:
    return {reason: int(mask.sum()) for reason, mask in masks.items() if mask.any()}


def _between(times: Times, start_ms: Millis | None, end_ms: Millis | None) -> slice:
    first = 0 if start_ms is None else int(np.searchsorted(times, start_ms))
    last = len(times) if end_ms is None else int(np.searchsorted(times, end_ms))
    return slice(first, last)
