"""What `meta` keeps about each series: its extent, its sampling, its sources and its gaps.

    series:DATABASE:SYMBOL        -> SeriesRecord, with the source that wrote last
    sources:DATABASE:SYMBOL       -> the sources before that one
    gap:DATABASE:SYMBOL:start_ms  -> end_ms

A write updates them from the rows around it, so appending a candle costs the same to a long
series as to a short one. Where there is no record, or one of the former layout, which held all
sources and left the gaps in one list at `gaps:DATABASE:SYMBOL`, the first write counts all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from llm_trader.arrays import Times
from llm_trader.errors import StoreError
from llm_trader.market import checksums, keys, record_ranges
from llm_trader.market.candles import Gap, gaps_between
from llm_trader.market.samples import sampling_interval_ms
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import HOUR_MS, MAX_TIME_MS, Millis

T = TypeVar("T")


class Source(msgspec.Struct, frozen=True):
    """One origin of a series: the span it covered, and the rows it added or replaced."""

    source: str
    first_ms: Millis
    last_ms: Millis
    rows: int
    written_at_ms: Millis

    def extended(self, later: Source) -> Source:
        return Source(
            self.source,
            min(self.first_ms, later.first_ms),
            max(self.last_ms, later.last_ms),
            self.rows + later.rows,
            later.written_at_ms,
        )


class SeriesOrigin(NamedTuple):
    """The extent of a series, how far apart its samples were said to be, and where it is from."""

    first_ms: Millis
    last_ms: Millis
    interval_ms: Millis | None
    sources: list[Source]


class SeriesRecord(msgspec.Struct, frozen=True):
    rows: int
    first_ms: Millis
    last_ms: Millis
    interval_ms: Millis | None
    sources: tuple[Source, ...]
    gaps: int | None = None  # None in the former layout

    def extent(self) -> tuple[int, Millis, Millis]:
        return self.rows, self.first_ms, self.last_ms


def read_record(txn: ReadTransaction, series: StoredSeries[Any]) -> SeriesRecord | None:
    return read_meta(txn, f"series:{series}", SeriesRecord)


def recorded_gaps(
    txn: ReadTransaction, series: StoredSeries[Any], record: SeriesRecord | None
) -> list[Gap] | None:
    """The gap ledger of either layout; None where there is none."""
    if record is not None and record.gaps is not None:
        return _read_gaps(txn, series)
    return read_meta(txn, f"gaps:{series}", list[Gap])


def _read_gaps(
    txn: ReadTransaction,
    series: StoredSeries[Any],
    start_ms: Millis = 0,
    end_ms: Millis = MAX_TIME_MS,
) -> list[Gap]:
    """The recorded gaps with `start_ms <= start of the gap < end_ms`, in order."""
    gaps: list[Gap] = []
    cursor = txn.cursor(keys.META)
    if (
        series.timeframe is None
        or cursor is None
        or not cursor.set_range(_gap_key(series, start_ms))
    ):
        return gaps
    end = _gap_key(series, end_ms)
    for key, value in cursor:
        if key >= end:
            break
        gap_start_ms, gap_end_ms = int(key[-keys.TIME_DIGITS :]), int(value)
        missing = (gap_end_ms - gap_start_ms) // series.timeframe.ms
        gaps.append(Gap(gap_start_ms, gap_end_ms, missing))
    return gaps


def gap_list(txn: ReadTransaction, series: StoredSeries[Any]) -> list[Gap]:
    """As recorded, else counted from the keys."""
    recorded = recorded_gaps(txn, series, read_record(txn, series))
    return count_gaps(series, record_ranges.times(txn, series)) if recorded is None else recorded


def count_gaps(series: StoredSeries[Any], times: Times) -> list[Gap]:
    return gaps_between(times, series.timeframe) if series.timeframe else []


def provenance(txn: ReadTransaction, series: StoredSeries[Any]) -> list[Source]:
    """One entry per source, in the order of their last write."""
    record = read_record(txn, series)
    return _merge([*_earlier_sources(txn, series), *(record.sources if record else ())])


def put_sources(
    txn: WriteTransaction, series: StoredSeries[Any], sources: Sequence[Source]
) -> None:
    """Record where a series with rows is from, in place of what was recorded."""
    record = read_record(txn, series)
    if record is not None and sources:
        *earlier, latest = sources
        _put(txn, f"sources:{series}", earlier)
        _put(txn, f"series:{series}", msgspec.structs.replace(record, sources=(latest,)))


def series_origin(txn: ReadTransaction, series: StoredSeries[Any]) -> SeriesOrigin | None:
    """The extent from the keys, the rest as recorded; None where there are no rows."""
    first, last = record_ranges.first_key(txn, series), record_ranges.last_key(txn, series)
    if first is None or last is None:
        return None
    record = read_record(txn, series)
    interval_ms = record.interval_ms if record else None
    return SeriesOrigin(series.time(first), series.time(last), interval_ms, provenance(txn, series))


def sample_interval_ms(txn: ReadTransaction, series: StoredSeries[Any]) -> Millis:
    """As recorded, else the median distance of the samples, else one hour."""
    record = read_record(txn, series)
    if record is not None and record.interval_ms:
        return record.interval_ms
    return sampling_interval_ms(record_ranges.times(txn, series)) or HOUR_MS


def record_write(
    txn: WriteTransaction,
    series: StoredSeries[Any],
    source: Source,
    interval_ms: Millis | None,
    added: int,
    written_ms: tuple[Millis, Millis],
) -> None:
    """Update a series' record and gap ledger after rows within `written_ms` were written.

    They may be the last of several parts; `source` spans all parts so far.
    """
    record = read_record(txn, series)
    if record is None or record.gaps is None:
        sources = [*provenance(txn, series), source]
        recount(txn, series, sources, _coarser(interval_ms, record.interval_ms if record else None))
        return
    change = _update_gaps(txn, series, *written_ms) if added else 0
    updated = SeriesRecord(
        record.rows + added,
        min(record.first_ms, source.first_ms),
        max(record.last_ms, source.last_ms),
        _coarser(interval_ms, record.interval_ms),
        (_add_source(txn, series, record.sources[-1], source),),
        record.gaps + change,
    )
    _put(txn, f"series:{series}", updated)


def record_removal(
    txn: WriteTransaction, series: StoredSeries[Any], removed: int, end_ms: Millis
) -> None:
    """Update a series' record and gap ledger; call it before the rows up to `end_ms` go."""
    if (record := read_record(txn, series)) is None:
        return
    if record.gaps is None:
        recount(txn, series, provenance(txn, series), record.interval_ms)
        removed_from = read_record(txn, series)
        record = record if removed_from is None else removed_from
    first_kept = record_ranges.first_key(txn, series, end_ms)
    if first_kept is None:
        _replace_gaps(txn, series, _read_gaps(txn, series), [])
        for name in ("series", "sources"):
            checksums.delete_meta(txn, f"{name}:{series}")
        return
    first_ms = series.time(first_kept)
    closed = _read_gaps(txn, series, 0, first_ms)
    _replace_gaps(txn, series, closed, [])
    earlier = [source for source in _earlier_sources(txn, series) if source.last_ms >= first_ms]
    _put(txn, f"sources:{series}", earlier)
    is_interest = series.database == keys.OPEN_INTEREST
    kept = msgspec.structs.replace(
        record,
        rows=record.rows - removed,
        first_ms=first_ms,
        gaps=(record.gaps or 0) - len(closed),
        # The median of the samples that are left may be another.
        interval_ms=sample_interval_ms(txn, series) if is_interest else record.interval_ms,
    )
    _put(txn, f"series:{series}", kept)


