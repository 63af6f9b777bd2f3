"""Reads one collection: rows, vectors, times, runs, the head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Times, Vectors
from llm_trader.index.points import PointTable, joined, point_id
from llm_trader.index.protocol import Collection, IngestionRun, SymbolPoints
from llm_trader.index.qdrant import layout, requests
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.paging import ClientPoints, CollectionPages, together
from llm_trader.timeframe import Millis

# Decoding a page of this size holds up the event loop for a few milliseconds.
_ROWS_A_PAGE: Final = 500
_FLOATS_A_PAGE: Final = 24_000
# A facet needs a limit; more symbols than any exchange lists.
_MOST_SYMBOLS: Final = 10_000
# Each symbol takes two queries; all in one request could exceed the deadline of a call.
_ENDS_A_BATCH: Final = 32


class PointVectors(NamedTuple):
    """Times (n,) and vectors (n, dimension) of the same points."""

    times: Times
    vectors: Vectors


class Reader:
    """Reads the points of one Qdrant collection. Errors are `VectorIndexError`."""

    def __init__(self, pages: CollectionPages, collection: Collection) -> None:
        self.pages = pages
        self.collection = collection

    async def head(self) -> Head:
        (points,) = await self.pages.by_id("reading the head", [layout.HEAD_ID], list)
        return self.head_in(points)

    def head_in(self, points: ClientPoints) -> Head:
        """The head in the reply to a request for it."""
        # Each collection is created with a head, so this one belongs to another program or is
        # damaged.
        if len(points) != 1:
            raise self.pages.malformed("no head")
        return self.pages.read(lambda points: layout.head_of(points[0].payload), points)

    async def rows(self, symbol: str, start_ms: Millis, end_ms: Millis | None) -> PointTable:
        """The points from `start_ms` to before `end_ms`, without vectors."""
        ends = await self.ends([symbol])
        first, last = ends.get(symbol, (0, -1))
        last = last if end_ms is None else min(last, end_ms - 1)
        parts = await self.pages.over_time(
            symbol,
            max(first, start_ms),
            last,
            lambda points: self._table(symbol, points),
            fields=["row"],
            size=_ROWS_A_PAGE,
        )
        return self._joined(symbol, parts)

    async def changes(self, symbol: str, since: int) -> PointTable:
        """The points that were written after the transaction `since`, without vectors."""
        parts = await self.pages.all(
            requests.of_symbol(symbol, written=(since + 1, None)),
            lambda points: self._table(symbol, points),
            fields=["row"],
            size=_ROWS_A_PAGE,
        )
        return self._joined(symbol, parts)

    async def fetch(self, symbol: str, times: Times, names: Iterable[str]) -> PointTable:
        """The points at these times that are there, in the order of time."""
        names, version = list(names), self.collection.feature_version
        parts = await self.pages.by_id(
            "fetching points",
            [point_id(symbol, stamp, version) for stamp in np.unique(times).tolist()],
            lambda points: self._table(symbol, points, names),
            fields=["row"],
            names=names,
            size=self._page_size(names),
        )
        return self._joined(symbol, parts, names)

    async def vectors(self, symbol: str, times: Times, name: str) -> PointVectors:
        """The points from the first to the last of `times`, in the order of time."""
        if not len(times):
            return self._decode_vectors((), name)
        parts = await self.pages.over_time(
            symbol,
            int(times[0]),
            int(times[-1]),
            lambda points: self._decode_vectors(points, name),
            fields=["timestamp"],
            names=[name],
            size=self._page_size([name]),
        )
        stamps, vectors = _concatenated(parts)
        order = np.argsort(stamps)
        return PointVectors(stamps[order], vectors[order])

    async def vectors_by_id(self, ids: Sequence[str], name: str) -> PointVectors:
        """The points with these ids that exist, in no order; at least one id."""
        parts = await self.pages.by_id(
            "reading vectors",
            ids,
            lambda points: self._decode_vectors(points, name),
            fields=["timestamp"],
            names=[name],
            size=self._page_size([name]),
        )
        return _concatenated(parts)

    def vectors_in(self, points: ClientPoints, name: str) -> PointVectors:
        """Decodes a reply to a query that asked for vectors."""
        return self.pages.read(lambda points: self._decode_vectors(points, name), points)

    async def stamps(self, symbol: str) -> Times:
        """The times of all points of a symbol, increasing; empty if it has none."""
        ends = await self.ends([symbol])
        if symbol not in ends:
            return np.empty(0, np.int64)
        parts = await self.pages.over_time(
            symbol, *ends[symbol], layout.stamps_of, fields=["timestamp"], size=_ROWS_A_PAGE
        )
        return np.unique(np.concatenate(parts))

    async def runs(self, count: int) -> list[IngestionRun]:
        """The runs from 1 to `count` that are there."""
        ids = [layout.run_id(number) for number in range(1, count + 1)]
        pages = await self.pages.by_id(
            "reading runs", ids, lambda points: [layout.run_of(p.payload)[0] for p in points]
        )
        return sorted((run for page in pages for run in page), key=lambda run: run.run)

    async def run(self, number: int) -> tuple[IngestionRun, str] | None:
        """A run and the token of the process that began it; `None` if there is no such run."""
        (runs,) = await self.pages.by_id(
            "reading a run",
            [layout.run_id(number)],
            lambda points: [layout.run_of(p.payload) for p in points],
        )
        return runs[0] if runs else None

    async def counts(self) -> dict[str, int]:
        """The number of points by symbol, sorted by symbol."""
        reply = await self.pages.connection.call(
            "counting symbols",
            lambda client: client.facet(self.pages.name, "symbol", limit=_MOST_SYMBOLS, exact=True),
        )
        # The server may list a symbol whose points were all deleted, with a count of 0.
        return dict(sorted((str(hit.value), hit.count) for hit in reply.hits if hit.count))

    async def symbols(self) -> list[SymbolPoints]:
        counts = await self.counts()
        ends = await self.ends(list(counts))
        return [
            SymbolPoints(
                symbol=symbol,
                points=counts[symbol],
                first_timestamp_ms=first,
                last_timestamp_ms=last,
            )
            for symbol, (first, last) in ends.items()
        ]

    async def ends(self, symbols: Sequence[str]) -> dict[str, tuple[Millis, Millis]]:
        """The first and last time of each symbol that has points."""

        async def batch(part: Sequence[str]) -> list[Times]:
            queries = [request for symbol in part for request in requests.ends_of(symbol)]
            replies = await self.pages.query("finding ends", queries)
            return [self.pages.read(layout.stamps_of, reply) for reply in replies]

        starts = range(0, len(symbols), _ENDS_A_BATCH)
        batches = await together(batch(symbols[start : start + _ENDS_A_BATCH]) for start in starts)
        stamps = [times for replies in batches for times in replies]
        return {
            symbol: (int(first[0]), int(last[0]))
            for symbol, first, last in zip(symbols, stamps[::2], stamps[1::2], strict=True)
            if len(first) and len(last)
        }

    def _page_size(self, names: Iterable[str]) -> int:
        floats = sum(self.collection.dimensions[name] for name in names)
        return max(1, min(_ROWS_A_PAGE, _FLOATS_A_PAGE // max(1, floats)))

    def _decode_vectors(self, points: ClientPoints, name: str) -> PointVectors:
        dimension = self.collection.dimensions[name]
        return PointVectors(layout.stamps_of(points), layout.vectors_of(points, name, dimension))

    def _table(self, symbol: str, points: ClientPoints, names: Iterable[str] = ()) -> PointTable:
        return layout.table_of(
            symbol, points, {name: self.collection.dimensions[name] for name in names}
        )

    def _joined(
        self, symbol: str, parts: Iterable[PointTable], names: Iterable[str] = ()
    ) -> PointTable:
        """One table in the order of time; the last reading of a point that came twice."""
        table = joined([self._table(symbol, (), names), *parts])
        backwards = table.timestamp_ms[::-1]
        _, last = np.unique(backwards, return_index=True)
        table = table.take(len(backwards) - 1 - last)
        # The last digit of a sum depends on how rows lie in memory.
        return replace(table, values=np.ascontiguousarray(table.values))


def _concatenated(parts: Sequence[PointVectors]) -> PointVectors:
    return PointVectors(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
