"""What later writes changed in each series, so that what was made from it can be made again.

    changes:SYMBOL  -> the number of the last change, and the changed stretches by database

A change replaces the values of stored rows, or adds rows before the last one: both alter states
that were built before. Rows behind the last one alter none, and leave no record. The record of a
symbol is written in the transaction of the rows, so neither is there without the other.

Each moment of a series belongs to the last change that touched it, so repeated corrections of a
row take the place of one. Beyond `STRETCHES_KEPT` a series' neighbouring stretches become one,
which then covers rows that did not change. Programs that write to the file themselves, such as
that of the original store, leave no record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.market import checksums, record_ranges
from llm_trader.market.series_records import read_meta, sample_interval_ms
from llm_trader.market.stored_series import Items, StoredSeries, open_interest_of, series_in
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis

# A record of some 6 KB per series at most, which a correction reads and writes once.
STRETCHES_KEPT: Final = 128


class Stretch(NamedTuple):
    """Rows from `first_ms` to `last_ms`, both included, that the change of a number altered."""

    first_ms: Millis
    last_ms: Millis
    change: int


class DataMark(msgspec.Struct, frozen=True):
    """How far a symbol's data had come: its last change, and the last time of each series.

    A change is numbered by the time at which it was written, in ms, or by one more than the one
    before, so numbers only grow. `ends_ms` is by database.
    """

    change: int
    ends_ms: dict[str, Millis]
    open_interest_interval_ms: Millis


class DataChanges(NamedTuple):
    """Stretches by database that changed since an earlier mark, and the mark of now."""

    stretches: dict[str, list[Stretch]]
    mark: DataMark


class _SymbolChanges(msgspec.Struct, frozen=True):
    change: int = 0
    stretches: dict[str, list[Stretch]] = {}


def record_changes(
    txn: WriteTransaction,
    series: StoredSeries[Any],
    former: Items,
    changed: Iterable[tuple[bytes, bytes]],
    written_at_ms: Millis,
) -> None:
    """Record which rows a write is about to change; `former` are the rows of the days it touches.

    Call it before the rows are written.
    """
    last_key = record_ranges.last_key(txn, series)
    if last_key is None:
        return
    altered = sorted(key for key, _ in changed if key <= last_key)
    if altered:
        runs = _runs(series.times(altered), series.times(former.keys))
        record_spans(txn, series, runs, written_at_ms)


def record_spans(
    txn: WriteTransaction,
    series: StoredSeries[Any],
    spans: Iterable[tuple[Millis, Millis]],
    written_at_ms: Millis = 0,
) -> None:
    """Record that what rows mean changed, from a first to a last time."""
    recorded = _read(txn, series.symbol)
    number = max(recorded.change + 1, written_at_ms)
    stretches = recorded.stretches.get(series.database, [])
    for first_ms, last_ms in spans:
        stretches = _replaced(stretches, Stretch(first_ms, last_ms, number))
    by_database = recorded.stretches | {series.database: _bounded(stretches)}
    content = msgspec.json.encode(_SymbolChanges(number, by_database))
    checksums.put_meta(txn, _key(series.symbol), content)


def forget_before(txn: WriteTransaction, symbol: str, cut_ms: Millis) -> None:
    """Forget what changed before a time: its rows are removed, so nothing can follow it."""
    recorded = _read(txn, symbol)
    kept = {
        database: [
            stretch._replace(first_ms=max(stretch.first_ms, cut_ms))
            for stretch in stretches
            if stretch.last_ms >= cut_ms
        ]
        for database, stretches in recorded.stretches.items()
    }
    if kept != recorded.stretches:
        content = msgspec.json.encode(_SymbolChanges(recorded.change, kept))
        checksums.put_meta(txn, _key(symbol), content)


def changes_since(txn: ReadTransaction, symbol: str, mark: DataMark | None) -> DataChanges:
    """What changed for a reader of the data at `mark`; without one, all that was ever recorded.

    Rows that were added behind the end of a series since then count as changed, because a reader
    may have noted that they were missing.
    """
    recorded = _read(txn, symbol)
    interval_ms = sample_interval_ms(txn, open_interest_of(symbol))
    now = DataMark(recorded.change, _ends_ms(txn, symbol), interval_ms)
    change = 0 if mark is None else mark.change
    since: dict[str, list[Stretch]] = {}
    for database, stretches in recorded.stretches.items():
        since[database] = [stretch for stretch in stretches if stretch.change > change]
    if mark is not None:
        # Another sampling interval changes which samples are fresh, in the whole series.
        same_sampling = interval_ms == mark.open_interest_interval_ms
        ends_ms = mark.ends_ms if same_sampling else _without_interest(mark.ends_ms, symbol)
        for database, end_ms in now.ends_ms.items():
            series = series_in(database, symbol)
            first_key = record_ranges.first_key(txn, series, ends_ms.get(database, -1) + 1)
            if first_key is not None:
                added = Stretch(series.time(first_key), end_ms, now.change)
                since.setdefault(database, []).append(added)
    return DataChanges({name: stretches for name, stretches in since.items() if stretches}, now)


def _ends_ms(txn: ReadTransaction, symbol: str) -> dict[str, Millis]:
    all_series = [series_in(name, symbol) for name in record_ranges.series_databases(txn)]
    last_keys = {series: record_ranges.last_key(txn, series) for series in all_series}
    return {s.database: s.time(key) for s, key in last_keys.items() if key is not None}


def _without_interest(ends_ms: dict[str, Millis], symbol: str) -> dict[str, Millis]:
    interest = open_interest_of(symbol).database
    return {database: end_ms for database, end_ms in ends_ms.items() if database != interest}


def _runs(altered: Times, former: Times) -> list[tuple[Millis, Millis]]:
    """Runs of altered rows with no other row between them, at most `STRETCHES_KEPT`."""
    rows = np.union1d(altered, former)
    is_altered = np.isin(rows, altered)
    edges = np.flatnonzero(np.diff(is_altered, prepend=False, append=False))
    first, last = rows[edges[::2]], rows[edges[1::2] - 1]
    if len(first) > STRETCHES_KEPT:
        gaps = first[1:] - last[:-1]
        # The widest gaps stay, so that as few unchanged rows as possible are covered.
        kept = np.sort(np.argsort(gaps, kind="stable")[-(STRETCHES_KEPT - 1) :])
        first, last = first[np.append(0, kept + 1)], last[np.append(kept, len(last) - 1)]
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _replaced(stretches: Sequence[Stretch], new: Stretch) -> list[Stretch]:
    """With a new stretch, in order of time; what it covers of others no longer counts."""
    parts = [new]
    for old in stretches:
        before = old._replace(last_ms=min(old.last_ms, new.first_ms - 1))
        after = old._replace(first_ms=max(old.first_ms, new.last_ms + 1))
        parts += [part for part in (before, after) if part.first_ms <= part.last_ms]
    return sorted(parts)


def _bounded(stretches: list[Stretch]) -> list[Stretch]:
    """At most `STRETCHES_KEPT`: neighbours that cost the fewest needless rows become one."""
    kept = list(stretches)
    while len(kept) > STRETCHES_KEPT:
        _, row = min((_cost(*pair), row) for row, pair in enumerate(pairwise(kept)))
        one, other = kept[row : row + 2]
        kept[row : row + 2] = [Stretch(one.first_ms, other.last_ms, max(one.change, other.change))]
    return kept


def _cost(one: Stretch, other: Stretch) -> tuple[Millis, int]:
    """The time that merging declares changed anew; of equal ones, the older pair is better."""
    older = min(one, other, key=lambda stretch: stretch.change)
    renewed_ms = 0 if one.change == other.change else older.last_ms - older.first_ms
    return renewed_ms + other.first_ms - one.last_ms, max(one.change, other.change)


def _read(txn: ReadTransaction, symbol: str) -> _SymbolChanges:
    return read_meta(txn, _key(symbol), _SymbolChanges) or _SymbolChanges()


def _key(symbol: str) -> str:
    return f"changes:{symbol}"
