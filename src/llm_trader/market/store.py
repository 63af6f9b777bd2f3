"""The market store: candles, funding and open interest of one exchange in one LMDB environment.

Any number of processes read and write. Every read is one transaction: it sees one state of the
store, and the next read sees what has been committed since. Every write is one transaction, too.

Stores of the original `llm-trader-data` have the same keys and values but no `meta` database;
they read like any other, with unknown exchange and provenance.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

from llm_trader.arrays import Times
from llm_trader.errors import InvalidInputError, StoreError
from llm_trader.market import (
    absent_spans,
    built_candles,
    checksums,
    jump_records,
    keys,
    notes,
    record_ranges,
    refused_rows,
    retention,
    series_ages,
    series_changes,
    series_extents,
    series_ledgers,
    series_records,
    store_check,
    store_info,
    stored_series,
    symbol_versions,
    timeframe_check,
)
from llm_trader.market.absent_spans import Span
from llm_trader.market.built_candles import BuiltCandles
from llm_trader.market.candles import CandleSeries, Gap
from llm_trader.market.checksums import DayChecksums
from llm_trader.market.jumps import CandleSpan, Jump
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.retention import RemovedRows
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.series_ages import SeriesAge
from llm_trader.market.series_changes import DataChanges, DataMark
from llm_trader.market.series_extents import SeriesExtent
from llm_trader.market.series_ledgers import SeriesLedgers
from llm_trader.market.series_records import SeriesOrigin, Source
from llm_trader.market.store_check import StoreCheck
from llm_trader.market.store_info import StoreInfo
from llm_trader.market.stored_history import StoredHistory
from llm_trader.market.stored_series import (
    SeriesT,
    StoredSeries,
    candles_of,
    funding_of,
    open_interest_of,
)
from llm_trader.market.timeframe_check import Contradiction
from llm_trader.market.value_codecs import WriteReport
from llm_trader.storage.environment import Environment, ReadTransaction, StoreFormat, Version
from llm_trader.timeframe import DAY_MS, H4, Millis, Timeframe, iso8601

FORMAT: Final = StoreFormat(
    name="market store",
    error=StoreError,
    damaged_error=StoreError,
    create="create one with: llm-trader data import <folder> --store {path}",
    rebuild="restore a backup, or import the data into a new folder",
    is_database=lambda name: name in (keys.META, keys.CHECKSUMS) or keys.holds_series(name),
    # Each timeframe has a database, and the original program added one of indicators to each.
    max_databases=128,
    map_size_setting="market.map_size_mib",
)
# Far more than a client trades. Symbols come from requests, so what is kept for them has a bound.
_SYMBOL_VERSIONS_KEPT: Final = 1024


class MarketStore(AbstractContextManager["MarketStore"]):
    """One exchange's series. Open with `MarketStore.open`; a context manager.

    Symbols are 2 to 20 capital letters and digits (`InvalidInputError` otherwise). Ranges are
    half-open in the candle's open time or the sample's time, `None` leaving a side open; a
    series that is not there reads as empty. Reads check every value and raise `StoreError`
    naming the database and the key of the first damaged one.
    """

    def __init__(self, environment: Environment, exchange: str | None) -> None:
        self.path = environment.folder
        self._environment = environment
        self._expected_exchange = exchange
        self._checked_generation = -1
        # Kept per version of the store: reading one takes five times as long as this look-up.
        self._symbol_versions: tuple[Version, dict[str, Hashable]] = ((-1, -1), {})

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        write: bool = False,
        exchange: str | None = None,
        map_size_bytes: int | None = None,
        immutable: bool = False,
    ) -> MarketStore:
        """Open the folder `path`; for writing it is created where missing.

        `map_size_bytes` and `immutable` are those of `Environment`.

        Raises `StoreError` where there is no store to read, the store is of a newer version, or
        this process has it open already, and `ConfigurationError` when the store is another
        exchange's.
        """
        if exchange is not None:
            keys.checked_exchange(exchange)
        environment = Environment(
            path, FORMAT, write=write, map_size_bytes=map_size_bytes, immutable=immutable
        )
        store = cls(environment, exchange)
        try:
            store._prepare()
        except BaseException:
            environment.close()
            raise
        return store

    def close(self) -> None:
        """Release the folder. Closing twice does nothing."""
        self._environment.close()

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def exchange(self) -> str | None:
        """As recorded, else as stated when opening for writing; `None` where neither was."""
        with self._read() as txn:
            recorded = store_info.check_exchange(txn, None)
        return recorded or (self._expected_exchange if self._environment.writable else None)

    @property
    def version(self) -> Version:
        """Grows with every commit of any process: equal versions mean equal content."""
        return self._environment.version

    def symbol_version(self, symbol: str) -> Hashable:
        """Changes with any write to a series of this symbol; writes to other symbols leave it.

        Where the writer keeps no versions, as that of the original program, it changes with
        every commit.
        """
        version = self._environment.version
        if version != self._symbol_versions[0]:
            self._symbol_versions = version, {}
        versions = self._symbol_versions[1]
        if symbol not in versions:
            if len(versions) >= _SYMBOL_VERSIONS_KEPT:
                versions.clear()
            with self._read() as txn:
                versions[symbol] = symbol_versions.symbol_version(txn, symbol)
        return versions[symbol]

    def symbols(self) -> list[str]:
        with self._read() as txn:
            return sorted({series.symbol for series in record_ranges.all_series(txn)})

    def timeframes(self, symbol: str) -> list[Timeframe]:
        """The candles stored for a symbol, finest first."""
        keys.checked_symbol(symbol)
        with self._read() as txn:
            databases = record_ranges.series_databases(txn)
            candles = [candles_of(symbol, t) for d in databases if (t := keys.timeframe_of(d))]
            stored = [c for c in candles if record_ranges.first_key(txn, c) is not None]
        return sorted(series.timeframe for series in stored if series.timeframe)

    def first_and_last_ms(self, symbol: str, timeframe: Timeframe) -> tuple[Millis, Millis] | None:
        """The open times of the oldest and the newest candle, by a few seeks."""
        series = candles_of(symbol, timeframe)
        with self._read() as txn:
            first = record_ranges.first_key(txn, series)
            last = record_ranges.last_key(txn, series)
        if first is None or last is None:
            return None
        first_ms, last_ms = series.times([first, last]).tolist()
        return first_ms, last_ms

    def series(self) -> list[StoredSeries[Any]]:
        """Every series there is, by database and symbol."""
        with self._read() as txn:
            return list(record_ranges.all_series(txn))

    def series_origin(self, series: StoredSeries[Any]) -> SeriesOrigin | None:
        """The extent, sampling and sources of a series; None where it has no rows."""
        with self._read() as txn:
            return series_records.series_origin(txn, series)

    def accepted_jumps(self, symbol: str) -> tuple[CandleSpan, ...]:
        """The spans of the candles whose jumps the user has accepted."""
        keys.checked_symbol(symbol)
        with self._read() as txn:
            return jump_records.accepted_jumps(txn, symbol)

    def accept_spans(self, symbol: str, spans: Sequence[CandleSpan]) -> None:
        """Accept jumps as another store has them accepted; their candles may come later."""
        keys.checked_symbol(symbol)
        with self._environment.write(keys.META, keys.CHECKSUMS) as txn:
            self._check_once(txn)
            jump_records.accept_spans(txn, symbol, spans)

    def open_times(
        self, symbol: str, timeframe: Timeframe, start_ms: Millis, end_ms: Millis
    ) -> Times:
        """Those of the candles with `start_ms <= open time < end_ms`, from the keys alone."""
        with self._read() as txn:
            return record_ranges.times(txn, candles_of(symbol, timeframe), start_ms, end_ms)

    def first_time_ms(
        self, series: StoredSeries[Any], start_ms: Millis | None = None
    ) -> Millis | None:
        """The time of the oldest row, of those at or after `start_ms`, found by one seek."""
        with self._read() as txn:
            key = record_ranges.first_key(txn, series, start_ms)
        return None if key is None else series.time(key)

    def newest_close_ms(self, symbol: str, timeframe: Timeframe, as_of_ms: Millis) -> Millis | None:
        """The close of the newest candle that was known at a time, found by one seek."""
        series = candles_of(symbol, timeframe)
        with self._read() as txn:
            key = record_ranges.last_key(txn, series, as_of_ms - timeframe.ms + 1)
        return None if key is None else int(series.times([key])[0]) + timeframe.ms

    def last_open_interest_ms(self, symbol: str) -> Millis | None:
        """The time of the newest sample, found by one seek."""
        series = open_interest_of(symbol)
        with self._read() as txn:
            key = record_ranges.last_key(txn, series)
        return None if key is None else series.time(key)

    def last_funding(self, symbol: str) -> FundingSeries:
        """The newest settlement alone; empty where there is none."""
        series = funding_of(symbol)
        with self._read() as txn:
            key = record_ranges.last_key(txn, series)
            last_ms = None if key is None else series.time(key)
        return self.funding(symbol, last_ms, None if last_ms is None else last_ms + 1)

    def gaps(self, symbol: str, timeframe: Timeframe) -> list[Gap]:
        """The gap ledger of a candle series; counted from its keys where none was kept."""
        with self._read() as txn:
            return series_records.gap_list(txn, candles_of(symbol, timeframe))

    def provenance(self, symbol: str, timeframe: Timeframe) -> list[Source]:
        """The sources of a candle series; empty where none was recorded."""
        with self._read() as txn:
            return series_records.provenance(txn, candles_of(symbol, timeframe))

    def open_interest_sources(self, symbol: str) -> list[Source]:
        """The sources of a symbol's open interest; empty where none was recorded."""
        with self._read() as txn:
            return series_records.provenance(txn, open_interest_of(symbol))

    def jumps(self, symbol: str) -> list[Jump]:
        """The jumps of all candles of a symbol, in order of time; reads every candle."""
        keys.checked_symbol(symbol)
        with self._read() as txn:
            return jump_records.stored_jumps(txn, symbol)

    def jumps_of_part(self, symbol: str, part: CandleSeries) -> list[Jump]:
        """The unaccepted jumps of some stored candles, and between them and those beside them."""
        with self._read() as txn:
            return jump_records.jumps_of_part(txn, symbol, part)

    def accept_jump(self, symbol: str, time_ms: Millis) -> list[Jump]:
        """Accept the jump whose candle holds a time; returns all that are accepted with it.

        Raises `InvalidInputError`, which lists the jumps there are, where there is none.
        """
        keys.checked_symbol(symbol)
        with self._environment.write(keys.META, keys.CHECKSUMS) as txn:
            self._check_once(txn)
            return jump_records.accept_jump(txn, symbol, time_ms)

    def withdraw_jump(self, symbol: str, time_ms: Millis) -> list[Jump]:
        """Take an acceptance back; returns the jumps that were accepted with it.

        Raises `InvalidInputError` where nothing is accepted at that time.
        """
        keys.checked_symbol(symbol)
        with self._environment.write(keys.META, keys.CHECKSUMS) as txn:
            self._check_once(txn)
            return jump_records.withdraw_jump(txn, symbol, time_ms)

    def changes_since(self, symbol: str, mark: DataMark | None) -> DataChanges:
        """What later writes changed in a symbol's series since a mark; without one, ever.

        Rows that another program wrote are not among them.
        """
        keys.checked_symbol(symbol)
        with self._read() as txn:
            return series_changes.changes_since(txn, symbol, mark)

    def built_candles(self, symbol: str, timeframe: Timeframe) -> BuiltCandles:
        """Which candles of a series were built from finer ones, and which of those in part."""
        with self._read() as txn:
            return built_candles.read_built(txn, candles_of(symbol, timeframe))

    def absent_spans(self, series: StoredSeries[Any]) -> list[Span]:
        """The spans of a series of which its exchange has said that it has nothing."""
        with self._read() as txn:
            return absent_spans.read_absent(txn, series)

    def series_ledgers(self, series: StoredSeries[Any]) -> SeriesLedgers:
        """What is noted of a series beside its rows."""
        with self._read() as txn:
            return series_ledgers.read_ledgers(txn, series)

    def add_ledgers(
        self,
        series: StoredSeries[Any],
        ledgers: SeriesLedgers,
        sources: Sequence[Source],
        rows: int,
    ) -> None:
        """Add what another store noted of a series; also its sources, if all rows are from there.

        `rows` is how many that store has.
        """
        with self._read() as txn:
            record = series_records.read_record(txn, series)
            now = series_ledgers.read_ledgers(txn, series), series_records.provenance(txn, series)
        is_copy = record is not None and record.rows == rows
        if is_copy and now == (ledgers, list(sources)):
            return
        with self._environment.write(keys.META, keys.CHECKSUMS) as write_txn:
            self._check_once(write_txn)
            series_ledgers.add_ledgers(write_txn, series, ledgers, sources if is_copy else None)
            symbol_versions.stamp_symbol(write_txn, series.symbol)

    def refused_rows(self, series: StoredSeries[Any]) -> list[RefusedSpan]:
        """The rows that the exchange sent last of some times, and that were refused."""
        with self._read() as txn:
            return refused_rows.read_refused(txn, series)

    def note_answer(
        self,
        series: StoredSeries[Any],
        answered: Span,
        absent: Sequence[Span],
        refused: Sequence[RefusedSpan] = (),
    ) -> None:
        """Note what an exchange has nothing of, and what was refused, of a span it answered for.

        Both take the place of what was noted of the span before.
        """

        def after(txn: ReadTransaction) -> tuple[list[Span], list[RefusedSpan]] | None:
            former = absent_spans.read_absent(txn, series), refused_rows.read_refused(txn, series)
            rest = absent_spans.without_spans(former[0], [answered])
            now = (
                absent_spans.join_spans([*rest, *absent]),
                refused_rows.after_answer(former[1], answered, refused),
            )
            return None if now == former else now

        with self._read() as txn:
            if after(txn) is None:  # as mostly; a commit waits for the disk
                return
        with self._environment.write(keys.META, keys.CHECKSUMS) as write_txn:
            self._check_once(write_txn)
            if (now := after(write_txn)) is not None:
                store_info.claim_exchange(write_txn, self._expected_exchange)
                absent_spans.put_absent(write_txn, series, now[0])
                refused_rows.put_refused(write_txn, series, now[1])
                symbol_versions.stamp_symbol(write_txn, series.symbol)

    def contradictions(
        self, symbol: str, spans: Mapping[Timeframe, Sequence[Span]]
    ) -> list[Contradiction]:
        """Of the candles in some spans, those that other timeframes of the symbol contradict."""
        with self._read() as txn:
            return list(timeframe_check.contradictions_within(txn, symbol, spans))

    def series_ages(self, now_ms: Millis | None) -> list[SeriesAge]:
        """How old the newest row of each series is; by a few seeks, for whoever asks often."""
        with self._read() as txn:
            return series_ages.series_ages(txn, now_ms)

    def series_extents(self) -> list[SeriesExtent]:
        """How complete each series is, by its records, for whoever asks often."""
        with self._read() as txn:
            return series_extents.series_extents(txn)

    def describe(self, now_ms: Millis | None = None) -> StoreInfo:
        """Every series with extent, gaps, frozen stretches and provenance; ages by the clock."""
        with self._read() as txn:
            return store_info.describe(txn, str(self.path), now_ms)

    def check(self, *, deep: bool = False, now_ms: Millis | None = None) -> StoreCheck:
        """Compares the record and the gap ledger of each series with a count of all its rows.

        It also names what is missing and why, and values that markets hardly have; with a clock,
        rows of the future. A `deep` check also compares every row with its checksum, decodes it,
        and walks through all pages of the file.
        """
        page_problems = self._environment.page_problems() if deep else None
        with self._read() as txn:
            return store_check.check_store(txn, str(self.path), page_problems, now_ms)

    def repair_records(self) -> None:
        """Count records and ledgers anew that differ from the rows; all rows get checksums."""
        with self._read() as txn:
            databases = record_ranges.series_databases(txn)
        with self._environment.write(keys.META, keys.CHECKSUMS, *databases) as write_txn:
            store_check.repair_store(write_txn)

    def spans_to_repair(self, series: StoredSeries[Any]) -> list[Span]:
        """What to ask the exchange for: all that is missing, and rows that say nothing true."""
        with self._read() as txn:
            return store_check.spans_to_repair(txn, series)

    def copy_to(self, folder: Path) -> None:
        """Write a compacted copy of one moment into an empty folder, whoever writes meanwhile."""
        self._environment.copy_to(folder)

    def candles(
        self,
        symbol: str,
        timeframe: Timeframe,
        start_ms: Millis | None = None,
        end_ms: Millis | None = None,
    ) -> CandleSeries:
        return self.read_series(candles_of(symbol, timeframe), start_ms, end_ms)

    def funding(
        self, symbol: str, start_ms: Millis | None = None, end_ms: Millis | None = None
    ) -> FundingSeries:
        return self.read_series(funding_of(symbol), start_ms, end_ms)

    def open_interest(
        self, symbol: str, start_ms: Millis | None = None, end_ms: Millis | None = None
    ) -> OpenInterestSeries:
        return self.read_series(open_interest_of(symbol), start_ms, end_ms)

    def open_interest_interval_ms(self, symbol: str) -> Millis:
        """How far apart samples are: as recorded, else the median distance, else one hour."""
        with self._read() as txn:
            return series_records.sample_interval_ms(txn, open_interest_of(symbol))

    def stored_history(
        self,
        symbol: str,
        intraday: Timeframe,
        start_ms: Millis | None = None,
        end_ms: Millis | None = None,
        *,
        four_hour_start_ms: Millis | None = None,
    ) -> StoredHistory:
        """The records of all four series of a symbol, from one state of the store.

        4h candles may start earlier than the rest: indicators on them need a longer past.
        """
        early = start_ms if four_hour_start_ms is None else four_hour_start_ms
        coarse, interest = candles_of(symbol, H4), open_interest_of(symbol)
        series = (candles_of(symbol, intraday), coarse, funding_of(symbol), interest)
        with self._read() as txn:
            records = tuple(
                checksums.checked_items(txn, part, early if part is coarse else start_ms, end_ms)
                for part in series
            )
            interval_ms = series_records.sample_interval_ms(txn, interest)
            accepted = jump_records.accepted_jumps(txn, symbol)
        return StoredHistory(symbol, series, records, interval_ms, accepted)

    def write(
        self,
        symbol: str,
        series: CandleSeries | FundingSeries | OpenInterestSeries,
        source: str,
        *,
        written_at_ms: Millis,
        interval_ms: Millis | None = None,
        incomplete_ms: Times | None = None,
    ) -> WriteReport:
        """Add rows, replacing those of the same time, in one transaction.

        `source` goes into the provenance; `interval_ms` records how far apart samples of open
        interest are, where known. For candles that were built from finer ones, `incomplete_ms` has
        the open times of those that were built from a part of them. Raises `InvalidDataError` when
        any row is refused; then nothing is written. Writing the same again changes nothing.
        """
        return self.write_parts(
            symbol,
            [series],
            source,
            written_at_ms=written_at_ms,
            interval_ms=interval_ms,
            incomplete_ms=incomplete_ms,
        )

    def write_parts(
        self,
        symbol: str,
        parts: Iterable[CandleSeries | FundingSeries | OpenInterestSeries],
        source: str,
        *,
        written_at_ms: Millis,
        interval_ms: Millis | None = None,
        incomplete_ms: Times | None = None,
        built: BuiltCandles | None = None,
    ) -> WriteReport:
        """As `write`, of one series in parts, of which only one is in memory at a time.

        Parts are in the order of time, and each but the last ends with a UTC day. All are written
        in one transaction: readers see all of them or none. Where only some of the candles were
        built from finer ones, `built` says which.
        """
        waiting = (part for part in parts if len(part))
        first = next(waiting, None)
        if first is None:
            return WriteReport()
        stored = stored_series.matching(symbol, first)
        # The first part is encoded before others have to wait for this transaction.
        encoded = chain([stored.checked_items(first)], map(stored.checked_items, waiting))
        total, start_ms = WriteReport(), int(first.times[0])
        databases = keys.META, keys.CHECKSUMS, stored.database
        with self._environment.write(*databases) as txn:
            self._check_once(txn)
            is_changed = False
            for new in encoded:
                times = stored.times(new.keys)
                first_ms, last_ms = times[[0, -1]].tolist()
                days = DayChecksums(txn, stored, new)
                changes, report = stored.changes(days.former, new)
                built_now = built_candles.changed_by_write(txn, stored, times, incomplete_ms, built)
                total = total.plus(report)
                is_changed = bool(is_changed or changes or days.mended or built_now is not None)
                if not is_changed:
                    continue
                # With the first series: a mistaken import must not claim the folder.
                store_info.claim_exchange(txn, self._expected_exchange)
                series_changes.record_changes(txn, stored, days.former, changes, written_at_ms)
                txn.put_many(stored.database, changes)
                origin = Source(source, start_ms, last_ms, len(changes), written_at_ms)
                series_records.record_write(
                    txn, stored, origin, interval_ms, report.added, (first_ms, last_ms)
                )
                if built_now is not None:
                    built_candles.put_built(txn, stored, built_now)
                days.write()
            if is_changed:
                retention.lower_cut(txn, stored.symbol, start_ms)
                symbol_versions.stamp_symbol(txn, stored.symbol)
        return total

    def notes(self, prefix: str) -> dict[str, bytes]:
        """What was noted under a prefix, by name."""
        with self._read() as txn:
            return notes.read_notes(txn, prefix)

    def put_note(self, prefix: str, name: str, content: bytes) -> None:
        """Keep a small record that is about no series, such as of a file that was imported."""
        with self._environment.write(keys.META, keys.CHECKSUMS) as txn:
            self._check_once(txn)
            notes.put_note(txn, prefix, name, content)

    def rows_before(self, cut_ms: Millis) -> list[RemovedRows]:
        """What `remove_before` would remove."""
        with self._read() as txn:
            return retention.rows_before(txn, cut_ms)

    def remove_before(self, cut_ms: Millis) -> list[RemovedRows]:
        """Remove all rows of all series that are older than a midnight UTC.

        Each part is a transaction; a killed removal is ended by the next one. Raises
        `InvalidInputError` for a time within a day.
        """
        if cut_ms % DAY_MS:
            raise InvalidInputError(f"{iso8601(cut_ms)} is no midnight UTC; only whole days can go")
        with self._read() as txn:
            removed = retention.rows_before(txn, cut_ms)
            named = {(rows.database, rows.symbol) for rows in removed}
            series = [s for s in record_ranges.all_series(txn) if (s.database, s.symbol) in named]
        with self._environment.write(keys.META, keys.CHECKSUMS) as write_txn:
            self._check_once(write_txn)
            retention.forget_ledgers_before(write_txn, cut_ms)
        for symbol in sorted({one.symbol for one in series}):
            with self._environment.write(keys.META, keys.CHECKSUMS) as write_txn:
                self._check_once(write_txn)
                retention.begin_removal(write_txn, symbol, cut_ms)
        for one in series:
            while self._remove_part(one, cut_ms):
                pass
        return removed

    def _remove_part(self, series: StoredSeries[Any], cut_ms: Millis) -> bool:
        with self._environment.write(keys.META, keys.CHECKSUMS, series.database) as txn:
            self._check_once(txn)
            part = retention.oldest_part(txn, series, cut_ms)
            if part:
                retention.remove_part(txn, series, part, cut_ms)
        return bool(part)

    def kept_from_ms(self, symbol: str) -> Millis | None:
        """The time before which rows of a symbol were removed; None where none ever were."""
        keys.checked_symbol(symbol)
        with self._read() as txn:
            return retention.kept_from_ms(txn, symbol)

    def newest_ms(self) -> Millis | None:
        """The time of the newest row of any series; None in an empty store."""
        with self._read() as txn:
            last_keys = [(s, record_ranges.last_key(txn, s)) for s in record_ranges.all_series(txn)]
        return max((s.time(key) for s, key in last_keys if key is not None), default=None)

    def release_memory(self) -> None:
        """Give back the memory of rows that were read; reading them again takes no disk."""
        self._environment.release_pages()

    def read_series(
        self, series: StoredSeries[SeriesT], start_ms: Millis | None, end_ms: Millis | None
    ) -> SeriesT:
        with self._read() as txn:
            items = checksums.checked_items(txn, series, start_ms, end_ms)
        return series.read(items)

    def _prepare(self) -> None:
        """Refuses a folder that is not a market store; when writing, records what it is."""
        with self._read() as txn:
            has_identity = store_info.has_identity(txn)
        if self._environment.writable and not has_identity:
            with self._environment.write(keys.META, keys.CHECKSUMS) as write_txn:
                store_info.write_identity(write_txn)

    @contextmanager
    def _read(self) -> Iterator[ReadTransaction]:
        with self._environment.read() as txn:
            self._check_once(txn)
            yield txn

    def _check_once(self, txn: ReadTransaction) -> None:
        """Refuses a folder, or what has replaced its files, that is no store for this program."""
        generation = txn.version[0]
        if generation == self._checked_generation:
            return
        # A new folder cannot be recognized until the first write, which a kill may have prevented.
        databases = txn.root_keys() - {keys.META, keys.CHECKSUMS}
        blank = self._environment.writable and not databases and not txn.count(keys.META)
        if not blank and not store_info.is_market_store(txn):
            raise FORMAT.missing(self.path)
        store_info.check_version(txn)
        store_info.check_exchange(txn, self._expected_exchange)
        self._checked_generation = generation
