"""Points of one collection, read page by page, several pages at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from llm_trader.errors import VectorIndexError
from llm_trader.index.qdrant import requests
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.errors import malformed
from llm_trader.index.qdrant.layout import UnreadableError
from llm_trader.timeframe import DAY_MS, Millis

if TYPE_CHECKING:
    from qdrant_client import models

T = TypeVar("T")
ClientPoints = Sequence[Any]  # as the client returns them

# One would wait for each round trip; many that arrive together would hold up the event loop.
_CONCURRENT_PAGES: Final = 3
# 960 points every quarter-hour: two pages of rows.
_SPAN_MS: Final = 10 * DAY_MS
# So that ten years are not hundreds of requests.
_MOST_SPANS: Final = 64


@dataclass(frozen=True, slots=True)
class PageContent(Generic[T]):
    """What is read of each point, how a page of points is decoded, and its size."""

    decode: Callable[[ClientPoints], T]
    fields: list[str] | bool = True
    vectors: list[str] | bool = False
    size: int = 1000


class CollectionPages:
    """Asks the collection or alias `name`; each page is decoded before the next is read."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        # Replies that arrive together are decoded in one stretch, which holds up the event loop.
        self._page_slots = asyncio.Semaphore(_CONCURRENT_PAGES)

    def read(self, decode: Callable[[ClientPoints], T], points: ClientPoints) -> T:
        """Raises `VectorIndexError` for a reply that cannot be read."""
        try:
            return decode(points)
        except UnreadableError as error:
            raise self.malformed(str(error)) from error

    def malformed(self, problem: str) -> VectorIndexError:
        return malformed(self.connection.server, f"{problem}, in {self.name}")

    async def query(
        self, action: str, queries: Sequence[models.QueryRequest]
    ) -> list[ClientPoints]:
        """Replies to several queries in one round trip."""
        replies = await self.connection.call(
            action, lambda client: client.query_batch_points(self.name, queries)
        )
        if len(replies) != len(queries):
            raise self.malformed("fewer replies than queries")
        return [reply.points for reply in replies]

    async def by_id(self, action: str, ids: Sequence[str], content: PageContent[T]) -> list[T]:
        """The points with these ids that exist, in no order, decoded page by page."""

        async def page(part: Sequence[str]) -> T:
            async with self._page_slots:
                points = await self.connection.call(
                    action,
                    lambda client: client.retrieve(
                        self.name, part, content.fields, content.vectors
                    ),
                )
            return self.read(content.decode, points)

        starts = range(0, len(ids), content.size)
        return await together(page(ids[start : start + content.size]) for start in starts)

    async def all(self, inside: models.Filter, content: PageContent[T]) -> list[T]:
        """All points that pass a filter, in no order, page by page."""

        async def page(offset: Any) -> tuple[T, Any]:
            async with self._page_slots:
                points, following = await self.connection.call(
                    "reading points",
                    lambda client: client.scroll(
                        self.name,
                        inside,
                        limit=content.size,
                        offset=offset,
                        with_payload=content.fields,
                        with_vectors=content.vectors,
                    ),
                )
            return self.read(content.decode, points), following

        result, offset = await page(None)
        results = [result]
        while offset is not None:
            result, offset = await page(offset)
            results.append(result)
        return results

    async def over_time(
        self, symbol: str, first_ms: Millis, last_ms: Millis, content: PageContent[T]
    ) -> list[T]:
        """A symbol's points from first to last; several spans of time are read at once."""
        length = max(_SPAN_MS, -(-(last_ms + 1 - first_ms) // _MOST_SPANS))
        lows = range(first_ms, last_ms + 1, length)
        spans = [(low, min(low + length - 1, last_ms)) for low in lows]
        parts = await together(
            self.all(requests.points_of(symbol, timestamp=span), content) for span in spans
        )
        return [result for part in parts for result in part]


async def together(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """All results in order; the first failure cancels the rest and is raised by itself."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        # Without this, the other requests would go on and load the server for nobody.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
