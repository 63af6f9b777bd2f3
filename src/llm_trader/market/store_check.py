"""Counts every row of a store and compares the records and the gap ledgers with the count.

It compares candles of different timeframes with each other, and names what candles say that markets
hardly do: jumps of the price, and stretches that repeat one candle. A deep check also compares
every row with its checksum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llm_trader.errors import StoreError
from llm_trader.market import checksums, record_ranges
from llm_trader.market.built_candles import read_built
from llm_trader.market.frozen import FrozenStretch, frozen_stretches
from llm_trader.market.jump_records import accepted_jumps
from llm_trader.market.jumps import Jump, jump_remedy, jumps_of_parts
from llm_trader.market.series_records import (
    count_gaps,
    provenance,
    read_record,
    recorded_gaps,
    recount,
)
from llm_trader.market.stored_series import StoredSeries
from llm_trader.market.timeframe_check import contradictions
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Timeframe, iso8601


class SeriesCheck(msgspec.Struct, frozen=True):
    """`jumps` and `frozen` are `None` where candles cannot be read, which a deep check names."""

    kind: str
    symbol: str
    timeframe: str | None
    rows: int
    problems: list[str]
    damaged: bool = False  # in a way that no count can mend
    jumps: list[Jump] | None = []
    frozen: list[FrozenStretch] | None = []
    incomplete: int = 0  # candles that were built from a part of their finer ones


class StoreCheck(msgspec.Struct, frozen=True):
    path: str
    series: list[SeriesCheck]
    remedy: str | None
    file_problems: list[str] = []

    @property
    def problems(self) -> int:
        return len(self.file_problems) + sum(len(series.problems) for series in self.series)

    @property
    def unaccepted_jumps(self) -> list[Jump]:
        return [jump for series in self.series for jump in series.jumps or [] if not jump.accepted]


def check_store(txn: ReadTransaction, path: str, page_problems: list[str] | None) -> StoreCheck:
    """A deep check where the problems of the file's pages are given."""
    deep = page_problems is not None
    checks = [
        _with_oddities(txn, series, _check_series(txn, series, deep=deep))
        for series in record_ranges.all_series(txn)
    ]
    contradicted = contradictions(txn)
    remedy = None
    if page_problems or any(check.damaged for check in checks):
        remedy = (
            "import the damaged days again, or restore a backup; the file itself is mended by "
            "importing the data into a new store"
        )
    elif any(check.problems for check in checks):
        remedy = f"correct them with: llm-trader data check --repair --store {path}"
    elif contradicted:
        remedy = (
            "find which of the two has wrong times or is of another market, and import the right "
            "candles of it"
        )
    checks = [_with_problems(check, contradicted) for check in checks]
    report = StoreCheck(path, checks, remedy, page_problems or [])
    if remedy is None and (jumps := report.unaccepted_jumps):
        return msgspec.structs.replace(report, remedy=jump_remedy(jumps, path))
    return report


def repair_store(txn: WriteTransaction) -> None:
    """Write the record and the gap ledger of every series anew from its rows, and checksums."""
    for series in record_ranges.all_series(txn):
        record = read_record(txn, series)
        if record is not None and _check_series(txn, series).problems:
            recount(txn, series, provenance(txn, series), record.interval_ms)
        checksums.write_all(txn, series)


def _with_problems(
    check: SeriesCheck, contradicted: Mapping[tuple[str, Timeframe], list[str]]
) -> SeriesCheck:
    if check.timeframe is None:
        return check
    more = contradicted.get((check.symbol, Timeframe.parse(check.timeframe)), [])
    return msgspec.structs.replace(check, problems=[*check.problems, *more]) if more else check


def _check_series(
    txn: ReadTransaction, series: StoredSeries[Any], *, deep: bool = False
) -> SeriesCheck:
    kind = "candles" if series.timeframe else series.database
    timeframe = str(series.timeframe) if series.timeframe else None
    try:
        rows, problems = _problems(txn, series)
    except StoreError as error:
        rows, problems = 0, [error.message]
    damage = _damage(txn, series) if deep else []
    incomplete = len(read_built(txn, series).incomplete_ms) if rows else 0
    return SeriesCheck(
        kind,
        series.symbol,
        timeframe,
        rows,
        [*damage, *problems],
        damaged=bool(damage),
        incomplete=incomplete,
    )


def _with_oddities(
    txn: ReadTransaction, series: StoredSeries[Any], check: SeriesCheck
) -> SeriesCheck:
    if series.timeframe is None:
        return check
    accepted = accepted_jumps(txn, series.symbol)
    try:
        jumps = jumps_of_parts(series.symbol, record_ranges.parts(txn, series), accepted)
        frozen = frozen_stretches(record_ranges.parts(txn, series))
    except StoreError:
        return msgspec.structs.replace(check, jumps=None, frozen=None)
    return msgspec.structs.replace(check, jumps=jumps, frozen=frozen)


def _damage(txn: ReadTransaction, series: StoredSeries[Any]) -> list[str]:
    """The days that differ from their checksums; without any, the first row that cannot be read."""
    try:
        if days := checksums.damaged_days(txn, series):
            return days
        series.read(record_ranges.items(txn, series, None, None))
    except StoreError as error:
        return [error.message]
    return []


def _problems(txn: ReadTransaction, series: StoredSeries[Any]) -> tuple[int, list[str]]:
    times = record_ranges.times(txn, series)
    problems = []
    record = read_record(txn, series)
    if record is not None:
        counted = len(times), int(times[0]), int(times[-1])
        names = "row count", "first time", "last time"
        for name, recorded, actual in zip(names, record.extent(), counted, strict=True):
            if recorded != actual:
                problems.append(f"the {name} is {actual}, but the record says {recorded}")
    ledger = recorded_gaps(txn, series, record)
    if ledger is not None:
        gaps = count_gaps(series, times)
        for text, differing in (
            ("missing from the ledger", set(gaps).difference(ledger)),
            ("in the ledger but not in the rows", set(ledger).difference(gaps)),
        ):
            if differing:
                first = iso8601(min(differing).start_ms)
                problems.append(f"{len(differing)} gaps are {text}, the first from {first}")
        if record is not None and record.gaps not in (None, len(ledger)):
            problems.append(f"the ledger has {len(ledger)} gaps, the record says {record.gaps}")
    return len(times), problems