def recount(
    txn: WriteTransaction,
    series: StoredSeries[Any],
    sources: Iterable[Source],
    interval_ms: Millis | None,
) -> None:
    """Write the record and the gap ledger anew from all rows."""
    times = record_ranges.times(txn, series)
    gaps = count_gaps(series, times)
    _replace_gaps(txn, series, _read_gaps(txn, series), gaps)
    txn.delete(keys.META, f"gaps:{series}".encode())
    *earlier, latest = _merge(sources)
    _put(txn, f"sources:{series}", earlier)
    extent = len(times), int(times[0]), int(times[-1])
    _put(txn, f"series:{series}", SeriesRecord(*extent, interval_ms, (latest,), len(gaps)))


def read_meta(txn: ReadTransaction, key: str, kind: type[T]) -> T | None:
    stored = checksums.get_meta(txn, key)
    if stored is None:
        return None
    try:
        return msgspec.json.decode(stored, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"the record {key!r} in {keys.META} is damaged: {error}; import the data into a new "
            "store, or restore a backup"
        ) from error


def _update_gaps(
    txn: WriteTransaction, series: StoredSeries[Any], first_ms: Millis, last_ms: Millis
) -> int:
    """Compare the ledger with the rows of a span and their two neighbours; how many more."""
    previous = record_ranges.last_key(txn, series, first_ms)
    following = record_ranges.first_key(txn, series, last_ms + 1)
    start_ms = first_ms if previous is None else series.time(previous)
    end_ms = last_ms if following is None else series.time(following)
    gaps = count_gaps(series, record_ranges.times(txn, series, start_ms, end_ms + 1))
    former = _read_gaps(txn, series, start_ms, end_ms)
    _replace_gaps(txn, series, former, gaps)
    return len(gaps) - len(former)


def _replace_gaps(
    txn: WriteTransaction, series: StoredSeries[Any], former: list[Gap], gaps: list[Gap]
) -> None:
    """Write what differs between the former gaps of a span and those that it has now."""
    # A long ledger stays as it is: only gaps that opened or closed are written.
    for gap in set(former).difference(gaps):
        txn.delete(keys.META, _gap_key(series, gap.start_ms))
    changed = set(gaps).difference(former)
    txn.put_many(
        keys.META, [(_gap_key(series, gap.start_ms), b"%d" % gap.end_ms) for gap in changed]
    )


def _add_source(
    txn: WriteTransaction, series: StoredSeries[Any], latest: Source, source: Source
) -> Source:
    """The entry of the source that writes now; `latest` joins the earlier ones if it is another."""
    if latest.source == source.source:
        return latest.extended(source)
    *earlier, current = _merge([*_earlier_sources(txn, series), latest, source])
    _put(txn, f"sources:{series}", earlier)
    return current


def _earlier_sources(txn: ReadTransaction, series: StoredSeries[Any]) -> list[Source]:
    return read_meta(txn, f"sources:{series}", list[Source]) or []


def _merge(sources: Iterable[Source]) -> list[Source]:
    merged: dict[str, Source] = {}
    for source in sources:
        former = merged.pop(source.source, None)
        merged[source.source] = former.extended(source) if former else source
    return list(merged.values())


def _coarser(a: Millis | None, b: Millis | None) -> Millis | None:
    """The longer of two sampling intervals: the older samples must stay fresh enough."""
    return max(a, b) if a and b else a or b


def _put(txn: WriteTransaction, key: str, value: Any) -> None:
    checksums.put_meta(txn, key, msgspec.json.encode(value))


def _gap_key(series: StoredSeries[Any], start_ms: Millis) -> bytes:
    return f"gap:{series}:{start_ms:0{keys.TIME_DIGITS}d}".encode()
