"""Reads one collection, several pages at a time: rows, vectors, times, runs, the head."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import numpy as np

from llm_trader.arrays import Times, Vectors
from llm_trader.errors import VectorIndexError
from llm_trader.index.points import PointTable, joined, point_id
from llm_trader.index.protocol import Collection, IngestionRun, SymbolPoints
from llm_trader.index.qdrant import layout, requests
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.errors import malformed
from llm_trader.index.qdrant.layout import Head, UnreadableError
from llm_trader.market.series_changes import DataMark
from llm_trader.snapshot.model import OPTIONAL
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
# Decoding a page of this size holds up the event loop for a few milliseconds.
_ROWS_A_PAGE: Final = 500
_FLOATS_A_PAGE: Final = 24_000
# A facet needs a limit; more symbols than any exchange lists.
_MOST_SYMBOLS: Final = 10_000
# Each symbol takes two queries; all in one request could exceed the deadline of a call.
_ENDS_A_BATCH: Final = 32


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


class PointVectors(NamedTuple):
    """Times (n,), and vectors (n, dimension) by name, of the same points."""

    times: Times
    vectors: dict[str, Vectors]


class Reader(CollectionPages):
    """Reads the points of one Qdrant collection. Errors are `VectorIndexError`."""

    def __init__(self, connection: Connection, name: str, collection: Collection) -> None:
        super().__init__(connection, name)
        self.collection = collection

    async def head(self) -> Head:
        (points,) = await self.by_id("reading the head", [layout.HEAD_ID], PageContent(list))
        return self.head_in(points)

    def head_in(self, points: ClientPoints) -> Head:
        """The head in the reply to a request for it."""
        # Each collection is created with a head, so this one belongs to another program or is
        # damaged.
        if len(points) != 1:
            raise self.malformed("no head")
        return self.read(lambda points: layout.head_of(points[0].payload), points)

    async def rows(self, symbol: str, start_ms: Millis, end_ms: Millis | None) -> PointTable:
        """The points from `start_ms` to before `end_ms`, without vectors."""
        ends = await self.ends([symbol])
        first, last = ends.get(symbol, (0, -1))
        last = last if end_ms is None else min(last, end_ms - 1)
        parts = await self.over_time(symbol, max(first, start_ms), last, self._tables(symbol))
        return self._joined(symbol, parts)

    async def changes(self, symbol: str, since: int) -> PointTable:
        """The points that were written after the transaction `since`, without vectors."""
        written_since = requests.points_of(symbol, written=(since + 1, None))
        return self._joined(symbol, await self.all(written_since, self._tables(symbol)))

    async def fetch(self, symbol: str, times: Times, names: Sequence[str]) -> PointTable:
        """The points at these times that are there, in the order of time."""
        version = self.collection.feature_version
        ids = [point_id(symbol, stamp, version) for stamp in np.unique(times).tolist()]
        parts = await self.by_id("fetching points", ids, self._tables(symbol, names))
        return self._joined(symbol, parts, names)

    async def vectors(self, symbol: str, times: Times, names: Sequence[str]) -> PointVectors:
        """The points from the first to the last of `times`, in the order of time."""
        if not len(times):
            return self._concatenated([], names)
        first, last = int(times[0]), int(times[-1])
        parts = await self.over_time(symbol, first, last, self._vectors(names))
        stamps, vectors = self._concatenated(parts, names)
        order = np.argsort(stamps)
        return PointVectors(stamps[order], {name: vectors[name][order] for name in names})

    async def vectors_by_id(self, ids: Sequence[str], name: str) -> PointVectors:
        """The points with these ids that exist, in no order."""
        parts = await self.by_id("reading vectors", ids, self._vectors([name]))
        return self._concatenated(parts, [name])

    def vectors_in(self, points: ClientPoints, name: str) -> PointVectors:
        """Decodes a reply to a query that asked for vectors."""
        return self.read(self._vectors([name]).decode, points)

    async def stamps(self, symbol: str) -> Times:
        """The times of all points of a symbol, increasing; empty if it has none."""
        ends = await self.ends([symbol])
        content = PageContent(layout.stamps_of, ["timestamp"], size=_ROWS_A_PAGE)
        parts = [await self.over_time(symbol, *span, content) for span in ends.values()]
        return np.unique(np.concatenate([*itertools.chain(*parts), np.empty(0, np.int64)]))

    async def runs(self, first: int, last: int) -> list[tuple[IngestionRun, str]]:
        """Registered runs by number, each with the token of the process that began it."""
        ids = [layout.run_id(number) for number in range(first, last + 1)]
        decoded = PageContent(lambda points: [layout.run_of(p.payload) for p in points])
        pages = await self.by_id("reading runs", ids, decoded)
        return sorted(itertools.chain(*pages), key=lambda registered: registered[0].run)

    async def data_mark(self, symbol: str) -> DataMark | None:
        ids, content = [layout.mark_id(symbol)], PageContent(list)
        (points,) = await self.by_id("reading a data mark", ids, content)
        if not points:
            return None
        return self.read(lambda points: layout.mark_of(points[0].payload), points)

    async def counts(self, among: models.Filter | None = None) -> dict[str, int]:
        """The number of points by symbol, sorted by symbol; of those that pass a filter."""
        reply = await self.connection.call(
            "counting symbols",
            lambda client: client.facet(
                self.name, "symbol", facet_filter=among, limit=_MOST_SYMBOLS, exact=True
            ),
        )
        # The server may list a symbol whose points were all deleted, with a count of 0.
        return dict(sorted((str(hit.value), hit.count) for hit in reply.hits if hit.count))

    async def symbols(self) -> list[SymbolPoints]:
        counts, *without = await together(
            map(self.counts, (None, *map(requests.lacking, range(len(OPTIONAL)))))
        )
        ends = await self.ends(list(counts))
        return [
            SymbolPoints(symbol, counts[symbol], *span, *(w.get(symbol, 0) for w in without))
            for symbol, span in ends.items()
        ]

    async def ends(self, symbols: Sequence[str]) -> dict[str, tuple[Millis, Millis]]:
        """The first and last time of each symbol that has points."""

        async def batch(part: Sequence[str]) -> list[Times]:
            queries = [request for symbol in part for request in requests.ends_of(symbol)]
            replies = await self.query("finding ends", queries)
            return [self.read(layout.stamps_of, reply) for reply in replies]

        starts = range(0, len(symbols), _ENDS_A_BATCH)
        batches = await together(batch(symbols[start : start + _ENDS_A_BATCH]) for start in starts)
        stamps = [times for replies in batches for times in replies]
        return {
            symbol: (int(first[0]), int(last[0]))
            for symbol, first, last in zip(symbols, stamps[::2], stamps[1::2], strict=True)
            if len(first) and len(last)
        }

    def _tables(self, symbol: str, names: Sequence[str] = ()) -> PageContent[PointTable]:
        """Pages of whole points, with vectors by name."""
        return self._content(names, "row", lambda points: self._table(symbol, points, names))

    def _vectors(self, names: Sequence[str]) -> PageContent[PointVectors]:
        def decode(points: ClientPoints) -> PointVectors:
            sizes = {name: self.collection.dimensions[name] for name in names}
            vectors = {name: layout.vectors_of(points, name, sizes[name]) for name in names}
            return PointVectors(layout.stamps_of(points), vectors)

        return self._content(names, "timestamp", decode)

    def _content(
        self, names: Sequence[str], field: str, decode: Callable[[ClientPoints], T]
    ) -> PageContent[T]:
        floats = sum(self.collection.dimensions[name] for name in names)
        size = max(1, min(_ROWS_A_PAGE, _FLOATS_A_PAGE // max(1, floats)))
        return PageContent(decode, [field], list(names) or False, size)

    def _table(self, symbol: str, points: ClientPoints, names: Sequence[str]) -> PointTable:
        sizes = {name: self.collection.dimensions[name] for name in names}
        return layout.table_of(symbol, points, sizes)

    def _joined(
        self, symbol: str, parts: Iterable[PointTable], names: Sequence[str] = ()
    ) -> PointTable:
        return joined([self._table(symbol, (), names), *parts])

    def _concatenated(self, parts: Sequence[PointVectors], names: Sequence[str]) -> PointVectors:
        parts = parts or [self._vectors(names).decode(())]
        vectors = {name: np.concatenate([part.vectors[name] for part in parts]) for name in names}
        return PointVectors(np.concatenate([part.times for part in parts]), vectors)


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
