"""What stands beside the files of an exported series, because their rows alone do not say it.

    FOLDER/SYMBOL/candles_3m/series.json                                          -> SeriesManifest
    FOLDER/SYMBOL/candles_3m/bybit_linear_BTCUSDT_candles_3m_2025-01.parquet      one per month

It is written before the first file, and again, with the files, after the last one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.market.built_candles import RESAMPLED, BuiltCandles
from llm_trader.market.file_columns import Kind
from llm_trader.market.jumps import CandleSpan
from llm_trader.market.series_ledgers import SeriesLedgers
from llm_trader.market.series_records import Source
from llm_trader.storage.files import write_atomically
from llm_trader.timeframe import Millis

MANIFEST_NAME: Final = "series.json"
LAYOUT: Final = 1
_SOURCES_NAMED: Final = 3


class SeriesManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`files` has the rows of each file; it is None until all are written.

    `version` is that of the symbol's data in the store. `interval_ms` is how far apart samples of
    open interest are, where that was recorded.
    """

    layout: int = LAYOUT
    exchange: str
    symbol: str
    kind: Kind
    timeframe: str | None
    file_format: str
    version: str
    interval_ms: Millis | None
    sources: list[Source]
    built: BuiltCandles
    accepted_jumps: list[CandleSpan]
    ledgers: SeriesLedgers = SeriesLedgers()
    files: dict[str, int] | None = None

    def source(self, first_ms: Millis, last_ms: Millis) -> str | None:
        """Where the rows of a span are from, in words; None where it was never recorded."""
        names = [s.source for s in self.sources if s.first_ms <= last_ms and s.last_ms >= first_ms]
        # What begins with the word for built candles has no native ones among it.
        names = sorted(dict.fromkeys(names), key=lambda name: name.startswith(RESAMPLED))
        if not names:
            return None
        more = len(names) - _SOURCES_NAMED
        return "; ".join(names[:_SOURCES_NAMED]) + (f"; {more} more" if more > 0 else "")


def read_manifest(folder: Path) -> SeriesManifest | None:
    """The manifest in a folder; `InvalidInputError` where it cannot be read."""
    path = folder / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
    try:
        manifest = msgspec.json.decode(content, type=SeriesManifest)
    except msgspec.MsgspecError as error:
        raise InvalidInputError(
            f"{path} is not as an export writes it ({error}); export again with --force, or remove "
            "it to import the files as any others"
        ) from error
    if manifest.layout > LAYOUT:
        raise InvalidInputError(f"{path} is of a newer version; upgrade llm-trader-rag")
    return manifest


def write_manifest(folder: Path, manifest: SeriesManifest) -> None:
    write_atomically(folder / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest)))


def finished_manifest(folder: Path, *, whole_folder: bool) -> SeriesManifest | None:
    """The manifest of files that are to be imported; `InvalidInputError` where some are missing."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    if manifest.files is None:
        raise InvalidInputError(
            f"the export into {folder} has not ended; run it again, and it goes on where it stopped"
        )
    missing = [name for name in manifest.files if not (folder / name).exists()]
    if whole_folder and missing:
        raise InvalidInputError(
            f"{folder} lacks {len(missing)} files of its export, such as {missing[0]}; export "
            "again with --force, or import single files"
        )
    return manifest
