"""The layout of the store: names of databases, and keys whose byte order is the order of time."""

from __future__ import annotations

import re
from typing import Final

from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import MAX_TIME_MS, MIN_TIME_MS, Millis, Timeframe

FUNDING: Final = "funding"
OPEN_INTEREST: Final = "open_interest"
META: Final = "meta"
CHECKSUMS: Final = "checksums"
TIME_DIGITS: Final = 13  # of a time in ms from 2001 to 2286, so byte order is time order
_CANDLES: Final = "candles_"

# Every key of a symbol lies between `SYMBOL:` and `SYMBOL;`, the next byte after the colon.
_BEFORE: Final = b":"
_AFTER: Final = b";"

SYMBOL_PATTERN: Final = "[A-Z0-9]{2,20}"
_SYMBOL: Final = re.compile(SYMBOL_PATTERN)


def checked_symbol(symbol: str) -> str:
    if not _SYMBOL.fullmatch(symbol):
        pair = re.sub("[-/_ ]", "", symbol.upper().partition(":")[0])
        example = pair if _SYMBOL.fullmatch(pair) else "BTCUSDT"
        raise InvalidInputError(
            f"symbol {symbol!r} is not 2 to 20 capital letters and digits, such as {example}"
        )
    return symbol


def checked_exchange(exchange: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,31}", exchange):
        raise InvalidInputError(
            f"exchange {exchange!r} is not 2 to 32 small letters, digits or dashes, such as bybit"
        )
    return exchange


def candles_database(timeframe: Timeframe) -> str:
    return f"{_CANDLES}{timeframe}"


def timeframe_of(database: str) -> Timeframe | None:
    """The timeframe whose candles a database holds; `None` for databases of anything else."""
    if not database.startswith(_CANDLES):
        return None
    try:
        return Timeframe.parse(database.removeprefix(_CANDLES))
    except InvalidInputError:
        return None


def holds_series(database: str) -> bool:
    return database in (FUNDING, OPEN_INTEREST) or timeframe_of(database) is not None


def record_key(symbol: str, time_ms: Millis) -> bytes:
    return f"{symbol}:{time_ms}".encode("ascii")


def first_key(symbol: str, from_ms: Millis | None = None) -> bytes:
    """The lowest key a record of `symbol` at or after `from_ms` could have."""
    if from_ms is None or from_ms <= MIN_TIME_MS:
        return symbol.encode("ascii") + _BEFORE
    if from_ms > MAX_TIME_MS:
        return symbol.encode("ascii") + _AFTER
    return record_key(symbol, from_ms)


def end_key(symbol: str, before_ms: Millis | None = None) -> bytes:
    """A key above every record of `symbol` before `before_ms`, and above none other."""
    if before_ms is None:
        return symbol.encode("ascii") + _AFTER
    return first_key(symbol, before_ms)


def symbol_of(key: bytes) -> str | None:
    """The symbol of a record's key; `None` for keys of any other layout."""
    name = key.partition(_BEFORE)[0].decode("ascii", "replace")
    return name if _SYMBOL.fullmatch(name) else None


def key_after_symbol(key: bytes) -> bytes:
    """Where to look for the first key of the next symbol."""
    return key.partition(_BEFORE)[0] + _AFTER
