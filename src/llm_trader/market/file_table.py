"""Opens a Parquet, Feather or delimited text file, packed or not, as batches of columns.

Of a text file, the separator, the lines above the header, and whether there is a header are found
from its first lines. Cells of text stay text; `file_values.py` reads them.
"""

from __future__ import annotations

import csv
import gzip
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_END, BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, cast

from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.market.file_values import is_value

if TYPE_CHECKING:
    import polars as pl

_TEXT: Final = ("csv", "tsv", "txt")
# What the name of a file may end with.
ENDINGS: Final = ("parquet", "feather", *_TEXT, *(f"{name}.gz" for name in _TEXT), "zip")

# Enough lines to tell a header from data; reading more would not change the answer.
_HEAD_BYTES: Final = 64 * 1024
# A comma comes last: in numbers it can be a decimal comma.
_SEPARATORS: Final = "\t;|,"
# About 100 MB of text at 12 columns.
_BATCH_ROWS: Final = 250_000
# What gzip and zipfile raise for files that are cut off, damaged or packed in another way.
_UNREADABLE: Final = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,(\d+)")


class _TextLayout(NamedTuple):
    separator: str
    lines_above_data: int
    header: tuple[str, ...] | None
    width: int
    sample: list[list[str]]  # the first rows of data
    has_decimal_comma: bool


@dataclass(frozen=True, slots=True)
class FileTable:
    """A file as a table. Without a header, columns are named by their number: `1`, `2`, ..."""

    path: Path
    columns: tuple[str, ...]
    has_header: bool
    sample: Sequence[Sequence[str]]  # the first rows; of text files alone
    has_decimal_comma: bool
    row_word: str  # what people count in such a file: lines or rows
    first_row: int  # the number of the first one with data
    _layout: _TextLayout | None

    @property
    def name(self) -> str:
        return self.path.name

    def place(self, row: int) -> str:
        """Where a row, counted from 0, is found in the file."""
        return f"{self.row_word} {self.first_row + row}"

    def batches(self) -> Iterator[pl.DataFrame]:
        """All rows in order, with columns named by their position: `0`, `1`, ..."""
        with _reading(self.path):
            for frame in self._scan().collect_batches(chunk_size=_BATCH_ROWS):
                yield frame.rename({name: str(at) for at, name in enumerate(frame.columns)})

    def estimated_rows(self) -> int:
        """Exact but for text files, whose first lines and size are taken."""
        import polars as pl

        with _reading(self.path):
            if self._layout is None:
                return int(self._scan().select(pl.len()).collect().item())
            head = _head(self.path)
            return _text_bytes(self.path) * head.count("\n") // max(len(head.encode()), 1)

    def _scan(self) -> pl.LazyFrame:
        import polars as pl

        if self._layout is None:
            return _scan_binary(self.path)
        return pl.scan_csv(
            _text_source(self.path),
            has_header=False,
            infer_schema=False,
            separator=self._layout.separator,
            skip_lines=self._layout.lines_above_data,
            schema={f"column_{i}": pl.String for i in range(self._layout.width)},
            missing_columns="insert",
            glob=False,
        )


def open_table(path: Path, *, no_header: bool = False) -> FileTable:
    """Look at the first lines. Raises `InvalidDataError` where the file is not what it says."""
    with _reading(path):
        if _format(path) not in (*_TEXT, "zip"):
            names = tuple(_scan_binary(path).collect_schema().names())
            return FileTable(path, names, True, (), False, "row", 1, None)
        layout = _text_layout(path, no_header=no_header)
    columns = layout.header or tuple(str(i + 1) for i in range(layout.width))
    return FileTable(
        path,
        columns,
        layout.header is not None,
        layout.sample,
        layout.has_decimal_comma,
        "line",
        layout.lines_above_data + 1,
        layout,
    )


def _format(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def _scan_binary(path: Path) -> pl.LazyFrame:
    import polars as pl

    if _format(path) == "parquet":
        return pl.scan_parquet(path, glob=False)
    return pl.scan_ipc(path, glob=False)


# ---- errors


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises what libraries say about an unreadable file as `InvalidDataError`."""
    import polars as pl

    try:
        yield
    except pl.exceptions.NoDataError:
        raise InvalidDataError(path.name, {"file without rows": 1}) from None
    except UnicodeDecodeError as error:
        raise _unreadable(path, "not UTF-8 text", "save it as UTF-8") from error
    except _UNREADABLE as error:
        raise _refusal(path, error) from error
    except pl.exceptions.PolarsError as error:
        is_text = _format(path) in (*_TEXT, "zip")
        if is_text and ("more fields" in str(error) or "Schema" in str(error)):
            raise _ragged(path) from error
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> InvalidDataError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return _unreadable(path, reason, "is it whole, and what its name says?")


def _unreadable(path: Path, reason: str, remedy: str) -> InvalidDataError:
    kind = path.name.partition(".")[2] if _format(path) in _TEXT else _format(path)
    return InvalidDataError(path.name, {f"not readable as {kind} ({reason})": 1}, remedy=remedy)


def _ragged(path: Path) -> InvalidDataError:
    """Finds the lines with more cells than the header, or than the first line."""
    layout = _text_layout(path, no_header=False)
    reason = f"more cells than the {layout.width} columns"
    with _open_text(path) as file:
        rows = csv.reader(TextIOWrapper(file, "utf-8", "replace"), delimiter=layout.separator)
        places = [
            f"line {rows.line_num}, which has {len(row)} cells"
            for row in rows
            if len(row) > layout.width
        ]
    return InvalidDataError(
        path.name,
        {reason: max(len(places), 1)},
        places={reason: places[0]} if places else None,
        remedy="correct or remove these lines; numbers must have no comma in thousands",
    )


# ---- text, plain or packed


def _open_text(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path))
    if _format(path) == "zip":
        return BytesIO(_unzipped(path))
    return path.open("rb")


def _text_source(path: Path) -> Path | bytes:
    # Polars unpacks .gz by itself.
    return _unzipped(path) if _format(path) == "zip" else path


def _unzipped(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(_text_member(archive, path))


def _text_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The one table in an archive, as exchanges publish them."""
    members = [
        member
        for member in archive.infolist()
        if member.filename.lower().endswith(tuple(f".{ending}" for ending in _TEXT))
        and not member.filename.startswith("__MACOSX/")
    ]
    if len(members) != 1:
        listed = ", ".join(member.filename for member in members[:5]) or "none"
        raise InvalidInputError(
            f"{path.name} holds {len(members)} text files ({listed}), not one; unpack it and "
            "import each file, or the folder"
        )
    if members[0].flag_bits & 1:
        raise InvalidInputError(f"{path.name} needs a password; unpack it and import the file")
    return members[0]


def _text_bytes(path: Path) -> int:
    """How long the unpacked text is, modulo 4 GiB where a .gz says it."""
    if _format(path) == "zip":
        with zipfile.ZipFile(path) as archive:
            return _text_member(archive, path).file_size
    if not path.name.lower().endswith(".gz"):
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-4, SEEK_END)
        return int.from_bytes(file.read(), "little")


