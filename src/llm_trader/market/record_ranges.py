"""Records of a series within one transaction, found by seeking in the order of their keys."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeVar

import numpy as np

from llm_trader.arrays import Times
from llm_trader.market import keys
from llm_trader.market.candles import CandleSeries
from llm_trader.market.stored_series import Items, StoredSeries, series_in
from llm_trader.storage.environment import ReadTransaction
from llm_trader.timeframe import Millis

T = TypeVar("T")

# Comparing one key in this many with the end of the range halves the time of a read.
_CHUNK: Final = 1024
# Some 20 MB while they are decoded.
_CANDLES_OF_A_PART: Final = 50_000


def series_databases(txn: ReadTransaction) -> list[str]:
    return sorted(filter(keys.holds_series, txn.databases))


def symbols(txn: ReadTransaction, database: str) -> Iterator[str]:
    """The symbols of a database, by one seek per symbol instead of a scan."""
    cursor = txn.cursor(database)
    positioned = cursor is not None and cursor.first()
    while cursor is not None and positioned:
        key = cursor.key()
        symbol = keys.symbol_of(key)
        if symbol is not None:
            yield symbol
        positioned = cursor.set_range(keys.key_after_symbol(key))


def all_series(txn: ReadTransaction) -> Iterator[StoredSeries[Any]]:
    for database in series_databases(txn):
        for symbol in symbols(txn, database):
            yield series_in(database, symbol)


def first_key(
    txn: ReadTransaction, series: StoredSeries[Any], start_ms: Millis | None = None
) -> bytes | None:
    """The key of the oldest record, of those at or after `start_ms` where that is given."""
    cursor = _seek(txn, series, start_ms)
    return _own_key(series, cursor.key()) if cursor else None


def last_key(
    txn: ReadTransaction, series: StoredSeries[Any], end_ms: Millis | None = None
) -> bytes | None:
    """The key of the newest record, of those before `end_ms` where that is given."""
    cursor = txn.cursor(series.database)
    if cursor is None:
        return None
    # LMDB seeks forwards only; the record before the end is one step back from there.
    if cursor.set_range(keys.end_key(series.symbol, end_ms)):
        positioned = cursor.prev()
    else:
        positioned = cursor.last()
    return _own_key(series, cursor.key()) if positioned else None


def items(
    txn: ReadTransaction,
    series: StoredSeries[Any],
    start_ms: Millis | None,
    end_ms: Millis | None,
) -> Items:
    """The records with `start_ms <= time < end_ms`."""
    records = Items([], [])
    cursor = _seek(txn, series, start_ms)
    if cursor is not None:
        end = keys.end_key(series.symbol, end_ms)
        for chunk in _chunks_before(end, cursor.iternext(), itemgetter(0)):
            records.keys.extend(key for key, _ in chunk)
            records.values.extend(value for _, value in chunk)
    return records


def times(
    txn: ReadTransaction,
    series: StoredSeries[Any],
    start_ms: Millis | None = None,
    end_ms: Millis | None = None,
) -> Times:
    """The times of the records with `start_ms <= time < end_ms`, read from the keys alone."""
    cursor = _seek(txn, series, start_ms)
    if cursor is None:
        return series.times([])
    all_keys = cursor.iternext(values=False)
    chunks = _chunks_before(keys.end_key(series.symbol, end_ms), all_keys, lambda key: key)
    # As numbers, chunk by chunk: the keys of a long series would take eight times the memory.
    return np.concatenate([series.times([]), *map(series.times, chunks)])


def parts(txn: ReadTransaction, series: StoredSeries[CandleSeries]) -> Iterator[CandleSeries]:
    """All candles of a series in parts; each begins with the last candle of the one before.

    As one, ten million candles would take gigabytes. Raises `StoreError` as `StoredSeries.read`.
    """
    step = series.timeframe.ms if series.timeframe else 0
    key = first_key(txn, series)
    begin_ms: Millis | None = None
    while key is not None:
        start_ms = series.time(key)
        end_ms = start_ms + _CANDLES_OF_A_PART * step
        part = series.read(items(txn, series, start_ms if begin_ms is None else begin_ms, end_ms))
        yield part
        begin_ms = int(part.times[-1])
        key = first_key(txn, series, begin_ms + 1)


def _seek(txn: ReadTransaction, series: StoredSeries[Any], start_ms: Millis | None) -> Any | None:
    cursor = txn.cursor(series.database)
    start = keys.first_key(series.symbol, start_ms)
    return cursor if cursor is not None and cursor.set_range(start) else None


def _own_key(series: StoredSeries[Any], key: bytes) -> bytes | None:
    return bytes(key) if key.startswith(keys.first_key(series.symbol)) else None


def _chunks_before(
    end: bytes, records: Iterator[T], key: Callable[[T], bytes]
) -> Iterator[list[T]]:
    while chunk := list(islice(records, _CHUNK)):
        if key(chunk[-1]) >= end:
            yield chunk[: bisect_left(chunk, end, key=key)]
            return
        yield chunk
