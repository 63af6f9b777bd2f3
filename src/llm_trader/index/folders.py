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


class FolderVersion(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    live: bool
    building: bool


def next_folder(live: Path) -> Path:
    """Where the version after this one is built."""
    return live.with_name(f"{live.name}.next")


def swap_in(live: Path) -> Path | None:
    """Put what was built in the place of the live one; where that is now.

    Killed between its two steps, it is completed by calling it again.
    """
    built = next_folder(live)
    if not built.is_dir():
        raise VectorIndexError(f"nothing was built at {built}")
    old = None
    if live.exists():
        numbers = [int(of.name.rpartition("-")[2]) for of in _old(live)]
        old = live.with_name(f"{live.name}.old-{max(numbers, default=0) + 1}")
        live.rename(old)
    built.rename(live)
    return old


def versions(live: Path) -> list[FolderVersion]:
    built = next_folder(live)
    found = [FolderVersion(name=of.name, live=False, building=False) for of in _old(live)]
    if live.is_dir():
        found.append(FolderVersion(name=live.name, live=True, building=False))
    if built.is_dir():
        found.append(FolderVersion(name=built.name, live=False, building=True))
    return found


def prune(live: Path) -> list[str]:
    """Delete those that were live before; their names."""
    names = []
    for folder in _old(live):
        shutil.rmtree(folder)
        names.append(folder.name)
    return names


def _old(live: Path) -> list[Path]:
    pattern = re.compile(rf"{re.escape(live.name)}\.old-\d+")
    if not live.parent.is_dir():
        return []
    found = [of for of in live.parent.iterdir() if of.is_dir() and pattern.fullmatch(of.name)]
    return sorted(found, key=lambda of: int(of.name.rpartition("-")[2]))
