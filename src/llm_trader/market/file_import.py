"""Import of files into the market store.

Files are named `<exchange>_<market>_<SYMBOL>_<kind>_<interval>.parquet` (or another ending of
`file_table.py`), kind being `candles`, `funding` or `open_interest`. Each file is checked as a
whole and written in one transaction, so an interrupted import can simply be run again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast, get_args

import msgspec
import numpy as np

from llm_trader.errors import ConfigurationError, InvalidDataError, InvalidInputError
from llm_trader.market.column_spool import ColumnSpool
from llm_trader.market.derived_candles import (
    DerivedReport,
    ImportedSpan,
    derive_candles,
    with_progress,
)
from llm_trader.market.export_manifest import (
    MANIFEST_NAME,
    SeriesManifest,
    finished_manifest,
)
from llm_trader.market.file_agreement import refuse_contradicted
from llm_trader.market.file_candles import checked_candles
from llm_trader.market.file_columns import FUNDING_INTERVAL, Kind, check_mapping
from llm_trader.market.file_order import leave_out_unknown, refuse_future, sort_rows
from llm_trader.market.file_rows import FileReading, FileRows, read_rows
from llm_trader.market.file_table import ENDINGS
from llm_trader.market.funding_intervals import funding_intervals
from llm_trader.market.hole_costs import MAX_HOLE_CANDLES, HoleReport, report_holes
from llm_trader.market.jumps import Jump
from llm_trader.market.keys import SYMBOL_PATTERN, candles_database, checked_symbol
from llm_trader.market.months import Period
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import series_in
from llm_trader.market.value_codecs import WriteReport
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import MINUTE_MS, Millis, Timeframe

NAMING: Final = "<exchange>_<market>_<SYMBOL>_<candles|funding|open_interest>_<interval>"
_INTERVAL: Final = r"[1-9]\d{0,3}[mhd]"
_FILE_NAME: Final = re.compile(
    r"(?P<exchange>[a-z0-9-]+)_(?P<market>[a-z0-9-]+)_"
    rf"(?P<symbol>{SYMBOL_PATTERN})"
    # Exports leave the interval of funding to its column, and have a file per month.
    rf"_(?P<kind>candles(?=_{_INTERVAL}[._])|funding|open_interest)"
    rf"(?:_(?P<interval>{_INTERVAL}))?(?:_\d{{4}}-\d\d)?"
    rf"\.({'|'.join(map(re.escape, ENDINGS))})"
)
# A settlement above 0.75 % is rare on any exchange; most of a file above it are percent.
_RATE_IN_PERCENT_ABOVE: Final = 0.0075
# Daily files of samples every five minutes may end with the midnight after the day.
_LATE_SAMPLE_MS: Final = 10 * MINUTE_MS


class FileReport(msgspec.Struct, frozen=True):
    """`notes` say how the file was read, `left_out` counts rows by reason.

    `jumps` are those of its candles that nobody has accepted.
    """

    file: str
    kind: Kind
    symbol: str
    interval: str | None
    rows: int
    write: WriteReport
    notes: list[str] = []
    left_out: dict[str, int] = {}
    warnings: list[str] = []
    jumps: list[Jump] = []


class SkippedFile(msgspec.Struct, frozen=True):
    file: str
    reason: str


class ImportReport(msgspec.Struct, frozen=True):
    files: list[FileReport]
    derived: list[DerivedReport]
    skipped: list[SkippedFile]
    holes: list[HoleReport] = []


@dataclass(frozen=True, slots=True)
class SourceFile:
    """`origin` is how its rows came about, where that is known, in words.

    All rows are of the `period`, where there is one; a sample may be stamped just after its end.
    """

    name: str  # below the imported folder
    path: Path
    kind: Kind
    symbol: str
    interval: Timeframe | None
    manifest: SeriesManifest | None = None  # of an export
    origin: str | None = None
    period: Period | None = None


def is_file_name(name: str) -> bool:
    """Whether an import reads a file of this name."""
    return _FILE_NAME.fullmatch(name) is not None


def exchange_in_name(file: str) -> str | None:
    """The exchange of a file by its name; None where it is named otherwise."""
    match = _FILE_NAME.match(file)
    return match["exchange"] if match else None


def import_folder(
    path: Path,
    store: MarketStore,
    *,
    exchange: str,
    written_at_ms: Millis,
    reading: FileReading | None = None,
    progress: Progress = no_progress,
    symbol: str | None = None,
    kind: str | None = None,
    interval: str | None = None,
    max_hole_candles: int = MAX_HOLE_CANDLES,
) -> ImportReport:
    """Import a file, or the files of a folder, and build 3m candles from 1m and 4h where missing.

    `symbol`, `kind` and `interval` describe a single file whose name does not. `max_hole_candles`
    is what states go on across, for the report on holes. Nothing may be later than `written_at_ms`,
    and candles that close after it are left out. Progress is reported in files, in rows read and in
    rows written of one file.

    Raises `InvalidInputError` when there is nothing to import or a column is missing, and
    `InvalidDataError` at the first file with a bad row: nothing of that file is written, and
    `details["imported"]` names the files before it.
    """
    reading = reading or FileReading()
    check_mapping(reading.mapping)
    if store.exchange not in (None, exchange):
        raise ConfigurationError(f"the store holds data of {store.exchange}, not of {exchange}")
    skipped: list[SkippedFile] = []
    if (symbol, kind, interval) != (None, None, None):
        files = [_describe_file(path, symbol, kind, interval)]
    else:
        files, skipped = _list_files(path, exchange)
        if reading == FileReading():
            files = _with_manifests(files, whole_folders=path.is_dir())
    reports: list[FileReport] = []
    spans: dict[str, list[ImportedSpan]] = {}
    fine_spans: dict[str, list[ImportedSpan]] = {}
    for file in files:
        try:
            report, span = import_file(file, store, reading, written_at_ms, progress)
        except (InvalidDataError, InvalidInputError) as error:
            error.details["imported"] = [report.file for report in reports]
            raise
        reports.append(report)
        if span is not None:
            spans.setdefault(file.symbol, []).append(span)
            # An export has what its store had built.
            if file.manifest is None:
                fine_spans.setdefault(file.symbol, []).append(span)
        progress("files", len(reports), len(files))
    _add_ledgers(store, files, whole_folders=path.is_dir())
    derived = [
        report
        for symbol, symbol_spans in fine_spans.items()
        for report in derive_candles(symbol, symbol_spans, store, written_at_ms, progress)
    ]
    holes = [
        report
        for symbol, symbol_spans in spans.items()
        for report in report_holes(symbol, symbol_spans, store, max_hole_candles)
    ]
    return ImportReport(reports, derived, skipped, holes)


def _add_ledgers(store: MarketStore, files: Sequence[SourceFile], *, whole_folders: bool) -> None:
    """Note what an export says beside its rows, once all of its files are imported."""
    folders = {file.path.parent: file for file in files if file.manifest and whole_folders}
    for file in folders.values():
        manifest = file.manifest
        if manifest is not None:
            database = (
                candles_database(file.interval)
                if file.kind == "candles" and file.interval
                else file.kind
            )
            rows = sum((manifest.files or {}).values())
            series = series_in(database, file.symbol)
            store.add_ledgers(series, manifest.ledgers, manifest.sources, rows)


def _describe_file(
    path: Path, symbol: str | None, kind: str | None, interval: str | None
) -> SourceFile:
    """A single file of any name; what is not given is taken from its name."""
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist")
    if not path.is_file() or not path.name.lower().endswith(tuple(f".{e}" for e in ENDINGS)):
        raise InvalidInputError(f"{path} is not a file that ends with {' or '.join(ENDINGS)}")
    match = _FILE_NAME.fullmatch(path.name)
    parts = match.groupdict() if match else {}
    symbol = symbol.upper() if symbol else parts.get("symbol")
    kind = kind or parts.get("kind")
    interval = interval or parts.get("interval")
    if symbol is None or kind not in get_args(Kind) or (kind == "candles" and interval is None):
        raise InvalidInputError(
            f"{path.name}: say what it holds with --symbol, --kind (candles, funding or "
            "open_interest) and, for candles, --interval"
        )
    timeframe = Timeframe.parse(interval) if interval else None
    return SourceFile(path.name, path, cast(Kind, kind), checked_symbol(symbol), timeframe)


def _list_files(path: Path, exchange: str) -> tuple[list[SourceFile], list[SkippedFile]]:
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist")
    paths = [path] if path.is_file() else _files_below(path)
    matches = {p: _FILE_NAME.fullmatch(p.name) for p in paths}
    venues = _open_interest_venues([m for m in matches.values() if m], exchange)
    files: list[SourceFile] = []
    skipped: list[SkippedFile] = []
    for file, match in matches.items():
        name = file.name if file == path else str(file.relative_to(path))
        if match is None:
            skipped.append(SkippedFile(name, f"not named like {NAMING}.parquet"))
            continue
        kind, symbol = cast(Kind, match["kind"]), match["symbol"]
        venue = venues[symbol] if kind == "open_interest" else exchange
        if match["exchange"] == venue:
            interval = Timeframe.parse(match["interval"]) if match["interval"] else None
            files.append(SourceFile(name, file, kind, symbol, interval))
        else:
            reason = f"{kind} of {match['exchange']}, not of {venue}"
            skipped.append(SkippedFile(name, reason))
    if not files:
        reasons = "; ".join(f"{s.file}: {s.reason}" for s in skipped[:5]) or "no files"
        raise InvalidInputError(
            f"nothing to import in {path} for {exchange} ({reasons}); name files like "
            f"{NAMING}.parquet or .csv, or give --symbol, --kind and --interval of one file"
        )
    # The finest candles come first, so that coarser ones are compared with them.
    files.sort(key=lambda f: (f.kind, f.interval.ms if f.kind == "candles" and f.interval else 0))
    return files, skipped


def _with_manifests(files: list[SourceFile], *, whole_folders: bool) -> list[SourceFile]:
    """The files with what their export says of them."""
    folders = {file.path.parent for file in files}
    manifests = {f: finished_manifest(f, whole_folder=whole_folders) for f in folders}

    def described(file: SourceFile) -> SourceFile:
        manifest = manifests[file.path.parent]
        is_listed = manifest is not None and file.path.name in (manifest.files or ())
        return replace(file, manifest=manifest) if is_listed else file

    return [described(file) for file in files]


def _files_below(folder: Path) -> list[Path]:
    """All files, those of folders in it included; hidden ones belong to other programs."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != MANIFEST_NAME
        and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _open_interest_venues(matches: list[re.Match[str]], exchange: str) -> dict[str, str]:
    """The venue whose open interest each symbol gets: another one's where the exchange has none.

    It moves much the same everywhere, but its level differs, so a symbol's is never mixed.
    """
    venues: dict[str, set[str]] = {}
    for match in matches:
        if match["kind"] == "open_interest":
            venues.setdefault(match["symbol"], set()).add(match["exchange"])
    return {s: exchange if exchange in names else min(names) for s, names in venues.items()}


