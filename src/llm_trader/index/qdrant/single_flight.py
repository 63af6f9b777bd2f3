"""Work that one caller does at a time, and whose failure all who waited share; the newest head."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_trader.errors import VectorIndexError
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.reader import Reader


class SingleFlight:
    """Callers take turns; when one fails with `VectorIndexError`, all who wait fail with it.

    Otherwise each would try for as long again, one after the other, past their deadlines.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failures = 0
        self._failure = VectorIndexError("")

    def busy(self) -> bool:
        return self._lock.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        failures_at_arrival = self._failures
        async with self._lock:
            if self._failures > failures_at_arrival:
                raise _copied(self._failure)
            try:
                yield
            except VectorIndexError as error:
                self._failures += 1
                self._failure = _copied(error)
                raise


def _copied(error: VectorIndexError) -> VectorIndexError:
    """The same error without its traceback, whose frames would stay in memory with it."""
    return type(error)(error.message, **error.details)


class HeadCache:
    """Each caller gets a head that was read after its call, however many call at once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._reading = SingleFlight()
        self._reads = self.calls = 0
        self._last: tuple[int, Head] | None = None

    @property
    def reads(self) -> int:
        """How many of the calls read a head; the others shared one."""
        return self._reads

    async def newest(self) -> Head:
        self.calls += 1
        arrived = self._reads
        async with self._reading.turn():
            if self._last is None or self._last[0] <= arrived:
                self._reads += 1
                number = self._reads
                self._last = number, await self._reader.head()
            return self._last[1]
