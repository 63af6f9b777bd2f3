"""One writer process per store: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from llm_trader.errors import StoreError, StoreLockedError
from llm_trader.storage.files import write_errors

_FILE_NAME: Final = "writer.lock"


class WriterLock:
    """Held from construction to `release`; the kernel releases it when the process dies.

    Makes the folder where it is missing. Raises `StoreLockedError` naming the holder's process
    id, `StoreError` when this very process holds it, and `ConfigurationError` for a folder that
    cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(folder / _FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise StoreError(f"{folder / _FILE_NAME} is no regular file; delete it")
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder, _, namespace = os.read(self._fd, 64).decode("ascii", "replace").partition(" ")
            os.close(self._fd)
            is_elsewhere = bool(namespace) and namespace != _namespace()
            if holder == str(os.getpid()) and not is_elsewhere:
                raise StoreError(f"{folder} is already open for writing in this process") from None
            writer = f"process {holder}" if holder.isdigit() else "another process"
            writer += " of another container" if is_elsewhere else ""
            raise StoreLockedError(
                f"{writer} is writing to {folder}; wait for it, or stop it",
                path=str(folder),
                pid=int(holder) if holder.isdigit() else None,
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()} {_namespace()}".encode("ascii"))

    def release(self) -> None:
        os.close(self._fd)


def _namespace() -> str:
    """Process ids mean something only within their namespace, and each container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
