"""What a store notes of a series beside its rows: why some are missing, and where all are from.

An export carries it, and an import gives it to the new store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_trader.market import absent_spans, notes, refused_rows, retention, series_records
from llm_trader.market.absent_spans import Span, join_spans
from llm_trader.market.archive.plan import NOTES, ArchiveRecord, file_of_path
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.series_records import Source
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis


class SeriesLedgers(msgspec.Struct, frozen=True):
    """`archive` has the records of files by path; `kept_from_ms` is that of the symbol."""

    absent: list[Span] = []
    refused: list[RefusedSpan] = []
    archive: Mapping[str, ArchiveRecord] = {}
    kept_from_ms: Millis | None = None


def read_ledgers(txn: ReadTransaction, series: StoredSeries[Any]) -> SeriesLedgers:
    return SeriesLedgers(
        absent_spans.read_absent(txn, series),
        refused_rows.read_refused(txn, series),
        archive_records(txn, series),
        retention.kept_from_ms(txn, series.symbol),
    )


def archive_records(txn: ReadTransaction, series: StoredSeries[Any]) -> dict[str, ArchiveRecord]:
    """The records of the files of an archive that are of a series, by path."""
    kind = "candles" if series.timeframe else series.database
    records = {}
    for path, content in notes.read_notes(txn, NOTES).items():
        if f"/{series.symbol}/" in path:
            file = file_of_path(path)
            if file.kind == kind and (series.timeframe in (None, file.interval)):
                records[path] = msgspec.json.decode(content, type=ArchiveRecord)
    return records


def add_ledgers(
    txn: WriteTransaction,
    series: StoredSeries[Any],
    ledgers: SeriesLedgers,
    sources: Sequence[Source] | None,
) -> None:
    """Add to what is noted already; `sources` take the place of those that are recorded."""
    absent = join_spans([*absent_spans.read_absent(txn, series), *ledgers.absent])
    absent_spans.put_absent(txn, series, absent)
    refused = {*refused_rows.read_refused(txn, series), *ledgers.refused}
    refused_rows.put_refused(txn, series, sorted(refused))
    for path, record in ({**ledgers.archive, **archive_records(txn, series)}).items():
        notes.put_note(txn, NOTES, path, msgspec.json.encode(record))
    if sources is None:
        return
    series_records.put_sources(txn, series, sources)
    if ledgers.kept_from_ms is not None and retention.kept_from_ms(txn, series.symbol) is None:
        retention.put_kept_from(txn, series.symbol, ledgers.kept_from_ms)