def import_file(
    file: SourceFile,
    store: MarketStore,
    reading: FileReading,
    written_at_ms: Millis,
    progress: Progress = no_progress,
) -> tuple[FileReport, ImportedSpan | None]:
    """Check a file as a whole and write it; also the span of its candles."""
    if file.manifest is not None:
        reading = replace(reading, origin="export")
        if spans := file.manifest.accepted_jumps:
            store.accept_spans(file.symbol, spans)
    if file.kind == "candles" and file.interval is not None:
        return _import_candles(file, file.interval, store, reading, written_at_ms, progress)
    rows = read_rows(file.path, file.kind, file.symbol, reading, progress=progress)
    _refuse_other_count(rows, file)
    _refuse_outside(rows, file)
    refuse_future(rows, written_at_ms)
    sort_rows(rows)
    interval_ms: Millis | None = None
    series: FundingSeries | OpenInterestSeries
    warnings: list[str] = []
    if file.kind == "funding":
        series = _funding(rows, file.interval, reading)
        warnings += _percent_warning(series)
    else:
        series = _open_interest(rows, reading)
        interval_ms = file.interval.ms if file.interval else None
        if file.manifest is not None:
            interval_ms = file.manifest.interval_ms
    write = store.write(
        file.symbol,
        series,
        _source(file, reading, rows),
        written_at_ms=written_at_ms,
        interval_ms=interval_ms,
    )
    return _report(file, len(series), write, rows, warnings), None


