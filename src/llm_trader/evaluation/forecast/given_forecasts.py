"""Anybody's forecasts, read from a file: quantiles or samples for a symbol, a time and a horizon.

A row is what was forecast at its `time` for the % change over its `horizon`. Columns `q10`, `q50`,
`q97.5` are quantiles; `s1`, `s2`, ... are samples. They are scored as they are issued: samples by
the CRPS of just these samples, quantiles by the mean of their quantile scores, which is the CRPS
where the levels are dense, and the references by their quantiles at the same levels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Rows, Times
from llm_trader.errors import InvalidInputError
from llm_trader.storage.files import read_whole
from llm_trader.timeframe import HORIZONS, Millis, parse_rfc3339

if TYPE_CHECKING:
    import polars as pl

_KEYS: Final = ("symbol", "time", "horizon")
_QUANTILE: Final = re.compile(r"q(\d{1,2}(?:\.\d+)?)")
_SAMPLE: Final = re.compile(r"s\d+")
_SHOWN: Final = 3


class Given(NamedTuple):
    """Forecasts of one symbol at one horizon in % change, in the order of time.

    `values` (n, members) ascend; `levels` (members,) are theirs, and None for samples.
    """

    time_ms: Times
    values: Floats
    levels: Floats | None

    def take(self, rows: Rows) -> Given:
        return Given(self.time_ms[rows], self.values[rows], self.levels)


@dataclass(frozen=True, slots=True)
class GivenForecasts:
    """The forecasts of a file by symbol and horizon, its `name`, and its `digest`."""

    name: str
    digest: str
    forecasts: Mapping[str, Mapping[str, Given]]

    @property
    def horizons(self) -> list[str]:
        """Those that any symbol has, the shortest first."""
        named = {name for of_symbol in self.forecasts.values() for name in of_symbol}
        return [name for name in HORIZONS if name in named]

    def span_ms(self) -> tuple[Millis, Millis]:
        """The times of the first and the last forecast."""
        times = [
            given.time_ms for of_symbol in self.forecasts.values() for given in of_symbol.values()
        ]
        return min(int(t[0]) for t in times), max(int(t[-1]) for t in times)

    def step_ms(self) -> Millis:
        """The smallest time between two forecasts of a symbol and horizon."""
        times = [
            given.time_ms for of_symbol in self.forecasts.values() for given in of_symbol.values()
        ]
        gaps = [int(np.diff(t).min()) for t in times if len(t) > 1]
        if not gaps:
            raise InvalidInputError(f"{self.name} has one forecast a symbol, too few to judge")
        return min(gaps)


def read_forecasts(path: Path) -> GivenForecasts:
    """Raises `InvalidInputError` that names the file, the row and the column."""
    table = _read_table(path)
    absent = [name for name in _KEYS if name not in table.columns]
    if absent:
        raise InvalidInputError(
            f"{path.name} has no column {', '.join(absent)}; it needs symbol, time and horizon, "
            "and quantiles such as q10, q50, q90, or samples s1, s2, ..."
        )
    members, levels = _members(table.columns, path.name)
    values = _numbers(table, members, path.name)
    if levels is None:
        values = np.sort(values, axis=1)
    else:
        _refuse(np.diff(values, axis=1).min(axis=1) < 0, path.name, "quantiles that do not ascend")
    symbols, horizons = (table[name].cast(str).to_numpy() for name in ("symbol", "horizon"))
    names = ", ".join(HORIZONS)
    unknown = ~np.isin(horizons.astype(str), list(HORIZONS))
    _refuse(unknown, path.name, f"a horizon that is none of {names}")
    times_ms = _times(table["time"], path.name)
    forecasts: dict[str, dict[str, Given]] = {}
    for symbol in sorted(set(symbols.tolist())):
        for horizon in HORIZONS:
            rows = np.flatnonzero((symbols == symbol) & (horizons == horizon))
            if not len(rows):
                continue
            rows = rows[np.argsort(times_ms[rows], kind="stable")]
            repeated = np.zeros(len(times_ms), np.bool_)
            repeated[rows[1:]] = np.diff(times_ms[rows]) == 0
            _refuse(repeated, path.name, f"a second forecast of {symbol} over {horizon} at a time")
            given = Given(times_ms[rows], values[rows], levels)
            forecasts.setdefault(symbol, {})[horizon] = given
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return GivenForecasts(path.name, digest, forecasts)


def _read_table(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        content = read_whole(path)
        table = pl.read_parquet(content) if path.suffix == ".parquet" else pl.read_csv(content)
    except FileNotFoundError:
        raise InvalidInputError(f"there is no file {path}") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        first_line = (reason or str(error)).strip().partition("\n")[0]
        raise InvalidInputError(f"{path} cannot be read as CSV or Parquet: {first_line}") from None
    if not table.height:
        raise InvalidInputError(f"{path} holds no forecast")
    return table


def _members(columns: list[str], file: str) -> tuple[list[str], Floats | None]:
    """The columns of the members, those of quantiles by level, and the levels."""
    levels = {
        name: float(found[1]) / 100 for name in columns if (found := _QUANTILE.fullmatch(name))
    }
    samples = [name for name in columns if _SAMPLE.fullmatch(name)]
    if bool(levels) == bool(samples) or len(levels or samples) < 2:
        raise InvalidInputError(
            f"{file} needs either two or more quantiles, such as q10, q50 and q90, or two or more "
            f"samples s1, s2, ...; it has {len(levels)} quantiles and {len(samples)} samples"
        )
    if samples:
        return samples, None
    names = sorted(levels, key=levels.__getitem__)
    if levels[names[0]] <= 0:
        raise InvalidInputError(f"{file} has the column {names[0]}; quantiles lie above 0 %")
    return names, np.array([levels[name] for name in names])


def _numbers(table: pl.DataFrame, members: list[str], file: str) -> Floats:
    import polars as pl

    columns = [table[name].cast(pl.Float64, strict=False).to_numpy() for name in members]
    values = np.column_stack(columns)
    for column, name in zip(values.T, members, strict=True):
        _refuse(~np.isfinite(column), file, f"no number in {name}")
    return values


def _times(column: pl.Series, file: str) -> Times:
    import polars as pl

    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("ms")).cast(pl.Int64).to_numpy()
    if column.dtype.is_integer():
        return column.to_numpy().astype(np.int64)
    times_ms, unreadable = np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
    for row, text in enumerate(column.cast(pl.String).to_list()):
        try:
            times_ms[row] = parse_rfc3339(text or "")
        except InvalidInputError:
            unreadable[row] = True
    _refuse(unreadable, file, "a time that is neither RFC 3339 nor UTC milliseconds")
    return times_ms


def _refuse(wrong: np.ndarray, file: str, problem: str) -> None:
    if wrong.any():
        rows = [str(row + 1) for row in np.flatnonzero(wrong)[:_SHOWN]]
        more = ", ..." if np.count_nonzero(wrong) > _SHOWN else ""
        raise InvalidInputError(
            f"{file}: {np.count_nonzero(wrong):,} of {len(wrong):,} rows have {problem}: row "
            f"{', '.join(rows)}{more} after the header"
        )
