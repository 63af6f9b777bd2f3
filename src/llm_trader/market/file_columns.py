"""Which columns of a file hold what: by their names, or by a known layout without a header."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CANDLE_FIELDS
from llm_trader.market.file_table import FileTable
from llm_trader.market.file_values import is_value

Kind: TypeAlias = Literal["candles", "funding", "open_interest"]
ColumnMapping: TypeAlias = Mapping[str, str]  # our name to the file's: {"timestamp_ms": "ts"}
ColumnPositions: TypeAlias = dict[str, int]  # our name to the number of the column, from 0

TIME: Final = "timestamp_ms"
FUNDING_INTERVAL: Final = "interval_hours"
SYMBOL: Final = "symbol"
CONFIRMED: Final = "confirmed"

# Names as exchanges and archives write them, tried in this order. Compared are small letters and
# digits alone, so "Open time", "openTime" and "open_time" are one name.
_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    TIME: (
        "timestamp_ms",
        "open_time_ms",
        "time_ms",
        "timestamp",
        "open_time",
        "open_timestamp",
        "unix",
        "unix_time",
        "unix_timestamp",
        "epoch",
        "time",
        "ts",
        "calc_time",
        "create_time",
        "funding_time",
        "funding_rate_timestamp",
        "start_time",
        "start_at",
        "datetime",
        "date_utc",
        "date",
        "t",
        "",  # the index of a pandas frame
    ),
    "open": ("open", "open_price", "o"),
    "high": ("high", "high_price", "h"),
    "low": ("low", "low_price", "l"),
    "close": ("close", "close_price", "c"),
    "volume": ("volume", "base_volume", "vol", "v"),
    "rate": ("funding_rate", "rate", "last_funding_rate"),
    FUNDING_INTERVAL: ("interval_hours", "funding_interval_hours"),
    "open_interest": ("open_interest", "sum_open_interest"),
    "open_interest_value": ("open_interest_value", "sum_open_interest_value"),
    SYMBOL: ("symbol", "pair", "ticker", "instrument", "inst_id", "instrument_id", "contract"),
    CONFIRMED: ("confirm", "confirmed", "is_confirmed", "is_closed", "is_final"),
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
# Say which rows to take, and are never stored.
_ABOUT_ROWS: Final[dict[str, tuple[str, ...]]] = {
    "candles": (SYMBOL, CONFIRMED),
    "funding": (SYMBOL,),
    "open_interest": (SYMBOL,),
}
_OUR_NAMES: Final = frozenset(
    name for names in (*_REQUIRED.values(), *_OPTIONAL.values()) for name in names
)
_BINANCE_METRICS_WIDTH: Final = 8
_OKX_CANDLE_WIDTH: Final = 9


def check_mapping(mapping: ColumnMapping) -> None:
    unknown = sorted(set(mapping) - _OUR_NAMES)
    if unknown:
        raise InvalidInputError(
            f"cannot map {', '.join(unknown)}; columns are: {', '.join(sorted(_OUR_NAMES))}"
        )


def find_columns(
    table: FileTable, kind: Kind, symbol: str, mapping: ColumnMapping
) -> ColumnPositions:
    """Raises `InvalidInputError` when a column cannot be found, naming what the file has."""
    if not table.has_header and not set(_REQUIRED[kind]) <= mapping.keys():
        positions = _known_layout(table, kind)
        return positions | {field: _numbered(table, field, mapping[field]) for field in mapping}
    positions = {}
    for field in (*_REQUIRED[kind], *_OPTIONAL[kind], *_ABOUT_ROWS[kind]):
        position = _named(table.columns, field, symbol, mapping)
        if position is not None:
            positions[field] = position
        elif field in mapping or field in _REQUIRED[kind]:
            raise _no_column(table, field, mapping)
    return positions


def describe_columns(positions: ColumnPositions) -> str:
    """Such as "column 1 is timestamp_ms, 2 is open"."""
    return "column " + ", ".join(f"{at + 1} is {field}" for field, at in positions.items())


def _named(columns: Sequence[str], field: str, symbol: str, mapping: ColumnMapping) -> int | None:
    if field in mapping:
        wanted = mapping[field]
        exact = [at for at, name in enumerate(columns) if name in (wanted, wanted.strip())]
        return exact[0] if exact else None
    plain = [_plain(name) for name in columns]
    for alias in map(_plain, _ALIASES[field]):
        if alias in plain:
            return plain.index(alias)
    if field == "volume":
        # "Volume BTC" and "volume_(btc)" of BTCUSDT; volume in the quote currency is another thing.
        bases = [name.removeprefix("volume").upper() for name in plain]
        volumes = [at for at, name in enumerate(plain) if name.startswith("volume")]
        return next((at for at in volumes if symbol.startswith(bases[at])), None)
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _no_column(table: FileTable, field: str, mapping: ColumnMapping) -> InvalidInputError:
    looked_for = mapping.get(field) or ", ".join(dict.fromkeys(filter(None, _ALIASES[field])))
    remedy = f"name the right one with --map {field}=COLUMN"
    if field == TIME and any(_plain(name) == "closetime" for name in table.columns):
        remedy = "import the times of close with --stamp close --map timestamp_ms=COLUMN"
    return InvalidInputError(
        f"{table.name}: no column for {field} (looked for {looked_for}); the file has: "
        f"{', '.join(table.columns)}; {remedy}"
    )


def _numbered(table: FileTable, field: str, number: str) -> int:
    if number not in table.columns:
        raise InvalidInputError(
            f"{table.name} has no header, so --map takes the number of a column: {field}={number} "
            f"is not one of 1 to {len(table.columns)}"
        )
    return table.columns.index(number)


# ---- files without a header


def _known_layout(table: FileTable, kind: Kind) -> ColumnPositions:
    layouts: dict[str, Callable[[FileTable], ColumnPositions | None]] = {
        "candles": _candle_layout,
        "funding": _funding_layout,
        "open_interest": _open_interest_layout,
    }
    positions = layouts[kind](table)
    if positions is None:
        first = table.sample[0] if table.sample else ()
        cells = ", ".join(f"{at + 1}: {cell.strip()}" for at, cell in enumerate(first))
        numbers = " ".join(f"--map {field}=NUMBER" for field in _REQUIRED[kind])
        raise InvalidInputError(
            f"{table.name} has no header, and its columns ({cells}) are in no order that is known "
            f"for {kind}; say which column is which: --no-header {numbers}"
        )
    return positions


def _candle_layout(table: FileTable) -> ColumnPositions | None:
    """Time, open, high, low, close, volume and more, as Binance, Bybit, OKX and Kraken write it."""
    width = len(table.columns)
    if width < 1 + len(CANDLE_FIELDS) or not _mostly(_is_candle, table.sample):
        return None
    positions = {field: at for at, field in enumerate((TIME, *CANDLE_FIELDS))}
    if width == _OKX_CANDLE_WIDTH and all(row[-1].strip() in "01" for row in table.sample):
        positions[CONFIRMED] = width - 1
    return positions


def _funding_layout(table: FileTable) -> ColumnPositions | None:
    """Time and rate, or those of Binance with the hours of the interval between them."""
    if len(table.columns) == 2 and _mostly(_all_values, table.sample):
        return {TIME: 0, "rate": 1}
    if len(table.columns) == 3 and _mostly(_is_funding, table.sample):
        return {TIME: 0, FUNDING_INTERVAL: 1, "rate": 2}
    return None


def _open_interest_layout(table: FileTable) -> ColumnPositions | None:
    """Time and open interest, or the metrics of Binance."""
    if len(table.columns) == 2 and _mostly(_all_values, table.sample):
        return {TIME: 0, "open_interest": 1}
    if len(table.columns) == _BINANCE_METRICS_WIDTH and not _mostly(_all_values, table.sample):
        return {TIME: 0, SYMBOL: 1, "open_interest": 2, "open_interest_value": 3}
    return None


def _mostly(holds: Callable[[Sequence[str]], bool], rows: Sequence[Sequence[str]]) -> bool:
    """A bad row must not change the layout; it is refused with its place when it is read."""
    return 2 * sum(map(holds, rows)) > len(rows)


def _is_candle(row: Sequence[str]) -> bool:
    try:
        open_, high, low, close, volume = map(float, row[1:6])
    except ValueError:
        return False
    return high >= max(open_, low, close) and low <= min(open_, close) and volume >= 0


def _is_funding(row: Sequence[str]) -> bool:
    return _all_values(row) and row[1].strip().isdigit() and 1 <= int(row[1]) <= 24


def _all_values(row: Sequence[str]) -> bool:
    return all(map(is_value, row))
