"""Versions of an embedded index: folders side by side, swapped by renaming.

`NAME` is the live one, `NAME.next` the one being built, and `NAME.old-1`, `NAME.old-2` and so on
were live earlier.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec

from llm_trader.errors import VectorIndexError
from llm_trader.storage.writer_lock import WriterLock


class FolderVersion(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    live: bool
    building: bool


def next_folder(live: Path) -> Path:
    """The folder in which the next version is built."""
    return live.with_name(f"{live.name}.next")


def swap_in(live: Path) -> Path:
    """Put the built version in the place of the live one; returns the folder of the old one.

    Raises `StoreLockedError` while an ingestion runs: it would go on writing to the old one.
    """
    built = next_folder(live)
    if not built.is_dir():
        raise VectorIndexError(
            f"nothing was built at {built}; build it with: llm-trader index rebuild"
        )
    lock = WriterLock(live)
    try:
        numbers = [_number(folder) for folder in _old(live)]
        old = live.with_name(f"{live.name}.old-{max(numbers, default=0) + 1}")
        # A kill between the two leaves no live folder; `take_back` mends that.
        live.rename(old)
        built.rename(live)
    finally:
        lock.release()
    return old


def take_back(live: Path) -> None:
    """Undo a swap that was killed between its two steps; otherwise do nothing."""
    old = _old(live)
    if old and next_folder(live).is_dir() and not live.exists():
        old[-1].rename(live)


def versions(live: Path) -> list[FolderVersion]:
    built = next_folder(live)
    return [
        FolderVersion(name=folder.name, live=folder == live, building=folder == built)
        for folder in (*_old(live), live, built)
        if folder.is_dir()
    ]


def prune(live: Path, *, also_building: bool = False) -> list[str]:
    """Delete old versions, and with `also_building` the one being built; returns their names.

    Raises `VectorIndexError` where none is live, as after a swap that was killed, and
    `StoreLockedError` while an ingestion writes to the one being built.
    """
    if not live.is_dir():
        raise VectorIndexError(
            f"no version of {live} is live, so none is deleted; if a rebuild was killed, repeat it"
        )
    obsolete = _old(live)
    if also_building and next_folder(live).is_dir():
        WriterLock(next_folder(live)).release()
        obsolete.append(next_folder(live))
    for folder in obsolete:
        shutil.rmtree(folder)
    return [folder.name for folder in obsolete]


def _old(live: Path) -> list[Path]:
    pattern = re.compile(rf"{re.escape(live.name)}\.old-\d+")
    if not live.parent.is_dir():
        return []
    folders = [f for f in live.parent.iterdir() if f.is_dir() and pattern.fullmatch(f.name)]
    return sorted(folders, key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