def _import_candles(
    file: SourceFile,
    timeframe: Timeframe,
    store: MarketStore,
    reading: FileReading,
    written_at_ms: Millis,
    progress: Progress,
) -> tuple[FileReport, ImportedSpan]:
    with ColumnSpool(store.path) as spool:
        rows = read_rows(file.path, "candles", file.symbol, reading, spool, progress)
        _refuse_other_count(rows, file)
        _refuse_outside(rows, file)
        candles = checked_candles(rows, timeframe, store, file.symbol, reading, written_at_ms)
        if reading.origin != "export":
            refuse_contradicted(candles, file.symbol, reading.shift_ms, store)
        write = store.write_parts(
            file.symbol,
            with_progress(candles.parts(), len(candles), progress),
            _source(file, reading, rows),
            written_at_ms=written_at_ms,
            built=file.manifest.built if file.manifest else None,
        )
        found = (store.jumps_of_part(file.symbol, part) for part in candles.parts())
        # Two parts may both name a jump from one to the other.
        jumps = {jump.time_ms: jump for jumps in found for jump in jumps}
    store.release_memory()
    report = _report(file, len(candles), write, rows, [], list(jumps.values()))
    return report, ImportedSpan(file.name, timeframe, *candles.span)


def _report(
    file: SourceFile,
    count: int,
    write: WriteReport,
    rows: FileRows,
    warnings: list[str],
    jumps: Sequence[Jump] = (),
) -> FileReport:
    interval = str(file.interval) if file.interval else None
    return FileReport(
        file.name,
        file.kind,
        file.symbol,
        interval,
        count,
        write,
        rows.notes,
        rows.left_out,
        warnings,
        list(jumps),
    )


