"""Files that appear on disk as a whole or not at all, whenever the process or the machine dies;
and files that users name, which may be no files at all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llm_trader.errors import ConfigurationError
from llm_trader.storage.surroundings import explain


def read_whole(path: Path) -> bytes:
    """The content of a file that a user named. Raises `OSError`, also where it is a named pipe or a
    device, which might never end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path.read_bytes()


def write_atomically(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Create or replace a file; it is on disk when this returns. The folder must exist.

    `mode` has the permissions of the file, less what the umask of the process takes away.
    """

    def write(part: Path) -> None:
        part.unlink(missing_ok=True)  # one that a killed process left has its own permissions
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)

    write_all_atomically(path.parent, {path.name: write})


def write_all_atomically(folder: Path, writers: Mapping[str, Callable[[Path], None]]) -> None:
    """Write files by name, each by a function that is given the path to write to.

    None takes its place before all are complete, so old and new ones do not stand side by side
    when one cannot be written.
    """
    parts = {name: folder / f"{name}.{os.getpid()}.part" for name in writers}
    try:
        for name, write in writers.items():
            write(parts[name])
            sync_to_disk(parts[name])
        for name, part in parts.items():
            part.replace(folder / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    sync_to_disk(folder)


def sync_to_disk(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Raises `ConfigurationError` where a folder cannot be created or written to."""
    try:
        yield
    except OSError as error:
        explanation = explain(error.errno, folder)
        reason = f"{error.strerror}; {explanation}" if explanation else error.strerror
        raise ConfigurationError(
            f"cannot write to {folder}: {reason}; or choose a folder that is writable"
        ) from error