def _head(path: Path) -> str:
    """The first whole lines of a text file."""
    if _format(path) == "zip":
        with zipfile.ZipFile(path) as archive, archive.open(_text_member(archive, path)) as member:
            head = member.read(_HEAD_BYTES)
    else:
        with _open_text(path) as file:
            head = file.read(_HEAD_BYTES)
    if len(head) == _HEAD_BYTES:
        head = head[: head.rfind(b"\n") + 1]
    return head.decode("utf-8-sig")


# ---- layout of text


def _text_layout(path: Path, *, no_header: bool) -> _TextLayout:
    import polars as pl

    lines = [(i, text) for i, text in enumerate(_head(path).split("\n")) if text.strip()]
    if not lines:
        raise pl.exceptions.NoDataError("empty")
    separator = _separator([text for _, text in lines])
    rows = [(i, row) for (i, text) in lines for row in csv.reader([text], delimiter=separator)]
    width = Counter(len(row) for _, row in rows).most_common(1)[0][0]
    first = next((at for at, (_, row) in enumerate(rows) if _is_data(row, width)), len(rows))
    header_at = None if no_header else _header_place(rows, first, width)
    header: tuple[str, ...] | None = None
    if header_at is not None:
        names = [cell.strip() for cell in rows[header_at][1]]
        first = header_at + 1  # not the first row that looks like data: a bad one may precede it
        width = max(width, len(names)) if first < len(rows) else len(names)
        if not _counts_columns(names):
            header = _padded(names, width, [row for _, row in rows[first:]], path.name)
    elif no_header:
        first = 0
    above = rows[first][0] if header_at is None else rows[header_at][0] + 1
    sample = [row for _, row in rows[first:]]
    has_decimal_comma = separator != "," and _has_decimal_comma(sample)
    if has_decimal_comma:
        sample = [[cell.replace(",", ".") for cell in row] for row in sample]
    return _TextLayout(separator, above, header, width, sample, has_decimal_comma)


def _separator(lines: list[str]) -> str:
    """The first separator that splits most lines into the same number of cells."""
    for separator in _SEPARATORS:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=separator))
        width, count = widths.most_common(1)[0]
        if width > 1 and 2 * count > len(lines):
            return separator
    return ","


def _is_data(row: list[str], width: int) -> bool:
    cells = [cell for cell in row if cell.strip()]
    values = sum(map(is_value, cells))
    return len(row) == width and values >= 2 and 2 * values >= len(cells)


def _header_place(rows: list[tuple[int, list[str]]], first: int, width: int) -> int | None:
    """The first line above the data with as many cells; titles and addresses have fewer."""
    above = [row for _, row in rows[:first]]
    if first == 0 and _counts_columns(rows[0][1]):
        return 0
    if first == len(rows):
        return next((at for at, row in enumerate(above) if len(row) == width), 0)
    whole = (at for at, row in enumerate(above) if len(row) == width)
    shorter = (at for at in reversed(range(first)) if len(above[at]) > 1)
    return next(whole, next(shorter, None))


def _counts_columns(row: list[str]) -> bool:
    """Whether this is what pandas writes above columns without names."""
    return row in ([str(i) for i in range(len(row))], [str(i + 1) for i in range(len(row))])


def _padded(names: list[str], width: int, rows: list[list[str]], file: str) -> tuple[str, ...]:
    """Names of all columns: some programs end each row, but not the header, with a separator."""
    surplus = [cell for row in rows for cell in row[len(names) :] if cell.strip()]
    if surplus and len(names) < width:
        raise InvalidInputError(
            f"{file}: the header has {len(names)} cells and the rows below it have {width}; "
            "give each column a name"
        )
    return (*names, *[""] * (width - len(names)))


def _has_decimal_comma(sample: list[list[str]]) -> bool:
    """Whether commas in numbers are decimal ones; three digits after each may be thousands."""
    matches = [_DECIMAL_COMMA.fullmatch(cell.strip()) for row in sample for cell in row]
    return any(match and len(match[1]) != 3 for match in matches)
