"""Versions of an index beside each other: a new one is built, then the alias leads to it.

Readers and ingestions of the old one are not disturbed by the building; the swap is one step, and
the old version stays until it is pruned, to swap back to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.index.protocol import Collection
from llm_trader.index.qdrant import catalog
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.layout import CollectionDescription
from llm_trader.index.qdrant.paging import CollectionPages, together
from llm_trader.index.qdrant.reader import Reader

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """`live`: the alias leads to it. `building`: the alias never did."""

    name: str
    live: bool
    building: bool
    points: int
    collection: Collection


async def build_beside(
    server: QdrantServer, collection: Collection, client: AsyncQdrantClient | None = None
) -> QdrantIndex:
    """A version to ingest into while the present one answers; `swap` makes it live.

    One of the same kind that was begun before and never became live is taken up again.
    """
    connection = Connection(server, client)
    try:
        known = await _described(connection)
        live = await catalog.resolve(connection)
        same = [name for name, each in known.items() if each.collection == collection]
        begun = [name for name in same if known[name].building and name != live]
        name = begun[-1] if begun else catalog.version_name(server, collection, _next(known))
        await catalog.make(connection, name, collection)
        return await QdrantIndex.on(connection, name, name, write=True, aliased=False)
    except BaseException:
        await connection.aclose()
        raise


async def swap(server: QdrantServer, name: str, client: AsyncQdrantClient | None = None) -> None:
    """Let the alias lead to the version `name`, in one step.

    Raises `ConfigurationError` unless that is a version of this index that holds points.
    """
    async with Connection(server, client) as connection:
        known = await _described(connection)
        if name not in known:
            raise ConfigurationError(
                f"{name} is no version of {server.collection} at {server.address}; "
                f"there are: {', '.join(known) or 'none'}"
            )
        if not await _points(connection, name, known[name]):
            raise ConfigurationError(f"{name} holds no points; ingest into it first")
        live = await catalog.resolve(connection)
        if live == server.collection:
            raise ConfigurationError(
                f"{server.collection} at {server.address} is a collection itself, not an alias; "
                "name another with index.qdrant.collection"
            )
        if live in known and known[live].building:  # the swap to it was killed before its end
            await catalog.finish(connection, live)
        await catalog.set_alias(connection, name)


async def versions(server: QdrantServer, client: AsyncQdrantClient | None = None) -> list[Version]:
    """All versions of this index, by name."""
    async with Connection(server, client) as connection:
        live = await catalog.resolve(connection)
        known = await _described(connection)
        points = await together(_points(connection, *each) for each in known.items())
        return [
            Version(
                name=name,
                live=name == live,
                building=described.building and name != live,
                points=count,
                collection=described.collection,
            )
            for (name, described), count in zip(known.items(), points, strict=True)
        ]


async def prune(
    server: QdrantServer, client: AsyncQdrantClient | None = None, *, also_building: bool = False
) -> list[str]:
    """Delete the versions that are not live, and those being built only if told; which they were.

    Nothing is deleted while no version is live, nor ever a collection of another index or program.
    """
    async with Connection(server, client) as connection:
        live, known = await catalog.resolve(connection), await _described(connection)
        if live not in known:
            raise ConfigurationError(
                f"no version of {server.collection} at {server.address} is live, so none is "
                "deleted; let the alias lead to one, or name another with index.qdrant.collection"
            )
        gone = [
            name
            for name, each in known.items()
            if name != live and (also_building or not each.building)
        ]
        for name in gone:
            await catalog.delete(connection, name)
        return gone


async def _described(connection: Connection) -> dict[str, CollectionDescription]:
    """What the versions of this index say of themselves, oldest first."""
    names = await catalog.names(connection)
    said = await together(catalog.describe(connection, name) for name in names)
    alias = connection.server.collection
    ours = {
        name: each
        for name, each in zip(names, said, strict=True)
        if each is not None and each.alias == alias
    }
    return {name: ours[name] for name in sorted(ours, key=_number)}


async def _points(connection: Connection, name: str, described: CollectionDescription) -> int:
    counts = await Reader(CollectionPages(connection, name), described.collection).counts()
    return sum(counts.values())


def _number(name: str) -> int:
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def _next(names: dict[str, CollectionDescription]) -> int:
    return 1 + max(map(_number, names), default=0)
