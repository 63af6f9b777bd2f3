"""The columns of a Parquet or CSV file: finds them by name, and reads their times and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.market.candles import CANDLE_FIELDS

if TYPE_CHECKING:
    import polars as pl

Kind: TypeAlias = Literal["candles", "funding", "open_interest"]
ColumnMapping: TypeAlias = Mapping[str, str]  # our name to the file's: {"timestamp_ms": "ts"}

TIME: Final = "timestamp_ms"
FUNDING_INTERVAL: Final = "interval_hours"

# Column names as exchanges and archives write them, tried in this order and in any case.
_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    TIME: (
        "timestamp_ms",
        "open_time_ms",
        "time_ms",
        "timestamp",
        "open_time",
        "time",
        "calc_time",
        "create_time",
        "funding_time",
        "datetime",
        "date",
    ),
    "rate": ("funding_rate", "rate", "last_funding_rate"),
    FUNDING_INTERVAL: ("interval_hours", "funding_interval_hours"),
    "open_interest": ("open_interest", "sum_open_interest"),
    "open_interest_value": ("open_interest_value", "sum_open_interest_value"),
}
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "candles": (TIME, *CANDLE_FIELDS),
    "funding": (TIME, "rate"),
    "open_interest": (TIME, "open_interest"),
}
_OPTIONAL: Final[dict[str, tuple[str, ...]]] = {
    "candles": (),
    "funding": (FUNDING_INTERVAL,),
    "open_interest": ("open_interest_value",),
}
_OUR_NAMES: Final = frozenset(
    name for names in (*_REQUIRED.values(), *_OPTIONAL.values()) for name in names
)

# Later than year 5000 in milliseconds, so it can only be microseconds.
_MICROSECONDS_FROM: Final = 10**14
# In milliseconds a time of 1973, before any market here; in seconds the year 5138.
_SECONDS_BELOW: Final = 10**11


def read_columns(path: Path, kind: Kind, mapping: ColumnMapping) -> tuple[Times, dict[str, Floats]]:
    """Times in ms and the value columns by our names, each of shape (n,); missing values are NaN.

    Raises `InvalidInputError` when a column cannot be found, `InvalidDataError` with a count per
    reason when a time or a number cannot be read.
    """
    table = _read_table(path)
    names = _resolve(table.columns, kind, mapping, path.name)
    if not table.height:
        raise InvalidDataError(path.name, {"file without rows": 1})
    values = {field: _numbers(table[names[field]]) for field in names if field != TIME}
    times, unreadable = _times_ms(table[names[TIME]])
    reasons = {f"{names[field]} not a number": bad for field, (_, bad) in values.items() if bad}
    if unreadable:
        reasons["time missing or not readable"] = unreadable
    in_seconds = int(((times > 0) & (times < _SECONDS_BELOW)).sum())
    if in_seconds:
        reasons["time in seconds, milliseconds are needed"] = in_seconds
    if reasons:
        raise InvalidDataError(path.name, reasons)
    return times, {field: numbers for field, (numbers, _) in values.items()}


def check_mapping(mapping: ColumnMapping) -> None:
    unknown = sorted(set(mapping) - _OUR_NAMES)
    if unknown:
        raise InvalidInputError(
            f"cannot map {', '.join(unknown)}; columns are: {', '.join(sorted(_OUR_NAMES))}"
        )


def _read_table(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema=False)
    except pl.exceptions.NoDataError:
        raise InvalidDataError(path.name, {"file without rows": 1}) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = str(error).strip().partition("\n")[0]
        reason = f"not readable as {path.suffix.removeprefix('.')} ({first_line})"
        raise InvalidDataError(path.name, {reason: 1}) from error


def _resolve(available: list[str], kind: Kind, mapping: ColumnMapping, file: str) -> dict[str, str]:
    """Our column names to the file's."""
    by_name = {name.strip().lower(): name for name in reversed(available)}
    names: dict[str, str] = {}
    for field in (*_REQUIRED[kind], *_OPTIONAL[kind]):
        if field in mapping:
            candidates = [mapping[field]] if mapping[field] in available else []
        else:
            candidates = [by_name[n] for n in _ALIASES.get(field, (field,)) if n in by_name]
        if candidates:
            names[field] = candidates[0]
        elif field in mapping or field in _REQUIRED[kind]:
            expected = mapping.get(field) or " or ".join(_ALIASES.get(field, (field,)))
            raise InvalidInputError(
                f"{file}: no column for {field} (looked for {expected}); the file has: "
                f"{', '.join(available)}; name the right one with --map {field}=COLUMN"
            )
    return names


def _numbers(column: pl.Series) -> tuple[Floats, int]:
    """Values with NaN for missing ones, and how many are neither missing nor numbers."""
    import polars as pl

    if column.dtype == pl.String:
        column = column.str.strip_chars().replace("", None)
    numbers = column.cast(pl.Float64, strict=False)
    unreadable = numbers.null_count() - column.null_count()
    return numbers.fill_null(float("nan")).to_numpy(), unreadable


def _times_ms(column: pl.Series) -> tuple[Times, int]:
    """Times in ms, and how many could not be read (those are 0)."""
    import polars as pl

    if isinstance(column.dtype, pl.Datetime):
        naive = column.dtype.time_zone is None
        utc = column.dt.replace_time_zone("UTC") if naive else column
        converted = utc.dt.epoch("ms")
    elif column.dtype == pl.Date:
        converted = column.cast(pl.Datetime("ms")).dt.epoch("ms")
    else:
        converted = column.cast(pl.Int64, strict=False)
        if column.dtype == pl.String and converted.null_count() > column.null_count():
            converted = pl.Series([_iso_ms(text) for text in column], dtype=pl.Int64)
    times = converted.fill_null(0).to_numpy().astype(np.int64)
    return np.where(times >= _MICROSECONDS_FROM, times // 1000, times), converted.null_count()


def _iso_ms(text: str | None) -> int | None:
    """An ISO 8601 time; without an offset it is UTC, as exchanges write it."""
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(moment.timestamp() * 1000)
