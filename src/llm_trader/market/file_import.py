"""Import of Parquet and CSV files into the market store, and of the candles derived from them.

Files are named `<exchange>_<market>_<SYMBOL>_<kind>_<interval>.parquet` (or `.csv`), kind being
`candles`, `funding` or `open_interest`. Each file is checked as a whole and written in one
transaction, so an interrupted import can simply be run again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args

import msgspec
import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.errors import ConfigurationError, InvalidDataError, InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.file_columns import (
    FUNDING_INTERVAL,
    ColumnMapping,
    Kind,
    check_mapping,
    read_columns,
)
from llm_trader.market.keys import SYMBOL_PATTERN, checked_symbol
from llm_trader.market.resampling import resample
from llm_trader.market.samples import FundingSeries, OpenInterestSeries, sampling_interval_ms
from llm_trader.market.store import MarketStore
from llm_trader.market.value_codecs import WriteReport
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import H4, HOUR_MS, M1, M3, MINUTE_MS, Millis, Timeframe

NAMING: Final = "<exchange>_<market>_<SYMBOL>_<candles|funding|open_interest>_<interval>"
_FILE_NAME: Final = re.compile(
    r"(?P<exchange>[a-z0-9-]+)_(?P<market>[a-z0-9-]+)_"
    rf"(?P<symbol>{SYMBOL_PATTERN})"
    r"_(?P<kind>candles|funding|open_interest)_(?P<interval>[1-9]\d{0,3}[mhd])\.(parquet|csv)"
)
# Begins the source of derived candles; later imports tell them from native ones by it.
_RESAMPLED: Final = "resampled from"


class FileReport(msgspec.Struct, frozen=True):
    file: str
    kind: Kind
    symbol: str
    interval: str | None
    rows: int
    write: WriteReport


class DerivedReport(msgspec.Struct, frozen=True):
    """Candles built from those of an imported file."""

    symbol: str
    timeframe: str
    source: str
    rows: int
    write: WriteReport


class SkippedFile(msgspec.Struct, frozen=True):
    file: str
    reason: str


class ImportReport(msgspec.Struct, frozen=True):
    files: list[FileReport]
    derived: list[DerivedReport]
    skipped: list[SkippedFile]


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    kind: Kind
    symbol: str
    interval: Timeframe | None


@dataclass(frozen=True, slots=True)
class _CandleSpan:
    """The span that one imported file has candles of."""

    file: str
    timeframe: Timeframe
    start_ms: Millis
    end_ms: Millis


def import_folder(
    path: Path,
    store: MarketStore,
    *,
    exchange: str,
    written_at_ms: Millis,
    mapping: ColumnMapping | None = None,
    progress: Progress = no_progress,
    symbol: str | None = None,
    kind: str | None = None,
    interval: str | None = None,
) -> ImportReport:
    """Import a file, or the files of a folder, and build 3m candles from 1m and 4h where missing.

    `symbol`, `kind` and `interval` describe a single file whose name does not. Raises
    `InvalidInputError` when there is nothing to import or a column is missing, and
    `InvalidDataError` at the first file with a bad row: nothing of that file is written, and
    `details["imported"]` names the files before it.
    """
    mapping = mapping or {}
    check_mapping(mapping)
    if store.exchange not in (None, exchange):
        raise ConfigurationError(f"the store holds data of {store.exchange}, not of {exchange}")
    skipped: list[SkippedFile] = []
    if (symbol, kind, interval) != (None, None, None):
        files = [_describe_file(path, symbol, kind, interval)]
    else:
        files, skipped = _list_files(path, exchange)
    reports: list[FileReport] = []
    spans: dict[str, list[_CandleSpan]] = {}
    for file in files:
        try:
            report, span = _import_file(file, store, mapping, written_at_ms)
        except (InvalidDataError, InvalidInputError) as error:
            error.details["imported"] = [report.file for report in reports]
            raise
        reports.append(report)
        if span is not None:
            spans.setdefault(file.symbol, []).append(span)
        progress(file.path.name, len(reports), len(files))
    derived = [
        report
        for symbol, symbol_spans in spans.items()
        for report in _derive_candles(symbol, symbol_spans, store, written_at_ms)
    ]
    return ImportReport(reports, derived, skipped)


def _describe_file(path: Path, symbol: str | None, kind: str | None, interval: str | None) -> _File:
    """A single file of any name; what is not given is taken from its name."""
    if not path.is_file() or path.suffix not in (".parquet", ".csv"):
        raise InvalidInputError(f"{path} is not a .parquet or .csv file")
    match = _FILE_NAME.fullmatch(path.name)
    parts = match.groupdict() if match else {}
    symbol = symbol or parts.get("symbol")
    kind = kind or parts.get("kind")
    interval = interval or parts.get("interval")
    if symbol is None or kind not in get_args(Kind) or (kind == "candles" and interval is None):
        raise InvalidInputError(
            f"{path.name}: say what it holds with --symbol, --kind (candles, funding or "
            "open_interest) and, for candles, --interval"
        )
    timeframe = Timeframe.parse(interval) if interval else None
    return _File(path, cast(Kind, kind), checked_symbol(symbol), timeframe)


def _list_files(path: Path, exchange: str) -> tuple[list[_File], list[SkippedFile]]:
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist")
    paths = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    matches = {p: _FILE_NAME.fullmatch(p.name) for p in paths}
    venues = _open_interest_venues([m for m in matches.values() if m], exchange)
    files: list[_File] = []
    skipped: list[SkippedFile] = []
    for file, match in matches.items():
        if match is None:
            skipped.append(SkippedFile(file.name, f"not named like {NAMING}.parquet"))
            continue
        kind, symbol = cast(Kind, match["kind"]), match["symbol"]
        venue = venues[symbol] if kind == "open_interest" else exchange
        if match["exchange"] == venue:
            files.append(_File(file, kind, symbol, Timeframe.parse(match["interval"])))
        else:
            reason = f"{kind} of {match['exchange']}, not of {venue}"
            skipped.append(SkippedFile(file.name, reason))
    if not files:
        reasons = "; ".join(f"{s.file}: {s.reason}" for s in skipped[:5]) or "no files"
        raise InvalidInputError(
            f"nothing to import in {path} for {exchange} ({reasons}); name files like "
            f"{NAMING}.parquet or .csv, or give --symbol, --kind and --interval of one file"
        )
    return files, skipped


def _open_interest_venues(matches: list[re.Match[str]], exchange: str) -> dict[str, str]:
    """The venue whose open interest each symbol gets: another one's where the exchange has none.

    It moves much the same everywhere, but its level differs, so a symbol's is never mixed.
    """
    venues: dict[str, set[str]] = {}
    for match in matches:
        if match["kind"] == "open_interest":
            venues.setdefault(match["symbol"], set()).add(match["exchange"])
    return {s: exchange if exchange in names else min(names) for s, names in venues.items()}


def _import_file(
    file: _File, store: MarketStore, mapping: ColumnMapping, written_at_ms: Millis
) -> tuple[FileReport, _CandleSpan | None]:
    name, symbol, timeframe = file.path.name, file.symbol, file.interval
    times, columns = read_columns(file.path, file.kind, mapping)
    source, span = f"file {name}", None
    if file.kind == "candles" and timeframe is not None:
        candles = _candles(times, columns, timeframe, name)
        write = store.write(symbol, candles, source, written_at_ms=written_at_ms)
        span = _CandleSpan(name, timeframe, int(times[0]), int(times[-1]) + timeframe.ms)
    elif file.kind == "funding":
        funding = _funding(times, columns, timeframe, name)
        write = store.write(symbol, funding, source, written_at_ms=written_at_ms)
    else:
        no_values = {"open_interest_value": np.full(len(times), np.nan)}
        interest = OpenInterestSeries.validated({"time_ms": times, **no_values, **columns}, name)
        interval_ms = timeframe.ms if timeframe else None
        write = store.write(
            symbol, interest, source, written_at_ms=written_at_ms, interval_ms=interval_ms
        )
    interval = str(timeframe) if timeframe else None
    return FileReport(name, file.kind, symbol, interval, len(times), write), span


def _candles(
    times: Times, columns: dict[str, Floats], timeframe: Timeframe, name: str
) -> CandleSeries:
    series = CandleSeries.validated(timeframe, {"open_time_ms": times, **columns}, name)
    median_ms = sampling_interval_ms(series.open_time_ms)
    if median_ms is not None and median_ms != timeframe.ms:
        reason = f"candle mostly {Timeframe(median_ms)} from the next, not {timeframe}"
        raise InvalidDataError(name, {reason: len(series)})
    return series


def _funding(
    times: Times, columns: dict[str, Floats], interval: Timeframe | None, name: str
) -> FundingSeries:
    if FUNDING_INTERVAL not in columns:
        interval_ms = interval.ms if interval else sampling_interval_ms(times)
        if interval_ms is None:
            raise InvalidInputError(f"{name}: how often is funding settled? give --interval")
        # To the minute: settlements are stamped some milliseconds late.
        hours = round(interval_ms / MINUTE_MS) * MINUTE_MS / HOUR_MS
        columns = {**columns, FUNDING_INTERVAL: np.full(len(times), hours)}
    return FundingSeries.validated({"time_ms": times, **columns}, name)


def _derive_candles(
    symbol: str, spans: list[_CandleSpan], store: MarketStore, written_at_ms: Millis
) -> Iterable[DerivedReport]:
    """3m candles from 1m, and 4h from the finest imported, where there are no native ones."""
    minutes = [span for span in spans if span.timeframe == M1]
    finest = min((span.timeframe for span in spans), default=M1)
    coarse = [s for s in spans if s.timeframe == finest and H4.ms % finest.ms == 0 and finest < H4]
    for target, sources in ((M3, minutes), (H4, coarse)):
        if sources and not _is_native(store, symbol, target):
            for span in sources:
                yield _resample(symbol, span, target, store, written_at_ms)


def _is_native(store: MarketStore, symbol: str, timeframe: Timeframe) -> bool:
    sources = store.provenance(symbol, timeframe)
    if not sources:
        return timeframe in store.timeframes(symbol)
    return any(not entry.source.startswith(_RESAMPLED) for entry in sources)


def _resample(
    symbol: str, span: _CandleSpan, target: Timeframe, store: MarketStore, written_at_ms: Millis
) -> DerivedReport:
    # Read back from the store: a neighbouring file may complete the first and the last candle.
    start_ms, end_ms = target.floor(span.start_ms), target.floor(span.end_ms - 1) + target.ms
    built = resample(store.candles(symbol, span.timeframe, start_ms, end_ms), target)
    source = f"{_RESAMPLED} {span.timeframe} of {span.file}"
    write = store.write(symbol, built, source, written_at_ms=written_at_ms)
    return DerivedReport(symbol, str(target), source, len(built), write)
