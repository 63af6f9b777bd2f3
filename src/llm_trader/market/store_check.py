"""Counts every row of a store and compares the records and the gap ledgers with the count.

It compares candles of different timeframes with each other, and names what candles say that markets
hardly do: jumps of the price, and stretches that repeat one candle. A deep check also compares
every row with its checksum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

import msgspec

from llm_trader.errors import StoreError
from llm_trader.market import checksums, keys, record_ranges
from llm_trader.market.absent_spans import Span, join_spans
from llm_trader.market.built_candles import read_built
from llm_trader.market.exchange.config import VENUES
from llm_trader.market.frozen import FrozenStretch, frozen_stretches
from llm_trader.market.jump_records import accepted_jumps
from llm_trader.market.jumps import Jump, jump_remedy, jumps_of_parts
from llm_trader.market.missing_rows import missing_rows, newest_close_ms
from llm_trader.market.series_records import (
    count_gaps,
    provenance,
    read_meta,
    read_record,
    recorded_gaps,
    recount,
)
from llm_trader.market.simulation import EXCHANGE as SIMULATED
from llm_trader.market.store_findings import (
    Finding,
    Problem,
    Remedies,
    SeriesFindings,
    zeros_between,
)
from llm_trader.market.stored_series import StoredSeries
from llm_trader.market.timeframe_check import Contradiction, contradictions
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis, iso8601

# What can be answered wrongly comes before what is only missing.
_GRAVEST_FIRST: Final = [
    "damage", "unreadable", "order", "off_grid", "in_future", "record", "contradiction", "jump",
    *get_args(Problem),
]  # fmt: skip


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
    """`findings` name all that is wrong or noted; `remedy` is that of the gravest."""

    path: str
    series: list[SeriesCheck]
    remedy: str | None
    file_problems: list[str] = []
    findings: list[Finding] = []

    @property
    def problems(self) -> int:
        """How many records, rows and pages are not as they were written."""
        return len(self.file_problems) + sum(len(series.problems) for series in self.series)

    @property
    def wrong(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.wrong]

    @property
    def failed(self) -> bool:
        return bool(self.file_problems or self.wrong)


def check_store(
    txn: ReadTransaction,
    path: str,
    page_problems: list[str] | None,
    now_ms: Millis | None = None,
) -> StoreCheck:
    """A deep check where the problems of the file's pages are given."""
    deep = page_problems is not None
    exchange = read_meta(txn, "exchange", str)
    remedies = Remedies(path, is_fetchable=exchange in VENUES)
    if exchange == SIMULATED:  # which may go on beyond the present
        now_ms = None
    contradicted = contradictions(txn)
    checks: list[SeriesCheck] = []
    findings: list[Finding] = []
    for series in record_ranges.all_series(txn):
        check = _with_oddities(txn, series, _check_series(txn, series, deep=deep))
        key = (series.symbol, series.timeframe)
        found = contradicted.get((key[0], key[1]), []) if key[1] else []
        findings += _findings(txn, series, check, found, remedies, now_ms)
        more = [str(one) for one in found]
        checks.append(msgspec.structs.replace(check, problems=[*check.problems, *more]))
    remedy = remedies.damage if page_problems else _gravest_remedy(findings, path, checks)
    return StoreCheck(path, checks, remedy, page_problems or [], findings)


def _gravest_remedy(
    findings: Sequence[Finding], path: str, checks: Sequence[SeriesCheck]
) -> str | None:
    wrong = [finding for finding in findings if finding.wrong]
    if not wrong:
        return None
    gravest = min(wrong, key=lambda finding: _GRAVEST_FIRST.index(finding.problem))
    if gravest.problem == "jump":  # one acceptance is of the candles of all timeframes
        return jump_remedy([j for c in checks for j in c.jumps or [] if not j.accepted], path)
    return gravest.remedy


def _findings(
    txn: ReadTransaction,
    series: StoredSeries[Any],
    check: SeriesCheck,
    contradicted: Sequence[Contradiction],
    remedies: Remedies,
    now_ms: Millis | None,
) -> Iterator[Finding]:
    try:
        times = record_ranges.times(txn, series)
    except StoreError:  # among the problems of the check
        times = series.times([])
    found = SeriesFindings(series, times, remedies)
    yield from found.of_records(check.problems, "damage" if check.damaged else "record")
    if not len(times):
        return
    yield from found.of_times(now_ms)
    candles_end_ms = newest_close_ms(txn, series.symbol)
    yield from found.of_missing(missing_rows(txn, series, times, candles_end_ms))
    if series.timeframe is None:
        yield from found.of_values(txn)
        return
    if check.jumps is None and not check.damaged:
        yield from found.of_unreadable("some candles cannot be read; --deep says which")
    yield from found.of_contradictions(contradicted)
    yield from found.of_jumps(check.jumps or ())
    yield from found.of_frozen(check.frozen or ())
    yield from found.of_incomplete(read_built(txn, series).incomplete_ms)


def spans_to_repair(txn: ReadTransaction, series: StoredSeries[Any]) -> list[Span]:
    """Gaps of any reason, candles built from a part of others, and zeros of open interest."""
    try:
        times = record_ranges.times(txn, series)
        missing = missing_rows(txn, series, times, newest_close_ms(txn, series.symbol))
        if series.timeframe is not None:
            step_ms, wrong = series.timeframe.ms, list(read_built(txn, series).incomplete_ms)
        elif series.database == keys.OPEN_INTEREST:
            samples = series.read(record_ranges.items(txn, series, None, None))
            step_ms, wrong = 1, times[zeros_between(samples)].tolist()
        else:
            step_ms, wrong = 1, []
    except StoreError:  # the check names the damage
        return []
    return join_spans([*(m.span for m in missing), *(Span(t, t + step_ms) for t in wrong)])


def repair_store(txn: WriteTransaction) -> None:
    """Write the record and the gap ledger of every series anew from its rows, and checksums."""
    for series in record_ranges.all_series(txn):
        record = read_record(txn, series)
        if record is not None and _check_series(txn, series).problems:
            recount(txn, series, provenance(txn, series), record.interval_ms)
        checksums.write_all(txn, series)


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
