"""Copies and digests of files, with progress, and errors of the disk as the operator sees them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, TypeVar

from llm_trader.errors import ConfigurationError
from llm_trader.progress import Progress
from llm_trader.storage.surroundings import explain

# Ctrl-C takes effect between chunks, and reading one takes milliseconds.
_CHUNK: Final = 4 << 20

T = TypeVar("T")
OnBytes = Callable[[int], None]  # called with the number of bytes done


def with_progress(
    sizes: Mapping[T, int], label: str, progress: Progress
) -> Iterator[tuple[T, OnBytes]]:
    """Each file with a function that reports its bytes as a part of the bytes of all files."""
    total, finished = sum(sizes.values()), 0
    for file, size in sizes.items():

        def on_bytes(done: int, finished: int = finished) -> None:
            progress(label, finished + done, total)

        yield file, on_bytes
        finished += size


async def digest(path: Path, on_bytes: OnBytes) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return await _digested(file, None, on_bytes)


async def copy(source: Path, target: Path, on_bytes: OnBytes) -> str:
    """Copy into a new file that is on disk when this returns; the SHA-256 of the content."""
    with source.open("rb") as file, target.open("xb") as into:
        sha256 = await _digested(file, into, on_bytes)
        into.flush()
        os.fsync(into.fileno())
    return sha256


async def _digested(file: IO[bytes], into: IO[bytes] | None, on_bytes: OnBytes) -> str:
    sha256, done = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        sha256.update(chunk)
        if into is not None:
            into.write(chunk)
        done += len(chunk)
        on_bytes(done)
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    return sha256.hexdigest()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raises `ConfigurationError` for an operation that the disk refuses."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        explanation = explain(error.errno, Path(os.fsdecode(where)))
        reason = f"{error.strerror}; {explanation}" if explanation else error.strerror
        raise ConfigurationError(
            f"{where}: {reason}; name a folder that can be read and written, with room"
        ) from error
