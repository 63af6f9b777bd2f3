"""The newest head, read once for all callers that wait for it."""

from __future__ import annotations

from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.reader import Reader
from llm_trader.index.qdrant.single_flight import SingleFlight


class HeadCache:
    """Each caller gets a head that was read after its call, however many call at once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._reading = SingleFlight()
        self._reads = 0
        self._last: tuple[int, Head] | None = None

    async def newest(self) -> Head:
        arrived = self._reads
        async with self._reading.turn():
            if self._last is None or self._last[0] <= arrived:
                self._reads += 1
                number = self._reads
                self._last = number, await self._reader.head()
            return self._last[1]
