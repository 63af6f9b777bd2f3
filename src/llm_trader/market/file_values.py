"""Cells of a file as numbers, times and flags. What cannot be read is marked, never guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Mask, Times

if TYPE_CHECKING:
    import polars as pl

# How pandas, databases and spreadsheets write that there is no value.
_MISSING: Final = ("", "nan", "null", "none")
_TRUE: Final = ("1", "1.0", "true", "t", "yes")
_FALSE: Final = ("0", "0.0", "false", "f", "no")

# Epoch times of the years 2001 to 2286 have ten digits in seconds, and three more in each finer
# unit, so their size tells the unit.
_UNITS: Final = {
    "seconds": 10**9,
    "milliseconds": 10**12,
    "microseconds": 10**15,
    "nanoseconds": 10**18,
}


class TimesRead(NamedTuple):
    time_ms: Times  # 0 where not readable
    unreadable: Mask
    units: frozenset[str]  # of epoch times
    has_naive: bool  # some times have no offset from UTC


def is_value(text: str) -> bool:
    """Whether a cell is a number or a time, as the cells of a header never are."""
    return _number(text) is not None or _iso_time(text) is not None


def read_numbers(
    column: pl.Series, *, decimal_comma: bool = False, percent_sign: bool = False
) -> tuple[Floats, Mask]:
    """Values with NaN for missing ones, and which cells are neither missing nor numbers."""
    import polars as pl

    if column.dtype == pl.String:
        column = _without_missing(column)
        if decimal_comma:
            column = column.str.replace(",", ".", literal=True)
        if percent_sign and column.str.ends_with("%").any():
            in_percent = column.str.ends_with("%").fill_null(value=False).to_numpy()
            values, bad = read_numbers(column.str.strip_suffix("%").str.strip_chars())
            return np.where(in_percent, values / 100, values), bad
    numbers = column.cast(pl.Float64, strict=False)
    bad = (numbers.is_null() & column.is_not_null()).to_numpy()
    return numbers.fill_null(float("nan")).to_numpy(), bad


def read_times(column: pl.Series) -> TimesRead:
    """Times as ISO 8601 or since the epoch in any unit; without an offset they are UTC."""
    import polars as pl

    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("ms"))
    if isinstance(column.dtype, pl.Datetime):
        naive = column.dtype.time_zone is None
        times = column.dt.epoch("ms").fill_null(0).to_numpy()
        return TimesRead(times, column.is_null().to_numpy(), frozenset(), naive)
    if column.dtype == pl.String:
        column = _without_missing(column)
    elif column.dtype.is_float():
        times, units = _from_epoch(column.fill_null(0).fill_nan(0).to_numpy())
        return TimesRead(times, times == 0, units, False)
    whole = column.cast(pl.Int64, strict=False)
    times, units = _from_epoch(whole.fill_null(0).to_numpy())
    has_naive = False
    left = np.flatnonzero((whole.is_null() & column.is_not_null()).to_numpy())
    if len(left):
        part = column.gather(left)
        times[left], more = _from_epoch(
            part.cast(pl.Float64, strict=False).fill_null(0).fill_nan(0).to_numpy()
        )
        units |= more
        if column.dtype == pl.String:
            dated = left[times[left] == 0]
            moments = [_iso_time(text) for text in column.gather(dated)]
            has_naive = any(moment is not None and moment.tzinfo is None for moment in moments)
            times[dated] = [_milliseconds(moment) for moment in moments]
    return TimesRead(times, times == 0, units, has_naive)


def read_flags(column: pl.Series) -> tuple[Mask, Mask]:
    """Which cells say yes, and which say neither yes nor no."""
    import polars as pl

    text = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    yes = text.is_in(_TRUE).fill_null(value=False).to_numpy()
    no = text.is_in(_FALSE).fill_null(value=False).to_numpy()
    return yes, ~(yes | no)


def blank_cells(column: pl.Series) -> Mask:
    import polars as pl

    if column.dtype == pl.String:
        column = _without_missing(column)
    return column.is_null().to_numpy()


def _without_missing(column: pl.Series) -> pl.Series:
    import polars as pl

    # Most columns hold plain numbers alone, and this cast is far faster than looking at words.
    if not column.null_count() and not column.cast(pl.Float64, strict=False).null_count():
        return column
    stripped = column.str.strip_chars()
    missing = stripped.str.to_lowercase().is_in(_MISSING)
    return stripped.set(missing, None)


def _from_epoch(numbers: npt.NDArray[np.int64] | Floats) -> tuple[Times, frozenset[str]]:
    """Milliseconds, 0 where a number is no time of 2001 to 2286; and the units found."""
    times = np.zeros(len(numbers), np.int64)
    found = set()
    for unit, least in _UNITS.items():
        # The largest nanoseconds do not fit 64 bits; those of the year 2262 do.
        within = (numbers >= least) & (numbers <= min(10 * least - 1, 2**63 - 1))
        if within.any():
            found.add(unit)
            times[within] = _to_milliseconds(numbers[within], least)
    return times, frozenset(found)


def _to_milliseconds(numbers: npt.NDArray[np.int64] | Floats, least: int) -> Times:
    per_ms = least // 10**12
    if per_ms == 0:
        return np.round(numbers * 1000).astype(np.int64)
    if numbers.dtype == np.int64:
        return numbers.astype(np.int64) // per_ms  # exact, as nanoseconds have 19 digits
    return np.round(numbers / per_ms).astype(np.int64)


def _number(text: str) -> float | None:
    try:
        return float(text.strip().removesuffix("%").replace(",", ".", 1))
    except ValueError:
        return None


def _iso_time(text: str) -> datetime | None:
    """ISO 8601, also with slashes, and with the word UTC behind it."""
    cleaned = text.strip().removesuffix("UTC").rstrip().replace("/", "-")
    try:
        moment = datetime.fromisoformat(cleaned)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if text.strip().endswith("UTC") else moment


def _milliseconds(moment: datetime | None) -> int:
    if moment is None:
        return 0
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(aware.timestamp() * 1000)
