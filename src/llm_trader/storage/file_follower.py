"""Applies files again when they change, while a server runs: keys, certificates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from llm_trader.background import in_background
from llm_trader.errors import LlmTraderError

# A look takes microseconds, and whoever revokes a key should not have to wait for it.
_EVERY_S: Final = 0.5

_log = structlog.get_logger(__name__)

_Signature = tuple[tuple[int, int, int] | None, ...]


class FileFollower:
    """`apply` reads the files and uses them; it raises `LlmTraderError` if it cannot.

    The first `apply` happens here and may raise. Later ones leave in use what was there before,
    and the log says why. `name` begins the events of the log.
    """

    def __init__(self, name: str, paths: Sequence[Path], apply: Callable[[], None]) -> None:
        self._name = name
        self._paths = tuple(paths)
        self._apply = apply
        # Before the files are read, so that a change meanwhile is noticed.
        self._seen = self._signature()
        apply()

    def look(self, *, force: bool = False) -> str | None:
        """Applies what changed since the last look; returns why it could not."""
        seen = self._signature()
        if seen == self._seen and not force:
            return None
        self._seen = seen
        try:
            self._apply()
        except LlmTraderError as error:
            _log.error(
                f"{self._name}_not_reloaded",
                reason=error.message,
                effect="what was loaded before stays in use",
            )
            return error.message
        _log.info(f"{self._name}_reloaded", paths=[str(path) for path in self._paths])
        return None

    def _signature(self) -> _Signature:
        return tuple(map(_signature, self._paths))


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@asynccontextmanager
async def following(*followers: FileFollower) -> AsyncIterator[None]:
    """Looks at the files all the time."""

    async def look() -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            for follower in followers:
                follower.look()

    async with in_background(look()):
        yield
