"""Export of a market store to files that `file_import.py` reads back to an identical one.

A series gets a folder with a file per month (UTC). Files appear whole or not at all, and one month
is in memory at a time. An interrupted export goes on where it stopped while the store is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
import numpy as np

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.built_candles import BuiltCandles
from llm_trader.market.export_manifest import (
    MANIFEST_NAME,
    SeriesManifest,
    read_manifest,
    write_manifest,
)
from llm_trader.market.file_columns import Kind
from llm_trader.market.file_import import is_file_name
from llm_trader.market.keys import checked_exchange
from llm_trader.market.months import months
from llm_trader.market.series import TimeSeries
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import StoredSeries
from llm_trader.progress import Progress, no_progress
from llm_trader.storage.files import write_all_atomically, write_errors
from llm_trader.timeframe import MINUTE_MS, Millis, Timeframe

FileFormat: TypeAlias = Literal["parquet", "csv"]

# The part of a file's name for the market; the store holds perpetuals alone, and keeps no name.
_MARKET: Final = "linear"


class ExportedSeries(msgspec.Struct, frozen=True):
    """`files` counts those of the series, of which `written` were written by this run."""

    symbol: str
    kind: Kind
    timeframe: str | None
    folder: str
    rows: int
    files: int
    written: int


class ExportReport(msgspec.Struct, frozen=True):
    folder: str
    exchange: str
    series: list[ExportedSeries]


def export_store(
    store: MarketStore,
    folder: Path,
    *,
    file_format: FileFormat,
    symbols: Sequence[str] = (),
    exchange: str | None = None,
    force: bool = False,
    progress: Progress = no_progress,
) -> ExportReport:
    """Write the series of some symbols, by default of all. Progress is in months of a series.

    What an earlier run has written of the same data stays. Raises `InvalidInputError` where the
    folder has files of other data, unless `force` says to replace them.
    """
    exchange = _exchange(store, exchange)
    available = store.symbols()
    for symbol in symbols:
        if symbol not in available:
            raise SymbolNotFoundError(symbol, available)
    chosen = [series for series in store.series() if not symbols or series.symbol in symbols]
    exports = [_SeriesExport(store, series, folder, exchange, file_format) for series in chosen]
    if not force:
        for export in exports:
            export.refuse_to_overwrite()
    with write_errors(folder):
        done = [export.run(progress, anew=force) for export in exports]
    return ExportReport(str(folder), exchange, done)


def _exchange(store: MarketStore, stated: str | None) -> str:
    exchange = store.exchange or stated
    if exchange is None:
        raise InvalidInputError(
            "the store does not say which exchange its data are of; give --exchange"
        )
    if stated not in (None, exchange):
        raise InvalidInputError(f"the store holds data of {exchange}, not of {stated}")
    return checked_exchange(exchange)


class _SeriesExport:
    """One series on its way into a folder of its own."""

    def __init__(
        self,
        store: MarketStore,
        series: StoredSeries[Any],
        folder: Path,
        exchange: str,
        file_format: FileFormat,
    ) -> None:
        self._store, self._series = store, series
        self._folder = folder / series.symbol / series.database
        self._manifest, self._span_ms = _describe(store, series, exchange, file_format)

    def refuse_to_overwrite(self) -> None:
        former = read_manifest(self._folder)
        if former is None:
            names = [path.name for path in _files_in(self._folder) if not _is_part(path)]
            if names:
                raise InvalidInputError(
                    f"{self._folder} has files already, such as {names[0]}; choose another folder, "
                    "or replace them with --force"
                )
        elif former.files is not None and not self._is_of_same_data(former):
            raise InvalidInputError(
                f"{self._folder} has an export of other data, or of an earlier state of the store; "
                "choose another folder, or replace it with --force"
            )

    def run(self, progress: Progress, *, anew: bool) -> ExportedSeries:
        former = None if anew else read_manifest(self._folder)
        is_same = former is not None and self._is_of_same_data(former)
        rows = {} if former is None or not is_same else former.files or {}
        if not rows or any(not (self._folder / name).exists() for name in rows):
            rows, written = self._write(progress, keep=is_same)
        else:
            written = 0
        manifest = self._manifest
        return ExportedSeries(
            manifest.symbol,
            manifest.kind,
            manifest.timeframe,
            str(self._folder),
            sum(rows.values()),
            len(rows),
            written,
        )

    def _write(self, progress: Progress, *, keep: bool) -> tuple[dict[str, int], int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in _files_in(self._folder):
            # What a killed run left has no name that an import reads; other files are not ours.
            if _is_part(path) or (not keep and is_file_name(path.name)):
                path.unlink()
        if not keep:
            write_manifest(self._folder, self._manifest)
        periods = list(months(*self._span_ms))
        label = f"{self._series.symbol} {self._series.database}"
        rows: dict[str, int] = {}
        written = 0
        for done, (month, start_ms, end_ms) in enumerate(periods, 1):
            part = self._store.read_series(self._series, start_ms, end_ms)
            if len(part):
                name = self._file_name(month)
                rows[name] = len(part)
                if not (self._folder / name).exists():
                    writer = _writer(part, self._manifest.file_format)
                    write_all_atomically(self._folder, {name: writer})
                    written += 1
            self._store.release_memory()
            progress(label, done, len(periods))
        write_manifest(self._folder, msgspec.structs.replace(self._manifest, files=rows))
        return rows, written

    def _file_name(self, month: str) -> str:
        manifest = self._manifest
        interval_ms = manifest.interval_ms
        interval = manifest.timeframe
        if interval is None and interval_ms is not None and interval_ms % MINUTE_MS == 0:
            interval = str(Timeframe(interval_ms))
        parts = (manifest.exchange, _MARKET, manifest.symbol, manifest.kind, interval, month)
        return "_".join(part for part in parts if part) + f".{manifest.file_format}"

    def _is_of_same_data(self, former: SeriesManifest) -> bool:
        return msgspec.structs.replace(former, files=None) == self._manifest


def _describe(
    store: MarketStore, series: StoredSeries[Any], exchange: str, file_format: FileFormat
) -> tuple[SeriesManifest, tuple[Millis, Millis]]:
    origin = store.series_origin(series)
    if origin is None:
        raise InvalidInputError(f"the rows of {series} are no longer there; export again")
    timeframe = series.timeframe
    version = cast("tuple[object, ...]", store.symbol_version(series.symbol))
    manifest = SeriesManifest(
        exchange=exchange,
        symbol=series.symbol,
        kind="candles" if timeframe else cast(Kind, series.database),
        timeframe=str(timeframe) if timeframe else None,
        file_format=file_format,
        # Its first part counts the files that this process has seen, and is no part of the data.
        version=repr(version[1:]),
        interval_ms=origin.interval_ms,
        sources=origin.sources,
        built=store.built_candles(series.symbol, timeframe) if timeframe else BuiltCandles(),
        accepted_jumps=list(store.accepted_jumps(series.symbol)),
        ledgers=store.series_ledgers(series),
    )
    return manifest, (origin.first_ms, origin.last_ms + 1)


def _writer(part: TimeSeries, file_format: str) -> Callable[[Path], None]:
    import polars as pl

    columns: dict[str, Any] = {part.time_field: np.ascontiguousarray(part.times)}
    columns |= {name: np.ascontiguousarray(values) for name, values in part.columns()}
    frame = pl.DataFrame(columns)
    if file_format == "parquet":
        return lambda path: frame.write_parquet(path)
    return lambda path: frame.fill_nan(None).write_csv(path)


def _files_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST_NAME)


def _is_part(path: Path) -> bool:
    return path.name.endswith(".part")
