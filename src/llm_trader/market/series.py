"""What candles, funding and open interest have in common: columns in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Times
from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.timeframe import MAX_TIME_MS, MIN_TIME_MS, Millis

Refusals = Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class TimeSeries:
    """Arrays of shape (n,), of which the times increase strictly."""

    time_field: ClassVar[str]
    value_fields: ClassVar[tuple[str, ...]]

    # Set by `checked` alone: what `dataclasses.replace` returns may break the rules.
    is_validated: bool = field(default=False, init=False, repr=False)

    @property
    def times(self) -> Times:
        times: Times = getattr(self, self.time_field)
        return times

    def __len__(self) -> int:
        return len(self.times)

    def columns(self) -> Iterator[tuple[str, Floats]]:
        for name in self.value_fields:
            yield name, getattr(self, name)

    def rows(self, part: slice) -> Self:
        """A view of some rows; nothing is copied."""
        series = self._with_columns(self.times[part], *(v[part] for _, v in self.columns()))
        object.__setattr__(series, "is_validated", self.is_validated)
        return series

    def between(self, start_ms: Millis | None, end_ms: Millis | None) -> Self:
        """The rows with `start_ms <= time < end_ms`; `None` leaves a side open."""
        first = 0 if start_ms is None else int(np.searchsorted(self.times, start_ms))
        last = len(self) if end_ms is None else int(np.searchsorted(self.times, end_ms))
        return self.rows(slice(first, last))

    def checked(self, label: str, refusals: Refusals) -> Self:
        """This series; raises `InvalidDataError` with a count per reason when rows are refused."""
        step = np.diff(self.times, prepend=self.times[:1] - 1)
        reasons = {
            "not in time order": step < 0,
            "duplicate time": step == 0,
            "time outside 2001 to 2286": (self.times < MIN_TIME_MS) | (self.times > MAX_TIME_MS),
            **refusals,
        }
        if any(mask.any() for mask in reasons.values()):
            counts, first_rows = count_refusals(reasons)
            raise InvalidDataError(label, counts, first_rows=first_rows)
        object.__setattr__(self, "is_validated", True)
        return self

    def _with_columns(self, times: Times, *values: Floats) -> Self:
        series_type: Any = type(self)
        return cast(Self, series_type(times, *values))


def count_refusals(refusals: Refusals) -> tuple[dict[str, int], dict[str, int]]:
    """The number of rows and the first row of each reason; a row counts for its first reason."""
    counts: dict[str, int] = {}
    first_rows: dict[str, int] = {}
    counted: npt.NDArray[np.bool_] | None = None
    for reason, mask in refusals.items():
        remaining = mask if counted is None else mask & ~counted
        counted = mask if counted is None else mask | counted
        if remaining.any():
            counts[reason] = int(remaining.sum())
            first_rows[reason] = int(remaining.argmax())
    return counts, first_rows


def contiguous_columns(
    columns: Mapping[str, npt.ArrayLike], time_field: str, value_fields: Sequence[str], label: str
) -> tuple[Times, list[Floats]]:
    """Times and values as arrays; raises `InvalidInputError` when they differ in length."""
    times = np.ascontiguousarray(columns[time_field], dtype=np.int64)
    values = [np.ascontiguousarray(columns[name], dtype=np.float64) for name in value_fields]
    if any(v.shape != times.shape or v.ndim != 1 for v in values):
        raise InvalidInputError(f"{label}: columns differ in length")
    return times, values
