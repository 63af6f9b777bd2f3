"""One at a time, and a failure for all who waited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_trader.errors import VectorIndexError


class SingleFlight:
    """Who waits for one that fails with `VectorIndexError` fails alike.

    Each would else try for as long again, one after the other, past their deadlines.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failures = 0
        self._failure = VectorIndexError("")

    def busy(self) -> bool:
        return self._lock.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        before = self._failures
        async with self._lock:
            if self._failures > before:
                raise _anew(self._failure)
            try:
                yield
            except VectorIndexError as error:
                self._failures += 1
                self._failure = _anew(error)
                raise


def _anew(error: VectorIndexError) -> VectorIndexError:
    """Without the frames that it came through, which would stay in memory with it."""
    return type(error)(error.message, **error.details)
