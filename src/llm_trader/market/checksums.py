"""Checksums beside the records of a store, which stay as they are.

    checksums  DATABASE:SYMBOL:day  -> epoch, CRC-32 of the keys and values of that UTC day
               meta:KEY             -> epoch, CRC-32 of a record of `meta`
               writes               -> last transaction, epoch

Rows without a checksum are accepted: the original program, and earlier versions of this one, write
without leaving any. The last transaction betrays them: while it is not the one in `writes`, nothing
is compared, and the next write of this program begins a new epoch, in which only what it writes has
checksums. `llm-trader data check --repair` gives checksums to all rows.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise, takewhile
from typing import Any, Final
from zlib import crc32

import numpy as np

from llm_trader.errors import StoreError
from llm_trader.market import keys, record_ranges
from llm_trader.market.stored_series import Items, StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import DAY_MS, MAX_TIME_MS, Millis, iso8601

_WRITES: Final = b"writes"
_PAIR: Final = struct.Struct("<QI")  # a transaction or epoch, and an epoch or checksum
_LAST_DAY: Final = MAX_TIME_MS // DAY_MS
_DAY_DIGITS: Final = 6


def checked_items(
    txn: ReadTransaction, series: StoredSeries[Any], start_ms: Millis | None, end_ms: Millis | None
) -> Items:
    """The records with `start_ms <= time < end_ms`; raises `StoreError` for a damaged day."""
    days = _Days(start_ms, end_ms)
    expected = _stored_checksums(txn, series, days)
    if not expected:
        return record_ranges.items(txn, series, start_ms, end_ms)
    whole = record_ranges.items(txn, series, *days.range_ms)
    if damaged := _differing(series, whole, expected):
        raise _damaged(series, damaged[0])
    first = bisect_left(whole.keys, keys.first_key(series.symbol, start_ms))
    end = bisect_left(whole.keys, keys.end_key(series.symbol, end_ms))
    return Items(whole.keys[first:end], whole.values[first:end])


def damaged_days(txn: ReadTransaction, series: StoredSeries[Any]) -> list[str]:
    """In words, the days of a series that are not as they were written."""
    expected = _stored_checksums(txn, series, _Days(None, None))
    whole = record_ranges.items(txn, series, None, None) if expected else Items([], [])
    return [_damaged(series, day).message for day in _differing(series, whole, expected)]


class DayChecksums:
    """Keeps the checksums of the days that one write touches.

    A day that was damaged before stays so, unless the write brings all of its rows.
    """

    def __init__(self, txn: WriteTransaction, series: StoredSeries[Any], new: Items) -> None:
        times = series.times(new.keys)
        self._txn, self._series = txn, series
        self._days = _Days(int(times[0]), int(times[-1]) + 1)
        self._touched = set(np.unique(times // DAY_MS).tolist())
        self.former = record_ranges.items(txn, series, *self._days.range_ms)
        expected = _stored_checksums(txn, series, self._days)
        damaged = self._touched.intersection(_differing(series, self.former, expected))
        self.mended: set[int] = set()
        if damaged:
            brought = set(new.keys)
            rows = dict(_by_day(series, self.former))
            self.mended = {day for day in damaged if brought.issuperset(rows[day].keys)}
        self._kept_damaged = damaged - self.mended

    def write(self) -> None:
        """After the rows: the checksums of all touched days."""
        epoch = _begin_write(self._txn)
        rows = record_ranges.items(self._txn, self._series, *self._days.range_ms)
        records = [
            (_day_key(self._series, day), _PAIR.pack(epoch, _checksum(part)))
            for day, part in _by_day(self._series, rows)
            if day in self._touched and day not in self._kept_damaged
        ]
        self._txn.put_many(keys.CHECKSUMS, records)


def write_all(txn: WriteTransaction, series: StoredSeries[Any]) -> None:
    """Give checksums to all rows of a series that are not known to be damaged."""
    expected = _stored_checksums(txn, series, _Days(None, None))
    rows = record_ranges.items(txn, series, None, None)
    kept = set(_differing(series, rows, expected))
    epoch = _begin_write(txn)
    records = [
        (_day_key(series, day), _PAIR.pack(epoch, _checksum(part)))
        for day, part in _by_day(series, rows)
        if day not in kept
    ]
    txn.put_many(keys.CHECKSUMS, records)


def put_meta(txn: WriteTransaction, key: str, content: bytes) -> None:
    name = key.encode()
    txn.put(keys.META, name, content)
    epoch = _begin_write(txn)
    txn.put(keys.CHECKSUMS, _meta_key(name), _PAIR.pack(epoch, crc32(content)))


def delete_meta(txn: WriteTransaction, key: str) -> None:
    name = key.encode()
    txn.delete(keys.META, name)
    _begin_write(txn)
    txn.delete(keys.CHECKSUMS, _meta_key(name))


def forget_days(txn: WriteTransaction, series: StoredSeries[Any], before_day: int) -> None:
    """Remove the checksums of days, counted from 1970, whose rows were removed."""
    _begin_write(txn)
    cursor = txn.cursor(keys.CHECKSUMS)
    if cursor is None or not cursor.set_range(_day_key(series, 0)):
        return
    end = _day_key(series, before_day)
    for key in list(takewhile(lambda key: key < end, cursor.iternext(values=False))):
        txn.delete(keys.CHECKSUMS, key)


def get_meta(txn: ReadTransaction, key: str) -> bytes | None:
    """A record of `meta`; raises `StoreError` where it differs from its checksum."""
    name = key.encode()
    content = txn.get(keys.META, name)
    stored = None if content is None else txn.get(keys.CHECKSUMS, _meta_key(name))
    if content is not None and stored is not None and len(stored) == _PAIR.size:
        epoch, checksum = _PAIR.unpack(stored)
        if epoch == _epoch(txn) and checksum != crc32(content):
            raise StoreError(
                f"the record {key!r} in {keys.META} is not as it was written; import the data "
                "into a new store, or restore a backup"
            )
    return content


class _Days:
    """The whole UTC days around a range of time, None leaving a side open."""

    def __init__(self, start_ms: Millis | None, end_ms: Millis | None) -> None:
        self.first = 0 if start_ms is None else max(0, start_ms // DAY_MS)
        self.end = _LAST_DAY + 1 if end_ms is None else min(_LAST_DAY + 1, -(-end_ms // DAY_MS))
        self.range_ms = (
            None if start_ms is None else self.first * DAY_MS,
            None if end_ms is None else self.end * DAY_MS,
        )


def _epoch(txn: ReadTransaction) -> int | None:
    """The epoch whose checksums hold; None after a write that left none."""
    stored = txn.get(keys.CHECKSUMS, _WRITES)
    if stored is None or len(stored) != _PAIR.size:
        return None
    last, epoch = _PAIR.unpack(stored)
    transaction = txn.version[1]
    # A write transaction has a number of its own.
    known = (transaction - 1, transaction) if isinstance(txn, WriteTransaction) else (transaction,)
    return int(epoch) if last in known else None


def _begin_write(txn: WriteTransaction) -> int:
    """The epoch of this write transaction, which is recorded as one that keeps checksums."""
    epoch = _epoch(txn)
    if epoch is None:
        stored = txn.get(keys.CHECKSUMS, _WRITES)
        former = _PAIR.unpack(stored)[1] if stored and len(stored) == _PAIR.size else 0
        epoch = int(former) + 1
    txn.put(keys.CHECKSUMS, _WRITES, _PAIR.pack(txn.version[1], epoch))
    return epoch


def _stored_checksums(
    txn: ReadTransaction, series: StoredSeries[Any], days: _Days
) -> dict[int, int]:
    """The checksums that hold, by day."""
    epoch, cursor = _epoch(txn), txn.cursor(keys.CHECKSUMS)
    checksums: dict[int, int] = {}
    if epoch is None or cursor is None or not cursor.set_range(_day_key(series, days.first)):
        return checksums
    end = _day_key(series, days.end)
    for key, value in cursor:
        if key >= end:
            break
        day = key[-_DAY_DIGITS:]
        if day.isdigit() and len(value) == _PAIR.size:
            written_in, checksum = _PAIR.unpack(value)
            if written_in == epoch:
                checksums[int(day)] = checksum
    return checksums


def _differing(series: StoredSeries[Any], rows: Items, expected: dict[int, int]) -> list[int]:
    """The days whose rows do not have the expected checksum; days without one are accepted."""
    if not expected:
        return []
    actual = {day: _checksum(part) for day, part in _by_day(series, rows) if day in expected}
    return [day for day, checksum in expected.items() if actual.get(day) != checksum]


def _by_day(series: StoredSeries[Any], rows: Items) -> Iterator[tuple[int, Items]]:
    days = series.times(rows.keys) // DAY_MS
    bounds = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for first, end in pairwise(bounds):
        if end > first:
            yield int(days[first]), Items(rows.keys[first:end], rows.values[first:end])


def _checksum(rows: Items) -> int:
    return crc32(b"".join(rows.values), crc32(b"".join(rows.keys)))


def _day_key(series: StoredSeries[Any], day: int) -> bytes:
    return f"{series}:{day:0{_DAY_DIGITS}d}".encode()


def _meta_key(name: bytes) -> bytes:
    return b"meta:" + name


def _damaged(series: StoredSeries[Any], day: int) -> StoreError:
    date = iso8601(day * DAY_MS)[:10]
    return StoreError(
        f"damaged: the rows of {series.symbol} in {series.database} on {date} are not as they "
        "were written; import that day again, or restore a backup",
        database=series.database,
        key=f"{series.symbol}:{day * DAY_MS}",
    )
