"""Walking the store's key space inside one transaction."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeVar

from llm_trader.arrays import Times
from llm_trader.market import keys
from llm_trader.market.stored_series import Items, StoredSeries
from llm_trader.timeframe import Millis

T = TypeVar("T")


class Snapshot:
    """One state of the store: a transaction, and those of its databases that hold series or meta.

    Valid as long as the transaction. In a write transaction it sees what that has written.
    """

    def __init__(self, txn: Any, databases: Mapping[str, Any]) -> None:
        self._txn = txn
        self._databases = databases

    def databases(self) -> list[str]:
        """Those that hold series, sorted by name."""
        return sorted(filter(keys.holds_series, self._databases))

    def is_blank(self) -> bool:
        """Whether there is nothing at all in the environment, of any program."""
        return bool(self._txn.stat()["entries"] == 0)

    def meta(self, key: str) -> bytes | None:
        if keys.META not in self._databases:
            return None
        found = self._txn.get(key.encode("ascii"), db=self._databases[keys.META])
        return None if found is None else bytes(found)

    def put_meta(self, key: str, value: bytes) -> None:
        self._txn.put(key.encode("ascii"), value, db=self._databases[keys.META])

    def put(self, database: str, items: list[tuple[bytes, bytes]]) -> None:
        self._cursor(database).putmulti(items)

    def symbols(self, database: str) -> Iterator[str]:
        """By one seek per symbol, not a scan."""
        cursor = self._cursor(database)
        there = cursor.first()
        while there:
            key = cursor.key()
            symbol = keys.symbol_of(key)
            if symbol is not None:
                yield symbol
            there = cursor.set_range(keys.key_after_symbol(key))

    def has(self, database: str, symbol: str) -> bool:
        if database not in self._databases:
            return False
        cursor = self._cursor(database)
        first = keys.first_key(symbol)
        return bool(cursor.set_range(first)) and cursor.key().startswith(first)

    def first_key(self, database: str, symbol: str) -> bytes | None:
        if not self.has(database, symbol):
            return None
        cursor = self._cursor(database)
        cursor.set_range(keys.first_key(symbol))
        return bytes(cursor.key())

    def last_key(self, database: str, symbol: str, end_ms: Millis | None = None) -> bytes | None:
        """The newest key, of those with a time before `end_ms` where that is given."""
        if database not in self._databases:
            return None
        cursor = self._cursor(database)
        there = cursor.prev() if cursor.set_range(keys.end_key(symbol, end_ms)) else cursor.last()
        key = bytes(cursor.key()) if there else b""
        return key if key.startswith(keys.first_key(symbol)) else None

    def items(
        self, series: StoredSeries[Any], start_ms: Millis | None, end_ms: Millis | None
    ) -> Items:
        """The records with `start_ms <= time < end_ms`."""
        found = Items([], [])
        cursor = self._seek(series, start_ms)
        if cursor is not None:
            for chunk in _chunks(cursor.iternext(), keys.end_key(series.symbol, end_ms), _first):
                found.keys.extend(key for key, _ in chunk)
                found.values.extend(value for _, value in chunk)
        return found

    def times(self, series: StoredSeries[Any]) -> Times:
        """Every time of a series, without its values."""
        cursor = self._seek(series, None)
        if cursor is None:
            return series.times([])
        chunks = _chunks(cursor.iternext(values=False), keys.end_key(series.symbol), _itself)
        return series.times(list(chain.from_iterable(chunks)))

    def _seek(self, series: StoredSeries[Any], start_ms: Millis | None) -> Any | None:
        if series.database not in self._databases:
            return None
        cursor = self._cursor(series.database)
        return cursor if cursor.set_range(keys.first_key(series.symbol, start_ms)) else None

    def _cursor(self, database: str) -> Any:
        return self._txn.cursor(db=self._databases[database])


def _first(item: tuple[bytes, bytes]) -> bytes:
    return item[0]


def _itself(key: bytes) -> bytes:
    return key


def _chunks(found: Iterator[T], end: bytes, key: Callable[[T], bytes]) -> Iterator[list[T]]:
    """What comes before the key `end`. Looking at one key in a thousand halves a read's time."""
    while chunk := list(islice(found, 1024)):
        if key(chunk[-1]) >= end:
            yield chunk[: bisect_left(chunk, end, key=key)]
            return
        yield chunk
