"""The index on a Qdrant server or cluster.

1. `search`        window, ranges and vector go out in one request, which brings the head along
2. `column_cache`  times and columns of the window, brought up to the head's transaction
3. `search`        hits scored and ordered on the cache's rows

The server resolves the alias with each request; a head of another collection is how a swap is
noticed. `writer` writes, `versions` builds beside and swaps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import ConfigurationError, VectorIndexError
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import Collection, Hits, IndexInfo, SearchQuery
from llm_trader.index.qdrant import catalog, layout, search
from llm_trader.index.qdrant.column_cache import ColumnCache, MovedError
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.errors import CollectionGoneError
from llm_trader.index.qdrant.reader import Reader
from llm_trader.index.qdrant.single_flight import HeadCache, SingleFlight
from llm_trader.index.qdrant.writer import Writer
from llm_trader.market.series_changes import DataMark

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

T = TypeVar("T")
P = ParamSpec("P")

# A rebuild swaps once, and a restore once; more swaps within one call are a loop.
_MOST_MOVES: Final = 5


def _again_on_move(
    work: Callable[Concatenate[QdrantIndex, ColumnCache, P], Awaitable[T]],
) -> Callable[Concatenate[QdrantIndex, P], Coroutine[Any, Any, T]]:
    """Runs `work` on the cache of one collection, and again when the alias moves meanwhile."""

    @wraps(work)
    async def repeated(index: QdrantIndex, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_MOST_MOVES):
            cache = index.cache
            try:
                return await work(index, cache, *args, **kwargs)
            except (MovedError, CollectionGoneError):
                await index.follow(cache)
        server = index.connection.server
        raise VectorIndexError(
            f"{server.collection} at {server.address} leads to another collection each time it is "
            "asked; stop what swaps it in a loop"
        )

    return repeated


class QdrantIndex(AbstractAsyncContextManager["QdrantIndex"]):
    """Opened by `open` to read or `create_or_open` to write as well; closed by `aclose`."""

    def __init__(self, front: Reader, cache: ColumnCache, writer: Writer | None) -> None:
        self._front = front  # the alias
        self.cache = cache  # of the collection behind it
        self._writer = writer
        self.connection = front.connection
        self._heads = HeadCache(front)
        self._following = SingleFlight()
        self.collection = front.collection

    @classmethod
    async def open(cls, server: QdrantServer) -> QdrantIndex:
        """Open for reading. Raises `VectorIndexError` where there is no readable index."""
        connection = Connection(server)
        try:
            name = await catalog.require(connection)
            return await cls.on(connection, name, server.collection, write=False)
        except BaseException:
            await connection.aclose()
            raise

    @classmethod
    async def create_or_open(
        cls, server: QdrantServer, collection: Collection, client: AsyncQdrantClient | None = None
    ) -> QdrantIndex:
        """Open for writing, making a collection and its alias where none is, or it holds nothing.

        Raises `ConfigurationError` when the index holds points of another collection.
        """
        connection = Connection(server, client)
        try:
            name = await catalog.resolve(connection)
            if name is not None and await _holds_nothing(connection, name, collection):
                await catalog.delete(connection, name)
                name = None
            if name is None:
                name = layout.version_name(server.collection, collection, 1)
                await catalog.create(connection, name, collection)
                await catalog.set_alias(connection, name)
            index = await cls.on(connection, name, name, write=True)
            catalog.refuse_other(server, name, index.collection, collection)
            return index
        except BaseException:
            await connection.aclose()
            raise

    @classmethod
    async def on(
        cls, connection: Connection, name: str, address: str, *, write: bool, aliased: bool = True
    ) -> QdrantIndex:
        """On the collection `name`, searched by `address`: its alias, or the name itself."""
        described = await catalog.open_described(connection, name)
        reader = Reader(connection, name, described.collection)
        front = Reader(connection, address, described.collection)
        head = await reader.head()
        writer = Writer(reader, head, aliased=aliased) if write else None
        return cls(front, ColumnCache(reader, head), writer)

    @property
    def name(self) -> str:
        """The collection that the alias leads to."""
        return self.cache.reader.name

    def cache_use(self) -> dict[str, tuple[int, int]]:
        heads, columns = self._heads, self.cache
        return {
            "heads": (heads.calls - heads.reads, heads.reads),
            "columns": (columns.hits, columns.misses),
        }

    @property
    def location(self) -> str:
        return f"{self.connection.server.shown_url} {self.name}"

    async def aclose(self) -> None:
        """Close the connections. Closing twice does nothing."""
        await self.connection.aclose()

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def search(self, query: SearchQuery) -> Hits:
        self.collection.check_searchable(query.name)
        hits = await self._search(query, not self.connection.server.approximate)
        if len(hits.rows) < min(query.limit, hits.eligible):  # a graph may lose sight of points
            hits = await self._search(query, True)
        return hits

    async def search_many(self, queries: Sequence[SearchQuery]) -> list[Hits]:
        # One after the other: the server shares nothing between the searches of a batch.
        return [await self.search(query) for query in queries]

    @_again_on_move
    async def scan(
        self, cache: ColumnCache, symbol: str, window: Window, vectors: Iterable[str] = ()
    ) -> PointTable:
        names = self._searchable(vectors)
        await cache.load(symbol, window.earliest_timestamp_ms)
        seen_before = cache.seen(symbol)
        await cache.catch_up(symbol, await self._heads.newest(), seen_before)
        table = cache.scan(symbol, window)
        if not names:
            return table
        times, stored = await cache.reader.vectors(symbol, table.timestamp_ms, names)
        still_stored = np.isin(table.timestamp_ms, times)
        if not still_stored.all():  # another program deleted points that are cached here
            table = replace(table.take(still_stored), version_token=object())
        in_table = np.isin(times, table.timestamp_ms)
        return replace(table, vectors={name: rows[in_table] for name, rows in stored.items()})

    @_again_on_move
    async def fetch(
        self, cache: ColumnCache, symbol: str, timestamp_ms: Times, vectors: Iterable[str] = ()
    ) -> PointTable:
        names = self._searchable(vectors)
        cache.check(await self._heads.newest())
        points = await cache.reader.fetch(symbol, timestamp_ms, names)
        if not len(points):
            await cache.require(symbol)
        return points

    @_again_on_move
    async def timestamps(self, cache: ColumnCache, symbol: str) -> Times:
        cache.check(await self._heads.newest())
        return await cache.reader.stamps(symbol)

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        writer = self._writing()
        run = await writer.begin_run(build_id, exchange, started_at)
        self.cache.head = writer.head
        return run

    async def upsert(self, points: PointTable) -> int:
        self.collection.check_vectors(points.vectors)
        writer = self._writing()
        if not len(points):
            return 0
        previous = writer.head.written
        added = await writer.upsert(points)
        self.cache.add_written(points, previous, writer.head.written)
        return added

    async def remove(self, symbol: str, timestamp_ms: Times) -> int:
        removed = await self._writing().remove(symbol, timestamp_ms)
        self.cache.drop(symbol)
        return removed

    @_again_on_move
    async def data_mark(self, cache: ColumnCache, symbol: str) -> DataMark | None:
        cache.check(await self._heads.newest())
        return await cache.reader.data_mark(symbol)

    async def set_data_mark(self, symbol: str, mark: DataMark) -> None:
        await self._writing().set_data_mark(symbol, mark)

    @_again_on_move
    async def info(self, cache: ColumnCache) -> IndexInfo:
        head = await self._heads.newest()
        cache.check(head)
        return IndexInfo(
            backend="qdrant",
            location=self.location,
            collection=self.collection,
            symbols=await cache.reader.symbols(),
            runs=[run for run, _ in await cache.reader.runs(1, head.run)],
        )

    @_again_on_move
    async def _search(self, cache: ColumnCache, query: SearchQuery, exact: bool) -> Hits:
        await cache.load(query.symbol, query.window.earliest_timestamp_ms)
        present = search.kinds_in(cache.scan(query.symbol, query.window), query)
        while True:
            # Noted first: a head that is older than this means that an older state was restored.
            seen_before, kinds = cache.seen(query.symbol), present
            reply = await search.request_nearest(
                self._front, cache.reader, query, kinds, exact=exact
            )
            await cache.catch_up(query.symbol, reply.head, seen_before)
            window = cache.scan(query.symbol, query.window)
            if search.is_ahead(reply, window):  # the reply has points of an unfinished transaction
                await cache.look_again(query.symbol)
                window = cache.scan(query.symbol, query.window)
            present = search.kinds_in(window, query)
            if set(present) <= set(kinds):  # else points of a new kind were written meanwhile
                return search.scored_hits(query, reply, window)

    def _searchable(self, vectors: Iterable[str]) -> list[str]:
        names = list(vectors)
        for name in names:
            self.collection.check_searchable(name)
        return names

    def _writing(self) -> Writer:
        if self._writer is None:
            raise ConfigurationError(
                f"the index {self.name} at {self.connection.server.address} was opened for "
                "reading only; open it for writing"
            )
        return self._writer

    async def follow(self, cache: ColumnCache) -> None:
        """Look up where the alias leads now, and read that collection from here on."""
        async with self._following.turn():
            if cache is not self.cache:
                return
            name = await catalog.require(self.connection)
            reader = Reader(self.connection, name, self.collection)
            head = await reader.head()
            # The name may be the same although the collection was deleted and made again.
            if name == self.name:
                registered = await reader.runs(cache.head.run, cache.head.run)
                if registered and registered[0][1] == cache.head.token:
                    cache.head = head
                    return  # else that collection is gone, and this one got its name
            collection = (await catalog.open_described(self.connection, name)).collection
            if differences := collection.differences(self.collection):
                raise VectorIndexError(
                    f"{self.connection.server.collection} was rebuilt with other features "
                    f"({'; '.join(differences)}); restart with the version that built it"
                )
            self.cache = ColumnCache(reader, head)


async def _holds_nothing(connection: Connection, name: str, requested: Collection) -> bool:
    """Whether a collection is for other points, but no ingestion has added any."""
    stored = (await catalog.open_described(connection, name)).collection
    return (
        bool(stored.differences(requested)) and not await Reader(connection, name, stored).counts()
    )
