"""Explains what the surroundings of a store refuse: disk, owner, limits, other containers."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import stat
from pathlib import Path
from typing import Final

_MIB: Final = 2**20
# A disk with less room than this fails with EIO as well as with ENOSPC.
_FULL_BELOW_BYTES: Final = 64 * 1024


def explain(number: int | None, path: Path, *, map_size_bytes: int = 0, setting: str = "") -> str:
    """What an error number means for a file or folder, and what to do; empty where unknown."""
    if number in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        return _full(number, path)
    if number in (errno.EACCES, errno.EPERM):
        return _not_permitted(path)
    if number == errno.EROFS:
        return f"the file system of {path} is mounted read-only; mount it for writing"
    if number == errno.EAGAIN:
        return (
            f"another process with the same number ({os.getpid()}) has it open, as when two "
            "containers share the volume but not their processes; give them one PID namespace "
            "(docker run --pid container:NAME, or pid: service:NAME in compose), or open it in "
            "one of them only"
        )
    if number == errno.ENOMEM:
        return _no_memory(map_size_bytes, setting)
    return ""


def _full(number: int, path: Path) -> str:
    try:
        disk = os.statvfs(_existing(path))
    except OSError:
        return ""
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if number == errno.EDQUOT:
        return (
            f"the quota of {_user(os.geteuid())} on the file system of {path} is used up; nothing "
            "of this write is kept, free some space or raise the quota"
        )
    if number == errno.EIO and free > _FULL_BELOW_BYTES:
        return ""
    return (
        f"the disk of {path} is full: {free / _MIB:.1f} of {total / _MIB:.0f} MiB are free for "
        f"{_user(os.geteuid())}; nothing of this write is kept, free some space and repeat it"
    )


def _not_permitted(path: Path) -> str:
    """The first file or folder of the path that the user may not use, and whose it is."""
    user = _user(os.geteuid())
    refused = next((part for part in _parts(path) if not _may_use(part)), _existing(path))
    status = refused.stat()
    mode = stat.S_IMODE(status.st_mode)
    return (
        f"{user} may not write to {refused}, which belongs to {_user(status.st_uid)} "
        f"(mode {mode:03o}); run as that user, or give {user} the right to read and write"
    )


def _parts(path: Path) -> list[Path]:
    """The folder and the files of a store, from the outermost existing one on."""
    existing = _existing(path)
    inside = (
        sorted(existing.iterdir()) if existing.is_dir() and os.access(existing, os.R_OK) else []
    )
    return [existing, *(file for file in inside if file.suffix in (".mdb", ".lock"))]


def _may_use(path: Path) -> bool:
    wanted = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    return os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids)


def _existing(path: Path) -> Path:
    return next((p for p in (path, *path.parents) if os.access(p, os.F_OK)), Path("/"))


def _no_memory(map_size_bytes: int, setting: str) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return "the machine has no memory left; free some and try again"
    remedy = "raise the limit (ulimit -v unlimited)" + (f", or lower {setting}" if setting else "")
    return (
        f"its map needs {map_size_bytes / _MIB:.0f} MiB of address space, and this process may use "
        f"{limit / _MIB:.0f} MiB; {remedy}"
    )


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
