"""Takes a store through the files of the archive.

1. `plan.py` says which files a span needs; those that the store has already are passed over.
2. Threads fetch and verify some files ahead of the first that is not imported (`download.py`).
3. Files are imported in the order of the plan, whichever came first, each in one transaction.
   A file is checked like any imported one: its checksum proves the transfer, not the content.
4. The store notes each file, so that a later run passes it over, or asks whether it has changed.
5. 3m and 4h candles that are missing are built from the finest, as at an import.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

import msgspec

from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.market.archive.config import ArchiveConfig
from llm_trader.market.archive.download import (
    ArchiveClient,
    Downloads,
    Failed,
    Fetched,
    NotPublished,
    Outcome,
    Unchanged,
)
from llm_trader.market.archive.plan import (
    NOTES,
    ArchiveFile,
    ArchiveRecord,
    file_of_path,
    plan_files,
)
from llm_trader.market.derived_candles import DerivedReport, ImportedSpan, derive_candles
from llm_trader.market.file_import import SourceFile, import_file
from llm_trader.market.file_rows import FileReading
from llm_trader.market.jumps import Jump
from llm_trader.market.store import MarketStore
from llm_trader.market.store_info import GapInfo
from llm_trader.market.value_codecs import WriteReport
from llm_trader.progress import Progress, no_progress
from llm_trader.storage.writer_lock import WriterLock
from llm_trader.timeframe import Millis, Timeframe, iso8601

EXCHANGE: Final = "binance"
# Ctrl-C takes effect after it.
_LONGEST_WAIT_S: Final = 0.25
_FOLDER: Final = "archive-downloads"
_READING: Final = FileReading(origin="archive", stamp="open")


class ArchiveProblem(msgspec.Struct, frozen=True):
    """A file whose rows are not stored, or not as the archive now has them."""

    file: str
    reason: str


class ArchiveSeries(msgspec.Struct, frozen=True):
    """`files` were stored by this run, `stored_before` by earlier ones.

    `not_published` are the spans of which the archive has no file, `left_out` counts rows by
    reason, and `gaps` are those of the stored candles within the span.
    """

    symbol: str
    kind: str
    timeframe: str | None
    files: int
    stored_before: int
    unchanged: int
    write: WriteReport
    not_published: list[str]
    left_out: dict[str, int]
    gaps: list[GapInfo]


class ArchiveReport(msgspec.Struct, frozen=True):
    url: str
    series: list[ArchiveSeries]
    problems: list[ArchiveProblem]
    derived: list[DerivedReport]
    jumps: list[Jump]


@dataclass(slots=True)
class _Series:
    """What is counted of one series."""

    total: int = 0
    done: int = 0
    files: int = 0
    stored_before: int = 0
    unchanged: int = 0
    write: WriteReport = field(default_factory=WriteReport)
    missing: list[ArchiveFile] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def fill_from_archive(
    store: MarketStore,
    config: ArchiveConfig,
    symbols: Sequence[str],
    timeframes: Sequence[Timeframe],
    span_ms: tuple[Millis, Millis],
    now_ms: Millis,
    progress: Progress = no_progress,
) -> ArchiveReport:
    """Store what the archive has of a span. Progress is in files of a series.

    Raises `ArchiveError` when the archive does not answer; what is stored stays.
    """
    filling = _Filling(store, config, now_ms, progress)
    planned = list(plan_files(symbols, timeframes, *span_ms, now_ms))
    return filling.run(planned, span_ms, recheck=False)


def recheck_archive(
    store: MarketStore,
    config: ArchiveConfig,
    symbols: Sequence[str],
    span_ms: tuple[Millis, Millis],
    now_ms: Millis,
    progress: Progress = no_progress,
) -> ArchiveReport:
    """Ask of every stored file whether it has changed, and store those that have.

    No symbols means all. A row that the changed file no longer has stays in the store.
    """
    filling = _Filling(store, config, now_ms, progress)
    files = (file_of_path(path) for path, r in filling.records.items() if r.state != "missing")
    chosen = [
        file
        for file in files
        if (not symbols or file.symbol in symbols)
        and file.period.start_ms < span_ms[1]
        and file.period.end_ms > span_ms[0]
    ]
    chosen.sort(key=lambda f: (f.symbol, f.kind, f.interval or Timeframe(0), f.period.start_ms))
    return filling.run(chosen, span_ms, recheck=True)


class _Filling:
    """One run."""

    def __init__(
        self, store: MarketStore, config: ArchiveConfig, now_ms: Millis, progress: Progress
    ) -> None:
        self._store, self._config = store, config
        self._now_ms, self._progress = now_ms, progress
        self._origin = f"archive of {urlsplit(config.url).netloc}"
        self.records = {
            path: msgspec.json.decode(content, type=ArchiveRecord)
            for path, content in store.notes(NOTES).items()
        }
        self._series: dict[tuple[str, str, str | None], _Series] = {}
        self._problems: list[ArchiveProblem] = []
        self._spans: dict[str, list[ImportedSpan]] = {}
        self._jumps: list[Jump] = []

    def run(
        self, files: Sequence[ArchiveFile], span_ms: tuple[Millis, Millis], *, recheck: bool
    ) -> ArchiveReport:
        for file in files:
            self._series.setdefault(file.series, _Series()).total += 1
        lock = WriterLock(self._store.path / _FOLDER)
        try:
            downloads = Downloads(self._store.path / _FOLDER)
            client = ArchiveClient(self._config, downloads)
            with ThreadPoolExecutor(self._config.parallel) as threads:
                try:
                    self._take(files, client, downloads, threads, recheck=recheck)
                except BaseException:
                    client.stop()
                    threads.shutdown(wait=False, cancel_futures=True)
                    raise
        finally:
            lock.release()
        return self._report(span_ms)

    def _take(
        self,
        files: Iterable[ArchiveFile],
        client: ArchiveClient,
        downloads: Downloads,
        threads: ThreadPoolExecutor,
        *,
        recheck: bool,
    ) -> None:
        def started(file: ArchiveFile) -> tuple[ArchiveFile, Future[Outcome]]:
            return file, threads.submit(self._fetch, file, client, downloads)

        wanted = (file for file in files if recheck or self._is_wanted(file))
        ahead: deque[tuple[ArchiveFile, Future[Outcome]]] = deque()
        while True:
            while len(ahead) < 2 * self._config.parallel and (file := next(wanted, None)):
                ahead.append(started(file))
            if not ahead:
                return
            file, future = ahead.popleft()
            outcome = _result(future)
            instead = self._settle(file, outcome, downloads)
            ahead.extendleft(started(day) for day in reversed(instead))

    def _is_wanted(self, file: ArchiveFile) -> bool:
        """Whether to ask for a file; a month may be replaced by those of its days."""
        record = self.records.get(file.path)
        series = self._series[file.series]
        if record is not None and record.state == "stored":
            series.stored_before += 1
            self._step(series, file)
            return False
        if file.days and all(self._is_stored(day) for day in file.days):
            series.stored_before += len(file.days)
            self._step(series, file)
            return False
        if record is not None and record.is_settled(file) and not file.days:
            series.missing.append(file)
            self._step(series, file)
            return False
        return True

    def _is_stored(self, file: ArchiveFile) -> bool:
        record = self.records.get(file.path)
        return record is not None and record.state == "stored"

    def _fetch(self, file: ArchiveFile, client: ArchiveClient, downloads: Downloads) -> Outcome:
        record = self.records.get(file.path)
        waiting = downloads.waiting(file)
        if waiting is not None and (record is None or waiting.proof.sha256 != record.sha256):
            return waiting
        return client.fetch(file, record)

    def _settle(
        self, file: ArchiveFile, outcome: Outcome, downloads: Downloads
    ) -> list[ArchiveFile]:
        """Store what was fetched, note it, and say which files to fetch instead."""
        series = self._series[file.series]
        instead: list[ArchiveFile] = []
        match outcome:
            case Fetched():
                self._note(file, self._import(file, outcome))
                downloads.remove(outcome)
            case Unchanged():
                record = self.records[file.path]
                series.unchanged += 1
                if record.state == "refused":
                    self._problems.append(ArchiveProblem(file.path, record.reason or "refused"))
            case NotPublished():
                instead = self._not_published(file)
            case Failed(reason):
                self._problems.append(ArchiveProblem(file.path, reason))
        self._step(series, file)
        return instead

    def _import(self, file: ArchiveFile, fetched: Fetched) -> ArchiveRecord:
        series = self._series[file.series]
        proof = msgspec.structs.asdict(fetched.proof)
        source = SourceFile(
            file.name,
            fetched.path,
            file.kind,
            file.symbol,
            file.interval,
            origin=self._origin,
            period=file.period,
        )
        reading = replace(_READING, shift_ms=file.shift_ms)
        try:
            report, _ = import_file(source, self._store, reading, self._now_ms)
        except (InvalidDataError, InvalidInputError) as error:
            self._problems.append(ArchiveProblem(file.path, error.message))
            return ArchiveRecord(
                state="refused", checked_at_ms=self._now_ms, reason=error.message, **proof
            )
        series.files += 1
        series.write = series.write.plus(report.write)
        for reason, count in report.left_out.items():
            series.left_out[reason] = series.left_out.get(reason, 0) + count
        self._jumps += report.jumps
        return ArchiveRecord(state="stored", checked_at_ms=self._now_ms, **proof)

    def _not_published(self, file: ArchiveFile) -> list[ArchiveFile]:
        if self._is_stored(file):
            self._problems.append(
                ArchiveProblem(file.path, "no longer published; its rows stay in the store")
            )
            return []
        self._note(file, ArchiveRecord(state="missing", checked_at_ms=self._now_ms))
        if not file.days:
            self._series[file.series].missing.append(file)
        instead = [day for day in file.days if self._is_wanted(day)]
        self._series[file.series].total += len(instead)
        return instead

    def _note(self, file: ArchiveFile, record: ArchiveRecord) -> None:
        self.records[file.path] = record
        self._store.put_note(NOTES, file.path, msgspec.json.encode(record))

    def _step(self, series: _Series, file: ArchiveFile) -> None:
        series.done += 1
        symbol, kind, timeframe = file.series
        label = f"{symbol} {kind} {timeframe or ''}".strip()
        self._progress(label, min(series.done, series.total), series.total)

    def _report(self, span_ms: tuple[Millis, Millis]) -> ArchiveReport:
        derived: list[DerivedReport] = []
        for symbol in dict.fromkeys(symbol for symbol, _, _ in self._series):
            spans = list(self._candle_spans(symbol, span_ms))
            derived += derive_candles(symbol, spans, self._store, self._now_ms)
        return ArchiveReport(
            self._config.url,
            [self._describe(*key, counts, span_ms) for key, counts in self._series.items()],
            self._problems,
            [report for report in derived if report.rows or report.warnings],
            self._jumps,
        )

    def _candle_spans(self, symbol: str, span_ms: tuple[Millis, Millis]) -> Iterator[ImportedSpan]:
        """What the store has of the span, of whatever run, as one may have been killed."""
        for name, kind, interval in self._series:
            if name == symbol and kind == "candles" and interval is not None:
                timeframe = Timeframe.parse(interval)
                ends = self._store.first_and_last_ms(symbol, timeframe)
                if ends is not None:
                    start_ms = max(ends[0], timeframe.floor(span_ms[0]))
                    end_ms = min(ends[1] + timeframe.ms, timeframe.floor(span_ms[1]))
                    if start_ms < end_ms:
                        yield ImportedSpan(self._origin, timeframe, start_ms, end_ms)

    def _describe(
        self,
        symbol: str,
        kind: str,
        interval: str | None,
        counts: _Series,
        span_ms: tuple[Millis, Millis],
    ) -> ArchiveSeries:
        gaps = self._store.gaps(symbol, Timeframe.parse(interval)) if interval else []
        return ArchiveSeries(
            symbol,
            kind,
            interval,
            counts.files,
            counts.stored_before,
            counts.unchanged,
            counts.write,
            _joined(counts.missing),
            counts.left_out,
            [
                GapInfo(iso8601(gap.start_ms), iso8601(gap.end_ms), *gap)
                for gap in gaps
                if gap.start_ms < span_ms[1] and gap.end_ms > span_ms[0]
            ],
        )


def _joined(files: Sequence[ArchiveFile]) -> list[str]:
    """The periods of files, those that follow one another in one."""
    spans: list[list[Millis]] = []
    for period in sorted(file.period for file in files):
        if spans and period.start_ms <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], period.end_ms)
        else:
            spans.append([period.start_ms, period.end_ms])
    return [f"{iso8601(start)[:10]} to {iso8601(end)[:10]}" for start, end in spans]


def _result(future: Future[Outcome]) -> Outcome:
    # Polars handles Ctrl-C in a way that does not end a wait without a limit.
    while not future.done():
        wait([future], timeout=_LONGEST_WAIT_S)
    return future.result()
