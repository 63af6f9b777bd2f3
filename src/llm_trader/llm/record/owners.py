"""Which of the processes that record calls still live.

Each holds a lock on a file of its own, which the kernel releases when the process dies, however it
does. So a call whose owner is gone has no end that anybody will ever record.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

from llm_trader.storage.files import write_errors

_FOLDER: Final = "owners"


class Owner:
    """This process, from construction to `release`."""

    def __init__(self, folder: Path) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._path = folder / _FOLDER / self.name
        with write_errors(folder):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def is_alive(folder: Path, name: str) -> bool:
    """Whether the owner of that name still holds its lock; removes the file of one that is gone."""
    path = folder / _FOLDER / name
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(descriptor)
