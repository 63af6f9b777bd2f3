"""Files copied and digested, with an operator's words where a disk refuses."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from llm_trader.errors import ConfigurationError

_CHUNK: Final = 4 << 20


async def digest(path: Path, told: Callable[[int], None]) -> str:
    """The SHA-256 of a file; `told` is called with the bytes done."""
    with path.open("rb") as file:
        return await _digested(file, None, told)


async def copy(source: Path, target: Path, told: Callable[[int], None]) -> str:
    """Copy into a new file that is on disk when this returns; the SHA-256 of what was copied."""
    with source.open("rb") as file, target.open("xb") as into:
        found = await _digested(file, into, told)
        into.flush()
        os.fsync(into.fileno())
    return found


async def _digested(file: IO[bytes], into: IO[bytes] | None, told: Callable[[int], None]) -> str:
    sha256, done = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        sha256.update(chunk)
        if into is not None:
            into.write(chunk)
        done += len(chunk)
        told(done)
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    return sha256.hexdigest()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raises `ConfigurationError` for what the disk refuses."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise ConfigurationError(
            f"{where}: {error.strerror}; name a folder that can be read and written, with room"
        ) from error
