"""Creates a backup, each part of one moment, while others read and write.

1. `index/`  the index first, so that its candles are in the market store's copy, too
2. `market/` a copy by LMDB itself, which is one transaction
3. `answers.json` questions to the copy of the index, and its answers
4. digests of all files, and everything on disk
5. `manifest.json`
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from llm_trader import __version__
from llm_trader.backup import contents
from llm_trader.backup.contents import Recording
from llm_trader.backup.files import digest, disk_errors, with_progress
from llm_trader.backup.manifest import (
    ANSWERS,
    INDEX,
    MARKET,
    QDRANT,
    SCHEMA_VERSION,
    IndexPart,
    Manifest,
    MarketPart,
    Places,
    QdrantPart,
    StoredFile,
    checked_name,
    write_manifest,
)
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, no_progress
from llm_trader.storage.files import sync_to_disk

_DATA: Final = "data.mdb"
_WATCHED_EVERY_S: Final = 0.2  # a progress bar looks smooth, and a stat takes microseconds


@dataclass(slots=True)
class _Parts:
    """The parts that have been copied so far."""

    market: MarketPart | None = None
    index: IndexPart | None = None
    qdrant: QdrantPart | None = None
    recording: Recording | None = None


async def create_backup(
    backups: Path, name: str, sources: Places, *, created_at: str, progress: Progress = no_progress
) -> Manifest:
    """Create the folder `name` in `backups`.

    Raises `ConfigurationError` where it exists already or cannot be written, and the errors of the
    store and of the index. A failed backup is removed.
    """
    if sources.market is None and sources.index is None and sources.qdrant is None:
        raise InvalidInputError(
            "nothing is named that a backup should be made of; name a store or an index"
        )
    folder = backups / checked_name(name)
    if folder.exists():
        raise ConfigurationError(f"{folder} is there already; choose another --name, or delete it")
    with disk_errors(backups):
        folder.mkdir(parents=True)
        try:
            parts = await _copied(folder, sources, progress)
            manifest = Manifest(
                schema_version=SCHEMA_VERSION,
                name=name,
                created_at=created_at,
                package_version=__version__,
                market=parts.market,
                index=parts.index,
                qdrant=parts.qdrant,
                # Digests come last, from what the disk returns, so they also cover the writing.
                files=await _digested(folder, progress),
                notes=parts.recording.notes if parts.recording else [],
            )
            write_manifest(folder, manifest)
            sync_to_disk(backups)
        except BaseException:
            # Half a backup looks like a whole one to everybody who does not open its manifest.
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return manifest


async def _copied(folder: Path, sources: Places, progress: Progress) -> _Parts:
    parts = _Parts()
    if sources.index is not None:
        parts.index, parts.recording = await _copy_index(sources.index, folder / INDEX, progress)
    if sources.qdrant is not None:
        from llm_trader.backup.cluster import copy_collection

        parts.qdrant, parts.recording = await copy_collection(
            sources.qdrant, folder / QDRANT, progress
        )
    if sources.market is not None:
        parts.market = await _copy_market(sources.market, folder / MARKET, progress)
    if parts.recording is not None:
        (folder / ANSWERS).write_bytes(msgspec.json.encode(parts.recording.answers))
    return parts


async def _copy_index(
    source: Path, folder: Path, progress: Progress
) -> tuple[IndexPart, Recording]:
    with EmbeddedIndex.open(source) as index:
        await _watched(index.copy_to, source, folder, f"copying {source}", progress)
    # The copy is asked, because the live index may change between the copy and the questions.
    with EmbeddedIndex.open(folder, immutable=True) as copy:
        part = await contents.index_part(copy, str(source))
        recording = await contents.recorded_answers(copy)
    return part, recording


async def _copy_market(source: Path, folder: Path, progress: Progress) -> MarketPart:
    with MarketStore.open(source) as store:
        await _watched(store.copy_to, source, folder, f"copying {source}", progress)
    return contents.market_part(folder, str(source))


async def _watched(
    copy_to: Callable[[Path], None], source: Path, folder: Path, label: str, progress: Progress
) -> None:
    """Let LMDB copy in a thread and report its progress; a copy is no larger than its source."""
    total = _size(source / _DATA)
    work = asyncio.create_task(asyncio.to_thread(_into_new, copy_to, folder))
    progress(label, 0, total)
    try:
        while not (await asyncio.wait({work}, timeout=_WATCHED_EVERY_S))[0]:
            progress(label, _size(folder / _DATA), total)
    except asyncio.CancelledError:
        await asyncio.wait({work})  # LMDB must not be closed under the thread that copies
        raise
    await work
    progress(label, total, total)


def _into_new(copy_to: Callable[[Path], None], folder: Path) -> None:
    folder.mkdir()
    copy_to(folder)


async def _digested(folder: Path, progress: Progress) -> list[StoredFile]:
    """All files with their digests, once they are on disk."""
    sizes = _files_on_disk(folder)
    return [
        StoredFile(path, sizes[path], await digest(folder / path, on_bytes))
        for path, on_bytes in with_progress(sizes, "digesting", progress)
    ]


def _files_on_disk(folder: Path) -> dict[str, int]:
    """The sizes of all files below a folder, by their paths in it, once they are on disk."""
    sizes = {}
    for path in sorted([*folder.rglob("*"), folder]):
        sync_to_disk(path)
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