def _refuse_other_count(rows: FileRows, file: SourceFile) -> None:
    if file.manifest is None or file.manifest.files is None:
        return
    expected = file.manifest.files[file.path.name]
    if len(rows.times) != expected:
        reason = f"row read, but the export wrote {expected}"
        raise InvalidDataError(
            rows.name, {reason: len(rows.times)}, remedy="export again with --force"
        )


def _refuse_outside(rows: FileRows, file: SourceFile) -> None:
    """A file of another day has the right columns, and would replace the rows of that day."""
    if file.period is None:
        return
    late_ms = 0 if file.kind == "candles" else _LATE_SAMPLE_MS
    first_ms, end_ms = file.period.start_ms - late_ms, file.period.end_ms + late_ms
    outside = (rows.times < first_ms) | (rows.times >= end_ms)
    rows.refuse(
        {f"time outside {file.period.name}, which the file is of": outside},
        "the publisher has to correct it",
    )


def _source(file: SourceFile, reading: FileReading, rows: FileRows) -> str:
    """For the provenance: the file, and what was done to its values."""
    if file.manifest is not None:
        exported = file.manifest.source(int(rows.times[0]), int(rows.times[-1]))
        if exported is not None:
            return exported
    source = file.origin or f"file {file.name}"
    if reading.shift_ms:
        sign = "-" if reading.shift_ms < 0 else "+"
        source += f", times shifted by {sign}{Timeframe(abs(reading.shift_ms))}"
    if reading.stamp == "close" and file.kind == "candles":
        source += ", times of close"
    if reading.in_percent and file.kind == "funding":
        source += ", rates in percent"
    return source


def _funding(rows: FileRows, stated: Timeframe | None, reading: FileReading) -> FundingSeries:
    if reading.in_percent:
        rows.columns["rate"] = rows.columns["rate"] / 100
        rows.notes.append("rates are read as percent")
    given = rows.columns.get(FUNDING_INTERVAL)
    if given is None or np.isnan(given).any():
        hours = funding_intervals(rows.times, stated)
        if hours is None:
            raise InvalidInputError(f"{rows.name}: how often is funding settled? give --interval")
        if given is None and len(intervals := np.unique(hours)) > 1:
            listed = ", ".join(f"{value:g} h" for value in intervals)
            rows.notes.append(f"intervals are the distances of the settlements: {listed}")
        rows.columns[FUNDING_INTERVAL] = (
            hours if given is None else np.where(np.isnan(given), hours, given)
        )
    if reading.origin != "export":
        leave_out_unknown(rows, "funding")  # a settlement without a rate still ends the one before
    try:
        return FundingSeries.validated({"time_ms": rows.times, **rows.columns}, rows.name)
    except InvalidDataError as error:
        raise rows.refused(error) from error


def _percent_warning(series: FundingSeries) -> Iterable[str]:
    high = int((np.abs(series.rate) > _RATE_IN_PERCENT_ABOVE).sum())
    if 2 * high > len(series):
        yield (
            f"{high} of {len(series)} funding rates are above 0.75 % per settlement; if the file "
            "has them in percent, import it again with --percent"
        )


def _open_interest(rows: FileRows, reading: FileReading) -> OpenInterestSeries:
    if reading.origin != "export":
        leave_out_unknown(rows, "open_interest", zeros_say_nothing=reading.origin == "archive")
    no_values = {"open_interest_value": np.full(len(rows.times), np.nan)}
    columns = {"time_ms": rows.times, **no_values, **rows.columns}
    try:
        return OpenInterestSeries.validated(columns, rows.name)
    except InvalidDataError as error:
        raise rows.refused(error) from error
