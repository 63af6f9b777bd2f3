"""Reading points of one collection in pages, several at a time, each taken over by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from llm_trader.errors import VectorIndexError
from llm_trader.index.qdrant import requests
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.errors import malformed
from llm_trader.index.qdrant.layout import UnreadableError
from llm_trader.timeframe import DAY_MS, Millis

if TYPE_CHECKING:
    from qdrant_client import models

T = TypeVar("T")
ClientPoints = Sequence[Any]  # points as the client gives them
Decode = Callable[[ClientPoints], T]

_ABREAST: Final = 3
_SPAN_MS: Final = 10 * DAY_MS
_MOST_SPANS: Final = 64


class CollectionPages:
    """Asks the collection or alias `name`; a page is made into something before the next one."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        # Replies that come at once are taken over at a stretch, before the event loop goes on.
        self._abreast = asyncio.Semaphore(_ABREAST)

    def read(self, make: Decode[T], found: ClientPoints) -> T:
        """Raises `VectorIndexError` for a reply that cannot be read."""
        try:
            return make(found)
        except UnreadableError as error:
            raise self.malformed(str(error)) from error

    def malformed(self, what: str) -> VectorIndexError:
        return malformed(self.connection.server, f"{what}, in {self.name}")

    async def query(self, what: str, asked: Sequence[models.QueryRequest]) -> list[ClientPoints]:
        """Replies to several queries in one round trip."""
        replies = await self.connection.call(
            what, lambda client: client.query_batch_points(self.name, asked)
        )
        if len(replies) != len(asked):
            raise self.malformed("fewer replies than queries")
        return [reply.points for reply in replies]

    async def by_id(
        self,
        what: str,
        ids: Sequence[str],
        make: Decode[T],
        *,
        fields: Sequence[str] | bool = True,
        names: Iterable[str] = (),
        size: int = 1000,
    ) -> list[T]:
        """Points of these ids that are there, without order; payload fields and vectors named."""
        payload = fields if isinstance(fields, bool) else list(fields)

        async def page(part: Sequence[str]) -> T:
            async with self._abreast:
                found = await self.connection.call(
                    what,
                    lambda client: client.retrieve(
                        self.name, part, with_payload=payload, with_vectors=list(names) or False
                    ),
                )
            return self.read(make, found)

        return await together(page(ids[at : at + size]) for at in range(0, len(ids), size))

    async def all(
        self,
        inside: models.Filter,
        make: Decode[T],
        *,
        fields: Sequence[str],
        names: Iterable[str] = (),
        size: int = 1000,
    ) -> list[T]:
        """All points that pass a filter, without order, page after page."""

        async def page(offset: Any) -> tuple[ClientPoints, Any]:
            async with self._abreast:
                return await self.connection.call(
                    "reading points",
                    lambda client: client.scroll(
                        self.name,
                        inside,
                        limit=size,
                        offset=offset,
                        with_payload=list(fields),
                        with_vectors=list(names) or False,
                    ),
                )

        found, offset = await page(None)
        made = [self.read(make, found)]
        while offset is not None:
            found, offset = await page(offset)
            made.append(self.read(make, found))
        return made

    async def over_time(
        self,
        symbol: str,
        first_ms: Millis,
        last_ms: Millis,
        make: Decode[T],
        *,
        fields: Sequence[str],
        names: Iterable[str] = (),
        size: int = 1000,
    ) -> list[T]:
        """A symbol's points from first to last; stretches of time are read at once."""
        length = max(_SPAN_MS, -(-(last_ms + 1 - first_ms) // _MOST_SPANS))
        lows = range(first_ms, last_ms + 1, length)
        spans = [
            requests.of_symbol(symbol, timestamp=(low, min(low + length - 1, last_ms)))
            for low in lows
        ]
        parts = await together(
            self.all(span, make, fields=fields, names=names, size=size) for span in spans
        )
        return [made for part in parts for made in part]


async def together(asked: Iterable[Awaitable[T]]) -> list[T]:
    """All results in order; the first failure cancels the rest and is raised by itself."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
