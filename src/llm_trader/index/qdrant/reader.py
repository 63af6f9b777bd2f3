"""What is read from one collection: rows, vectors, times, runs, the head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from llm_trader.arrays import Times, Vectors
from llm_trader.index.points import PointTable, joined, point_id
from llm_trader.index.protocol import Collection, IngestionRun, SymbolPoints
from llm_trader.index.qdrant import layout, requests
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.paging import ClientPoints, CollectionPages, together
from llm_trader.timeframe import Millis

# Pages are small enough that taking one over holds up the event loop for a few milliseconds.
_ROWS_A_PAGE: Final = 500
_FLOATS_A_PAGE: Final = 24_000
_MOST_SYMBOLS: Final = 10_000
_ENDS_A_BATCH: Final = 32


class Reader:
    """Reads points of `collection` in one of Qdrant's. Errors are `VectorIndexError`."""

    def __init__(self, pages: CollectionPages, collection: Collection) -> None:
        self.pages = pages
        self.collection = collection

    async def head(self) -> Head:
        found = await self.pages.by_id("reading the head", [layout.HEAD_ID], list)
        return self.head_in(found[0])

    def head_in(self, found: ClientPoints) -> Head:
        """From the reply to a request for the head."""
        if len(found) != 1:
            raise self.pages.malformed("no head")
        return self.pages.read(lambda one: layout.head_of(one[0].payload), found)

    async def rows(self, symbol: str, start_ms: Millis, end_ms: Millis | None) -> PointTable:
        """Points from `start_ms` on and before `end_ms`, without vectors."""
        ends = await self.ends([symbol])
        first, last = ends.get(symbol, (0, -1))
        last = last if end_ms is None else min(last, end_ms - 1)
        parts = await self.pages.over_time(
            symbol,
            max(first, start_ms),
            last,
            lambda found: self._table(symbol, found),
            fields=["row"],
            size=_ROWS_A_PAGE,
        )
        return self._one(symbol, parts)

    async def changes(self, symbol: str, since: int) -> PointTable:
        """Points written after the transaction `since`, without vectors."""
        parts = await self.pages.all(
            requests.of_symbol(symbol, written=(since + 1, None)),
            lambda found: self._table(symbol, found),
            fields=["row"],
            size=_ROWS_A_PAGE,
        )
        return self._one(symbol, parts)

    async def fetch(self, symbol: str, times: Times, names: Iterable[str]) -> PointTable:
        """The points at these times that are there, in the order of time."""
        names, version = list(names), self.collection.feature_version
        floats = sum(self.collection.dimensions[name] for name in names)
        parts = await self.pages.by_id(
            "fetching points",
            [point_id(symbol, stamp, version) for stamp in np.unique(times).tolist()],
            lambda found: self._table(symbol, found, names),
            fields=["row"],
            names=names,
            size=max(1, min(_ROWS_A_PAGE, _FLOATS_A_PAGE // max(1, floats))),
        )
        return self._one(symbol, parts, names)

    async def vectors(self, symbol: str, times: Times, name: str) -> tuple[Times, Vectors]:
        """Times, increasing, and vectors of the points from the first to the last of `times`."""
        dimension = self.collection.dimensions[name]
        empty = np.empty(0, np.int64), np.empty((0, dimension), np.float32)
        if not len(times):
            return empty
        parts = await self.pages.over_time(
            symbol,
            int(times[0]),
            int(times[-1]),
            lambda found: (layout.stamps_of(found), layout.vectors_of(found, name, dimension)),
            fields=["timestamp"],
            names=[name],
            size=max(1, _FLOATS_A_PAGE // dimension),
        )
        stamps = np.concatenate([empty[0], *(part[0] for part in parts)])
        order = np.argsort(stamps)
        return stamps[order], np.concatenate([empty[1], *(part[1] for part in parts)])[order]

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
            "reading runs", ids, lambda found: [layout.run_of(p.payload)[0] for p in found]
        )
        return sorted((run for page in pages for run in page), key=lambda run: run.run)

    async def run(self, number: int) -> tuple[IngestionRun, str] | None:
        """A run, and the token of the process that began it; `None` if nobody did."""
        (found,) = await self.pages.by_id(
            "reading a run",
            [layout.run_id(number)],
            lambda found: [layout.run_of(p.payload) for p in found],
        )
        return found[0] if found else None

    async def counts(self) -> dict[str, int]:
        """How many points each symbol has, by symbol in order."""
        reply = await self.pages.connection.call(
            "counting symbols",
            lambda client: client.facet(self.pages.name, "symbol", limit=_MOST_SYMBOLS, exact=True),
        )
        # A symbol whose points were all deleted may be told with none.
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
            asked = [request for symbol in part for request in requests.ends_of(symbol)]
            replies = await self.pages.query("finding ends", asked)
            return [self.pages.read(layout.stamps_of, reply) for reply in replies]

        cuts = range(0, len(symbols), _ENDS_A_BATCH)
        batches = await together(batch(symbols[at : at + _ENDS_A_BATCH]) for at in cuts)
        stamps = [found for replies in batches for found in replies]
        return {
            symbol: (int(first[0]), int(last[0]))
            for symbol, first, last in zip(symbols, stamps[::2], stamps[1::2], strict=True)
            if len(first) and len(last)
        }

    def _table(self, symbol: str, found: ClientPoints, names: Iterable[str] = ()) -> PointTable:
        return layout.table_of(
            symbol, found, {name: self.collection.dimensions[name] for name in names}
        )

    def _one(
        self, symbol: str, parts: Iterable[PointTable], names: Iterable[str] = ()
    ) -> PointTable:
        """In the order of time; of a point that came twice, the one that was read last."""
        whole = joined([self._table(symbol, (), names), *parts])
        backwards = whole.timestamp_ms[::-1]
        _, last = np.unique(backwards, return_index=True)
        table = whole.take(len(backwards) - 1 - last)
        # Sums depend on how rows lie in memory, in their last digit.
        return replace(table, values=np.ascontiguousarray(table.values))
