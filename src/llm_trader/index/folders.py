"""Versions of an embedded index: folders beside each other, swapped by renaming.

`NAME` is the live one, `NAME.next` one that is being built, `NAME.old-1`, `NAME.old-2` and so on
those that were live before.
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
    """Where the version after this one is built."""
    return live.with_name(f"{live.name}.next")


def swap_in(live: Path) -> Path:
    """Put what was built in the place of the live one; where that is now.

    Raises `StoreLockedError` while an ingestion is at work: it would go on writing to the old one.
    """
    built = next_folder(live)
    if not built.is_dir():
        raise VectorIndexError(f"nothing was built at {built}")
    lock = WriterLock(live)
    try:
        numbers = [int(of.name.rpartition("-")[2]) for of in _old(live)]
        old = live.with_name(f"{live.name}.old-{max(numbers, default=0) + 1}")
        live.rename(old)
        built.rename(live)
    finally:
        lock.release()
    return old


def take_back(live: Path) -> None:
    """Undo a swap that was killed between its two steps; else do nothing."""
    old = _old(live)
    if old and next_folder(live).is_dir() and not live.exists():
        old[-1].rename(live)


def versions(live: Path) -> list[FolderVersion]:
    built = next_folder(live)
    found = [FolderVersion(name=of.name, live=False, building=False) for of in _old(live)]
    if live.is_dir():
        found.append(FolderVersion(name=live.name, live=True, building=False))
    if built.is_dir():
        found.append(FolderVersion(name=built.name, live=False, building=True))
    return found


def prune(live: Path, *, also_building: bool = False) -> list[str]:
    """Delete those that were live before, and one being built only if told; their names.

    Raises `VectorIndexError` where none is live, as after a swap that was killed, and
    `StoreLockedError` while the one being built is at work.
    """
    if not live.is_dir():
        raise VectorIndexError(
            f"no version of {live} is live, so none is deleted; if a rebuild was killed, repeat it"
        )
    gone = _old(live)
    if also_building and next_folder(live).is_dir():
        WriterLock(next_folder(live)).release()
        gone.append(next_folder(live))
    for folder in gone:
        shutil.rmtree(folder)
    return [folder.name for folder in gone]


def _old(live: Path) -> list[Path]:
    pattern = re.compile(rf"{re.escape(live.name)}\.old-\d+")
    if not live.parent.is_dir():
        return []
    found = [of for of in live.parent.iterdir() if of.is_dir() and pattern.fullmatch(of.name)]
    return sorted(found, key=lambda of: int(of.name.rpartition("-")[2]))
