"""Removes what is older than a time from a store: rows, and all that is kept beside them.

Each part of a series goes in one transaction with its checksums and records, so a kill between two
parts leaves a store that is right and only reaches back further; a repeated removal ends it. Cuts
are midnights UTC, so no day is removed in part. The oldest rows go first.

    kept_from:SYMBOL  -> the time before which rows were removed, and not written again since

A removal is no change of the data (`series_changes.py`): what was made of the rows was right, and
what has not followed a change of them never will.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import msgspec

from llm_trader.market import (
    absent_spans,
    built_candles,
    checksums,
    jump_records,
    keys,
    notes,
    record_ranges,
    refused_rows,
    series_changes,
    series_records,
    symbol_versions,
)
from llm_trader.market.archive.plan import NOTES, file_of_path
from llm_trader.market.stored_series import StoredSeries, series_in
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import DAY_MS, Millis, iso8601

# Half a second of work, during which other writers wait; a month of 1-minute candles.
ROWS_PER_PART: Final = 43_200


class RemovedRows(msgspec.Struct, frozen=True):
    """What is removed, or would be, of one series: from the first to the last row."""

    database: str
    symbol: str
    rows: int
    first: str
    last: str


def rows_before(txn: ReadTransaction, cut_ms: Millis) -> list[RemovedRows]:
    """The rows of all series that are older than a time."""
    removed = []
    for series in record_ranges.all_series(txn):
        times = record_ranges.times(txn, series, None, cut_ms)
        if len(times):
            ends = iso8601(int(times[0])), iso8601(int(times[-1]))
            removed.append(RemovedRows(series.database, series.symbol, len(times), *ends))
    return removed


def oldest_part(txn: ReadTransaction, series: StoredSeries[Any], cut_ms: Millis) -> list[bytes]:
    """The keys of the oldest whole days before a cut: some `ROWS_PER_PART`, or those of a day."""
    cursor = txn.cursor(series.database)
    if cursor is None or not cursor.set_range(keys.first_key(series.symbol)):
        return []
    end = keys.end_key(series.symbol, cut_ms)
    found = [key for key in islice(cursor.iternext(values=False), ROWS_PER_PART) if key < end]
    if len(found) < ROWS_PER_PART:
        return [bytes(key) for key in found]
    first_day, last_day = (series.time(key) // DAY_MS for key in (found[0], found[-1]))
    end_ms = max(last_day, first_day + 1) * DAY_MS
    times = record_ranges.times(txn, series, None, min(end_ms, cut_ms)).tolist()
    return [keys.record_key(series.symbol, time_ms) for time_ms in times]


def remove_part(
    txn: WriteTransaction, series: StoredSeries[Any], record_keys: list[bytes], cut_ms: Millis
) -> None:
    """Remove the oldest rows of a series, and what is kept about them."""
    end_ms = min((series.time(record_keys[-1]) // DAY_MS + 1) * DAY_MS, cut_ms)
    series_records.record_removal(txn, series, len(record_keys), end_ms)
    built_candles.forget_before(txn, series, end_ms)
    for key in record_keys:
        txn.delete(series.database, key)
    checksums.forget_days(txn, series, end_ms // DAY_MS)
    symbol_versions.stamp_symbol(txn, series.symbol)


def begin_removal(txn: WriteTransaction, symbol: str, cut_ms: Millis) -> None:
    """Note the cut, before the first row is removed, and forget what was kept of earlier times."""
    put_kept_from(txn, symbol, max(cut_ms, kept_from_ms(txn, symbol) or 0))
    series_changes.forget_before(txn, symbol, cut_ms)
    jump_records.forget_before(txn, symbol, cut_ms)
    symbol_versions.stamp_symbol(txn, symbol)


def forget_ledgers_before(txn: WriteTransaction, cut_ms: Millis) -> None:
    """Forget what is noted of earlier times: absent and refused rows, and files of an archive."""
    for series in ledgers_of(txn, absent_spans.PREFIX):
        absent = absent_spans.read_absent(txn, series)
        kept = absent_spans.without_spans(absent, [absent_spans.Span(0, cut_ms)])
        if kept != absent:
            absent_spans.put_absent(txn, series, kept)
    for series in ledgers_of(txn, refused_rows.PREFIX):
        refused = refused_rows.read_refused(txn, series)
        rest = refused_rows.after_answer(refused, absent_spans.Span(0, cut_ms), [])
        if rest != refused:
            refused_rows.put_refused(txn, series, rest)
    for path in notes.read_notes(txn, NOTES):
        # Corrections of it would bring back what was removed.
        if file_of_path(path).period.end_ms <= cut_ms:
            notes.delete_note(txn, NOTES, path)


def ledgers_of(txn: ReadTransaction, prefix: str) -> list[StoredSeries[Any]]:
    """The series with a ledger of a kind; there may be rows or none."""
    names = (name.rpartition(":") for name in notes.read_notes(txn, prefix))
    return [series_in(database, symbol) for database, _, symbol in names]


def put_kept_from(txn: WriteTransaction, symbol: str, kept_ms: Millis) -> None:
    checksums.put_meta(txn, _key(symbol), b"%d" % kept_ms)


def lower_cut(txn: WriteTransaction, symbol: str, written_from_ms: Millis) -> None:
    """Note that rows from before the cut were written again."""
    kept_ms = kept_from_ms(txn, symbol)
    if kept_ms is not None and written_from_ms < kept_ms:
        put_kept_from(txn, symbol, -(-written_from_ms // DAY_MS) * DAY_MS)


def kept_from_ms(txn: ReadTransaction, symbol: str) -> Millis | None:
    """The time before which rows of a symbol were removed; None where none ever were."""
    return series_records.read_meta(txn, _key(symbol), int)


def _key(symbol: str) -> str:
    return f"kept_from:{symbol}"
