"""Funding and open interest: sampled values with a lookup of what was known at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Times
from llm_trader.market.series import TimeSeries, contiguous_columns
from llm_trader.timeframe import HOUR_MS, MINUTE_MS, Millis

# Exchanges stamp settlements some milliseconds late, now and then a few seconds.
STAMP_TOLERANCE_MS: Final = MINUTE_MS
# A sample every 4 hours still makes the mean of a day. Of one every 8 hours, a third of the mean
# would be the latest sample itself; of one a day, all of it.
_FEWEST_OF_A_MEAN: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class FundingSeries(TimeSeries):
    """Settled funding, strictly increasing by settlement time, known from that time on.

    Arrays of shape (n,): `rate` as a fraction per settlement, `interval_hours` until the next.
    """

    time_field: ClassVar[str] = "time_ms"
    value_fields: ClassVar[tuple[str, ...]] = ("rate", "interval_hours")

    time_ms: Times
    rate: Floats
    interval_hours: Floats

    @classmethod
    def validated(
        cls, columns: Mapping[str, npt.ArrayLike], label: str = "funding"
    ) -> FundingSeries:
        """Build from columns `time_ms rate interval_hours`; raises `InvalidDataError`."""
        times, values = contiguous_columns(columns, cls.time_field, cls.value_fields, label)
        series = cls(times, *values)
        hours = series.interval_hours
        return series.checked(
            label,
            {
                "rate not finite": ~np.isfinite(series.rate),
                "rate of 100 % or more": np.abs(series.rate) >= 1,
                "interval not between 0 and 24 hours": ~((hours > 0) & (hours <= 24)),
            },
        )

    @property
    def interval_ms(self) -> Times:
        """How long after each settlement the next one is due, shape (n,)."""
        return np.round(self.interval_hours * HOUR_MS).astype(np.int64)

    @property
    def speaks_for_ms(self) -> Times:
        """How long after each settlement the next one may come, shape (n,)."""
        return self.interval_ms + STAMP_TOLERANCE_MS

    def rate_at(self, as_of_ms: Times) -> Floats:
        """The last settled rate at each time, shape (m,); NaN where none, or one was missed."""
        return self._settled_at(as_of_ms, self.rate)

    def interval_hours_at(self, as_of_ms: Times) -> Floats:
        """The interval of the rate that `rate_at` gives, shape (m,); NaN where it is."""
        return self._settled_at(as_of_ms, self.interval_hours)

    def _settled_at(self, as_of_ms: Times, values: Floats) -> Floats:
        row = np.searchsorted(self.time_ms, as_of_ms, side="right") - 1
        max_age_ms = self.interval_hours * HOUR_MS + STAMP_TOLERANCE_MS
        return _as_of(self.time_ms, values, max_age_ms, row, as_of_ms)


@dataclass(frozen=True, slots=True, eq=False)
class OpenInterestSeries(TimeSeries):
    """Open interest, strictly increasing by publication time, known from that time on.

    Arrays of shape (n,): `open_interest` in base units, `open_interest_value` in USD or NaN.
    """

    time_field: ClassVar[str] = "time_ms"
    value_fields: ClassVar[tuple[str, ...]] = ("open_interest", "open_interest_value")

    time_ms: Times
    open_interest: Floats
    open_interest_value: Floats

    @classmethod
    def validated(
        cls, columns: Mapping[str, npt.ArrayLike], label: str = "open interest"
    ) -> OpenInterestSeries:
        """Build from columns `time_ms open_interest open_interest_value`.

        Raises `InvalidDataError`; the USD value alone may be NaN, where the source had none.
        """
        times, values = contiguous_columns(columns, cls.time_field, cls.value_fields, label)
        series = cls(times, *values)
        value = series.open_interest_value
        return series.checked(
            label,
            {
                "open interest not finite": ~np.isfinite(series.open_interest),
                "negative open interest": series.open_interest < 0,
                "value infinite or negative": np.isinf(value) | (value < 0),
            },
        )

    def latest_at(self, as_of_ms: Times, interval_ms: Millis) -> Floats:
        """The last published value at each time, shape (m,); NaN where one was missed.

        A sample speaks for `interval_ms` after its time, the next sample's included.
        """
        row = np.searchsorted(self.time_ms, as_of_ms, side="right") - 1
        max_age_ms = np.full(len(self), float(interval_ms + STAMP_TOLERANCE_MS))
        return _as_of(self.time_ms, self.open_interest, max_age_ms, row, as_of_ms)

    def mean_over(
        self, as_of_ms: Times, window_ms: Millis, interval_ms: Millis, min_coverage: float = 0.9
    ) -> Floats:
        """Mean of the samples with `as_of - window < time <= as_of`, shape (m,).

        NaN where fewer than `min_coverage` of the expected samples are there, or fewer than 6: the
        latest value would be compared with a mean that it mostly makes itself.
        """
        first = np.searchsorted(self.time_ms, as_of_ms - window_ms, side="right")
        last = np.searchsorted(self.time_ms, as_of_ms, side="right")
        count = last - first
        sufficient = count >= max(min_coverage * (window_ms / interval_ms), _FEWEST_OF_A_MEAN)
        means = np.full(len(as_of_ms), np.nan)
        # Each window is summed on its own: a running sum would make a mean depend on how
        # much history was loaded before it.
        for i in np.flatnonzero(sufficient):
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
    latest = np.full(len(row), np.nan)
    has_sample = row >= 0
    rows = row[has_sample]
    fresh = as_of_ms[has_sample] - time_ms[rows] <= max_age_ms[rows]
    latest[has_sample] = np.where(fresh, values[rows], np.nan)
    return latest
