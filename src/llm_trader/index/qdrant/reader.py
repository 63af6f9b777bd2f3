"""Reads one collection: rows, vectors, times, runs, the head."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np

from llm_trader.arrays import Times, Vectors
from llm_trader.index.points import PointTable, joined, point_id
from llm_trader.index.protocol import Collection, IngestionRun, SymbolPoints
from llm_trader.index.qdrant import layout, requests
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.paging import ClientPoints, CollectionPages, PageContent, together
from llm_trader.timeframe import Millis

T = TypeVar("T")

# Decoding a page of this size holds up the event loop for a few milliseconds.
_ROWS_A_PAGE: Final = 500
_FLOATS_A_PAGE: Final = 24_000
# A facet needs a limit; more symbols than any exchange lists.
_MOST_SYMBOLS: Final = 10_000
# Each symbol takes two queries; all in one request could exceed the deadline of a call.
_ENDS_A_BATCH: Final = 32


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

    async def counts(self) -> dict[str, int]:
        """The number of points by symbol, sorted by symbol."""
        reply = await self.connection.call(
            "counting symbols",
            lambda client: client.facet(self.name, "symbol", limit=_MOST_SYMBOLS, exact=True),
        )
        # The server may list a symbol whose points were all deleted, with a count of 0.
        return dict(sorted((str(hit.value), hit.count) for hit in reply.hits if hit.count))

    async def symbols(self) -> list[SymbolPoints]:
        counts = await self.counts()
        ends = await self.ends(list(counts))
        return [SymbolPoints(symbol, counts[symbol], *span) for symbol, span in ends.items()]

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
