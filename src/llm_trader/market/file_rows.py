"""The rows of a file by our names, as they are read.

What is safe to read is read and noted; cells that cannot be read are refused with their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from llm_trader.arrays import Floats, Mask, Rows, Times
from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.market.column_spool import ColumnSpool
from llm_trader.market.file_columns import (
    CONFIRMED,
    SYMBOL,
    TIME,
    ColumnMapping,
    ColumnPositions,
    Kind,
    describe_columns,
    find_columns,
)
from llm_trader.market.file_table import FileTable, open_table
from llm_trader.market.file_values import (
    TimesRead,
    blank_cells,
    read_flags,
    read_numbers,
    read_times,
)
from llm_trader.market.series import Refusals, count_refusals
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import MAX_TIME_MS, Millis, iso8601

if TYPE_CHECKING:
    import polars as pl

Stamp: TypeAlias = Literal["open", "close"]
Origin: TypeAlias = Literal["unknown", "archive", "export"]

_UNREADABLE_TIME: Final = "time missing or not readable"
_CORRECT: Final = "correct or remove these rows and import again"
# Quote currencies that a symbol may end with where a column names the base currency alone.
_QUOTES: Final = ("USDT", "USDC", "USD", "BUSD", "FDUSD")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReading:
    """How to read files that need more than their name.

    `mapping` names columns, or numbers them in a file without a header; `stamp` says which end of
    a candle its time is, and `shift_ms` is added to all times; rates may be in percent. Names of an
    exchange's archive say truly what a file holds, and an export also holds what a store held.
    """

    mapping: ColumnMapping = field(default_factory=dict)
    no_header: bool = False
    stamp: Stamp | None = None
    shift_ms: Millis = 0
    in_percent: bool = False
    origin: Origin = "unknown"


@dataclass(slots=True)
class FileRows:
    """Rows in the order of the file until `sort_rows` is called; arrays of shape (n,).

    Values are in `columns`, or in `spool` at the rows of the file.
    """

    table: FileTable
    times: Times
    columns: dict[str, Floats]
    row: Rows  # in the file, from 0
    confirmed: Mask | None
    notes: list[str]
    left_out: dict[str, int]
    spool: ColumnSpool | None = None

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def names(self) -> list[str]:
        return list(self.columns) if self.spool is None else self.spool.names

    def values(self, name: str, rows: slice | Rows) -> Floats:
        if self.spool is None:
            return self.columns[name][rows]
        return self.spool.read(name, self.row[rows])

    def take(self, rows: Rows) -> None:
        self.times = self.times[rows]
        self.columns = {name: values[rows] for name, values in self.columns.items()}
        self.row = self.row[rows]
        if self.confirmed is not None:
            self.confirmed = self.confirmed[rows]

    def leave_out(self, rows: Mask, reason: str) -> None:
        count = int(rows.sum())
        if not count:
            return
        if count == len(rows):
            raise InvalidDataError(self.name, {reason: count}, remedy="no other row is left")
        self.left_out[reason] = self.left_out.get(reason, 0) + count
        self.take(np.flatnonzero(~rows))

    def place(self, row: int) -> str:
        """Where a row is in the file, its time and its values."""
        cells = {name: float(self.values(name, slice(row, row + 1))[0]) for name in self.names}
        values = ", ".join(
            f"{name} missing" if np.isnan(value) else f"{name} {value:.10g}"
            for name, value in cells.items()
        )
        return f"{self.table.place(int(self.row[row]))}, {time_text(self.times[row])}: {values}"

    def place_of(self, time_ms: Millis) -> str:
        """Where the row of a time is in the file, after the rows were put in order."""
        return self.table.place(int(self.row[np.searchsorted(self.times, time_ms)]))

    def refuse(self, refusals: Refusals, remedy: str = _CORRECT) -> None:
        """Raises `InvalidDataError` with the first row of each reason, if there is any."""
        if any(mask.any() for mask in refusals.values()):
            counts, first_rows = count_refusals(refusals)
            places = {reason: self.place(row) for reason, row in first_rows.items()}
            raise InvalidDataError(self.name, counts, places=places, remedy=remedy)

    def refused(self, error: InvalidDataError, remedy: str = _CORRECT) -> InvalidDataError:
        """The error of a series of these rows, with their places."""
        places = {reason: self.place(row) for reason, row in error.first_rows.items()}
        return InvalidDataError(self.name, error.reasons, places=places, remedy=remedy)


# ---- reading


def read_rows(
    path: Path,
    kind: Kind,
    symbol: str,
    reading: FileReading,
    spool: ColumnSpool | None = None,
    progress: Progress = no_progress,
) -> FileRows:
    """Times in ms and the value columns by our names; missing values are NaN.

    Values go into the spool where there is one. Progress is in rows, of which a text file has an
    estimated total. Raises `InvalidInputError` when a column cannot be found or the file is of
    another symbol, and `InvalidDataError` with a count and a place per reason when a cell cannot be
    read.
    """
    table = open_table(path, no_header=reading.no_header)
    positions = find_columns(table, kind, symbol, reading.mapping)
    reader = _BatchReader(table, positions, symbol)
    batches: list[_Batch] = []
    estimate = table.estimated_rows()
    for frame in table.batches():
        batch = reader.read(frame)
        progress("rows read", reader.rows_read, max(estimate, reader.rows_read))
        if not len(batch.row):
            continue
        if spool is not None:
            spool.write(batch.row, batch.columns)
            batch.columns.clear()
        batches.append(batch)
    progress("rows read", reader.rows_read, reader.rows_read)
    reader.raise_refused()
    if not batches:
        raise InvalidDataError(path.name, {"file without rows": 1})
    rows = FileRows(
        table,
        np.concatenate([batch.times for batch in batches]),
        {
            name: np.concatenate([batch.columns[name] for batch in batches])
            for name in batches[0].columns
        },
        np.concatenate([batch.row for batch in batches]),
        np.concatenate([batch.confirmed for batch in batches]) if CONFIRMED in positions else None,
        list(reader.notes()),
        reader.left_out,
        spool,
    )
    rows.times += reading.shift_ms
    return rows


@dataclass(frozen=True, slots=True)
class _Batch:
    times: Times
    columns: dict[str, Floats]
    row: Rows
    confirmed: Mask


class _BatchReader:
    """Reads batch after batch, and collects what was met in all of them."""

    def __init__(self, table: FileTable, positions: ColumnPositions, symbol: str) -> None:
        self._table, self._positions, self._symbol = table, positions, symbol
        self._values = [name for name in positions if name not in (TIME, SYMBOL, CONFIRMED)]
        self.rows_read = 0
        self._counts: dict[str, int] = {}
        self._places: dict[str, str] = {}
        self._units: set[str] = set()
        self._has_naive = False
        self._has_percent_sign = False
        self.left_out: dict[str, int] = {}

    def read(self, frame: pl.DataFrame) -> _Batch:
        import polars as pl

        row = np.arange(self.rows_read, self.rows_read + frame.height)
        self.rows_read += frame.height
        cells = {name: frame[str(at)] for name, at in self._positions.items()}
        kept = self._rows_with_data(cells)
        if len(kept) < len(row):
            row = row[kept]
            cells = {name: column.gather(kept) for name, column in cells.items()}
        times = read_times(cells[TIME])
        self._units |= times.units
        self._has_naive |= times.has_naive
        refusals: dict[str, Mask] = {_UNREADABLE_TIME: times.unreadable}
        columns_of = dict.fromkeys(refusals, TIME)
        columns: dict[str, Floats] = {}
        for name in self._values:
            columns[name], bad = read_numbers(
                cells[name],
                decimal_comma=self._table.has_decimal_comma,
                percent_sign=name == "rate",
            )
            reason = f"{self._header(name) if self._table.has_header else name} not a number"
            refusals[reason], columns_of[reason] = bad, name
        confirmed = np.ones(len(row), np.bool_)
        if CONFIRMED in cells:
            confirmed, bad = read_flags(cells[CONFIRMED])
            reason = f"{self._header(CONFIRMED)} neither 1 nor 0, true nor false"
            refusals[reason], columns_of[reason] = bad, CONFIRMED
        if "rate" in cells and cells["rate"].dtype == pl.String:
            self._has_percent_sign |= bool(cells["rate"].str.ends_with("%").any())
        if SYMBOL in cells:
            self._check_symbol(cells[SYMBOL], row, times)
        self._collect(refusals, columns_of, cells, row, times)
        return _Batch(times.time_ms, columns, row, confirmed)

    def raise_refused(self) -> None:
        if self._counts:
            remedy = _CORRECT
            if _UNREADABLE_TIME in self._counts:
                remedy = (
                    "write times as ISO 8601, such as 2026-01-01T00:00:00Z, or as seconds or "
                    "milliseconds since 1970"
                )
            elif any("," in place.rpartition(": ")[2] for place in self._places.values()):
                remedy = "write numbers with a decimal point and without commas in thousands"
            raise InvalidDataError(
                self._table.name, self._counts, places=self._places, remedy=remedy
            )

    def notes(self) -> Iterator[str]:
        if not self._table.has_header:
            yield f"no header: {describe_columns(self._positions)}"
        if self._table.has_decimal_comma:
            yield "commas are read as decimal points"
        for unit in sorted(self._units - {"milliseconds"}):
            yield f"times are read as {unit} since 1970"
        if self._has_percent_sign:
            yield "rates with the sign % are read as percent"
        if self._has_naive:
            yield "times without an offset are taken as UTC"

    def _header(self, name: str) -> str:
        return self._table.columns[self._positions[name]]

    def _rows_with_data(self, cells: Mapping[str, pl.Series]) -> Rows:
        """The rows that are neither blank nor the header again, as joined files have it."""
        blank = blank_cells(cells[TIME])
        if blank.any():
            blank = np.logical_and.reduce([blank_cells(column) for column in cells.values()])
            self._count("blank line", blank)
        again = np.zeros(len(blank), np.bool_)
        if self._table.has_header and self._table.row_word == "line" and self._header(TIME):
            same = cells[TIME].str.strip_chars() == self._header(TIME)
            again = same.fill_null(value=False).to_numpy()
            self._count("header repeated", again)
        return np.flatnonzero(~(blank | again))

    def _count(self, reason: str, rows: Mask) -> None:
        if rows.any():
            self.left_out[reason] = self.left_out.get(reason, 0) + int(rows.sum())

    def _check_symbol(self, column: pl.Series, row: Rows, times: TimesRead) -> None:
        values = column.unique(maintain_order=True).to_list()
        others = [value for value in values if not _names_symbol(str(value or ""), self._symbol)]
        if not others:
            return
        first = int(column.is_in(others).fill_null(value=True).arg_max() or 0)
        found = column[first]
        raise InvalidInputError(
            f"{self._table.name} was to be imported as {self._symbol}, but its column "
            f"{self._header(SYMBOL)} says {found!r} in {self._table.place(int(row[first]))}, "
            f"{time_text(times.time_ms[first])}; give the symbol that it is of, and split a file "
            "of several symbols"
        )

    def _collect(
        self,
        refusals: Refusals,
        columns_of: Mapping[str, str],
        cells: Mapping[str, pl.Series],
        row: Rows,
        times: TimesRead,
    ) -> None:
        if not any(mask.any() for mask in refusals.values()):
            return
        counts, first_rows = count_refusals(refusals)
        for reason, count in counts.items():
            self._counts[reason] = self._counts.get(reason, 0) + count
            at, name = first_rows[reason], columns_of[reason]
            place = (
                f"{self._table.place(int(row[at]))}, {time_text(times.time_ms[at])}, "
                f"column {self._header(name)}: {str(cells[name][at])[:40]!r}"
            )
            self._places.setdefault(reason, place)


def _names_symbol(text: str, symbol: str) -> bool:
    """Whether a cell means a symbol: `BTC/USDT:USDT`, `BTC-USDT-SWAP` and `BTC` mean BTCUSDT."""
    pair = text.strip().upper().partition(":")[0]
    plain = "".join(character for character in pair if character.isalnum())
    if plain.removesuffix("SWAP").removesuffix("PERP") == symbol or plain == symbol:
        return True
    return bool(plain) and any(plain + quote == symbol for quote in _QUOTES)


def time_text(time_ms: int) -> str:
    return iso8601(int(time_ms)) if 0 < time_ms <= MAX_TIME_MS else "time unknown"
