"""Versions of an index side by side: a new one is built, then the alias is pointed at it.

Building does not disturb readers and ingestions of the old version. The swap is one step, and the
old version stays until it is pruned, so that one can swap back.
"""

from __future__ import annotations

import msgspec

from llm_trader.errors import ConfigurationError
from llm_trader.index.protocol import Collection
from llm_trader.index.qdrant import catalog, layout
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.layout import CollectionDescription
from llm_trader.index.qdrant.reader import Reader, together


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """`live`: the alias leads to it. `building`: the alias never did."""

    name: str
    live: bool
    building: bool
    points: int
    collection: Collection


async def build_beside(server: QdrantServer, collection: Collection) -> QdrantIndex:
    """A version to ingest into while the live one answers; `swap` makes it live.

    An unfinished version with the same kind of points, which never became live, is continued.
    """
    connection = Connection(server)
    try:
        by_name = await _described(connection)
        live = await catalog.resolve(connection)
        unfinished = [
            name
            for name, description in by_name.items()
            if description.collection == collection and description.building and name != live
        ]
        number = 1 + max(map(_number, by_name), default=0)
        new_name = layout.version_name(server.collection, collection, number)
        name = unfinished[-1] if unfinished else new_name
        await catalog.create(connection, name, collection)
        return await QdrantIndex.on(connection, name, name, write=True, aliased=False)
    except BaseException:
        await connection.aclose()
        raise


async def swap(server: QdrantServer, name: str) -> None:
    """Point the alias at the version `name`, in one step.

    Raises `ConfigurationError` unless that is a version of this index that holds points.
    """
    async with Connection(server) as connection:
        by_name = await _described(connection)
        if name not in by_name:
            raise ConfigurationError(
                f"{name} is no version of {server.collection} at {server.address}; "
                f"there are: {', '.join(by_name) or 'none'}"
            )
        # A swap to an empty version would leave every server without an answer.
        if not await _points(connection, name, by_name[name]):
            raise ConfigurationError(f"{name} holds no points; ingest into it first")
        live = await catalog.resolve(connection)
        if live == server.collection:
            raise ConfigurationError(
                f"{server.collection} at {server.address} is a collection itself, not an alias; "
                "name another with index.qdrant.collection"
            )
        if live in by_name and by_name[live].building:
            # The swap to it was killed before its end.
            await catalog.finish(connection, live)
        await catalog.set_alias(connection, name)


async def versions(server: QdrantServer) -> list[Version]:
    """All versions of this index, by name."""
    async with Connection(server) as connection:
        live = await catalog.resolve(connection)
        by_name = await _described(connection)
        points = await together(_points(connection, *item) for item in by_name.items())
        return [
            Version(
                name=name,
                live=name == live,
                building=description.building and name != live,
                points=count,
                collection=description.collection,
            )
            for (name, description), count in zip(by_name.items(), points, strict=True)
        ]


async def prune(server: QdrantServer, *, also_building: bool = False) -> list[str]:
    """Delete versions that are not live, unfinished ones with `also_building`; returns their names.

    Nothing is deleted while no version is live, and never a collection of another index or program.
    """
    async with Connection(server) as connection:
        live, by_name = await catalog.resolve(connection), await _described(connection)
        if live not in by_name:
            raise ConfigurationError(
                f"no version of {server.collection} at {server.address} is live, so none is "
                "deleted; let the alias lead to one, or name another with index.qdrant.collection"
            )
        obsolete = [
            name
            for name, description in by_name.items()
            if name != live and (also_building or not description.building)
        ]
        for name in obsolete:
            await catalog.delete(connection, name)
        return obsolete


async def _described(connection: Connection) -> dict[str, CollectionDescription]:
    """The descriptions of this index's versions by name, oldest first."""
    names = sorted(await catalog.names(connection), key=_number)
    descriptions = await together(catalog.describe(connection, name) for name in names)
    return {
        name: description
        for name, description in zip(names, descriptions, strict=True)
        if description is not None and description.alias == connection.server.collection
    }


async def _points(connection: Connection, name: str, description: CollectionDescription) -> int:
    counts = await Reader(connection, name, description.collection).counts()
    return sum(counts.values())


def _number(name: str) -> int:
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0
