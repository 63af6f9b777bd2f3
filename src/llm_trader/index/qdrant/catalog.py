"""Collections of this program: looked up by name or alias, created, described, aliased."""

from __future__ import annotations

import uuid
from operator import methodcaller

import msgspec

from llm_trader.errors import ConfigurationError, OutdatedIndexError, VectorIndexError
from llm_trader.index.points import COLUMNS
from llm_trader.index.protocol import REBUILD, Collection
from llm_trader.index.qdrant import layout, requests
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.errors import CollectionGoneError, malformed
from llm_trader.index.qdrant.layout import LAYOUT, CollectionDescription, Head, UnreadableError


async def aliases(connection: Connection) -> dict[str, str]:
    """The collection behind each alias, by alias."""
    reply = await connection.call("reading aliases", lambda client: client.get_aliases())
    return {alias.alias_name: alias.collection_name for alias in reply.aliases}


async def resolve(connection: Connection) -> str | None:
    """The collection that is searched: behind the alias, or of that name; `None` without one."""
    name = connection.server.collection
    if target := (await aliases(connection)).get(name):
        return target
    exists = await connection.call(
        "looking for the collection", lambda client: client.collection_exists(name)
    )
    return name if exists else None


async def require(connection: Connection) -> str:
    """The collection that is searched; raises `VectorIndexError` where there is none."""
    name = await resolve(connection)
    if name is None:
        server = connection.server
        raise VectorIndexError(
            f"there is no index {server.collection} at {server.address}; make one with: "
            f"rag-ingest --qdrant-url {server.shown_url}"
        )
    return name


def refuse_other(
    server: QdrantServer, name: str, stored: Collection, requested: Collection
) -> None:
    """Raises `ConfigurationError` unless a collection holds the requested kind of points."""
    if differences := stored.differences(requested):
        raise ConfigurationError(
            f"the collection {name} at {server.address} holds other points: "
            f"{'; '.join(differences)}; build the new ones in a new version with: {REBUILD}"
        )


async def names(connection: Connection) -> list[str]:
    """All collections that carry the alias in their name."""
    reply = await connection.call("listing", lambda client: client.get_collections())
    start = f"{connection.server.collection}_"
    return sorted(c.name for c in reply.collections if c.name.startswith(start))


async def describe(connection: Connection, name: str) -> CollectionDescription | None:
    """The description of a collection; `None` if another program made it, or it is gone."""
    try:
        info = await connection.call(
            "reading the collection", lambda client: client.get_collection(name)
        )
    except CollectionGoneError:
        return None
    try:
        return layout.described_by(info.config.metadata)
    except UnreadableError as error:
        raise malformed(connection.server, f"{error}, in {name}") from error


async def open_described(connection: Connection, name: str) -> CollectionDescription:
    """Raises `VectorIndexError` for a collection that this version cannot read."""
    described = await describe(connection, name)
    server = connection.server
    if described is None:
        raise VectorIndexError(
            f"the collection {name} at {server.address} is no index of this program; name another "
            "with index.qdrant.collection"
        )
    if described.layout != LAYOUT or described.columns != COLUMNS:
        raise OutdatedIndexError(
            f"the collection {name} at {server.address} was written by another version "
            f"(layout {described.layout}, this one knows {LAYOUT}); build it again with: {REBUILD}"
        )
    return described


async def create(connection: Connection, name: str, collection: Collection) -> None:
    """Create a collection without alias, or complete one whose creation was interrupted."""
    server = connection.server
    described = CollectionDescription(
        layout=LAYOUT,
        alias=server.collection,
        collection=collection,
        columns=COLUMNS,
        building=True,
    )
    config = requests.collection_config(server, collection)
    try:
        await connection.call(
            "creating a collection",
            lambda client: client.create_collection(
                name, metadata=layout.metadata_of(described), **config
            ),
        )
    except VectorIndexError as error:
        # An earlier creation was interrupted, or another process creates the same collection.
        if error.details.get("status") != "already_exists":
            raise
        refuse_other(server, name, (await open_described(connection, name)).collection, collection)
    for field, schema in requests.payload_indexes().items():
        create_index = methodcaller("create_payload_index", name, field, schema, wait=True)
        await connection.call("creating a payload index", create_index)
    await write_head(connection, name, Head(uuid.uuid4().hex, 0, 0), only_new=True)


async def write_head(
    connection: Connection, name: str, head: Head, *, only_new: bool = False
) -> None:
    """Write the head that readers look at; the head of a later run is not overwritten."""
    from qdrant_client import models

    payload = layout.head_payload(head)
    point = models.PointStruct(id=layout.HEAD_ID, vector={}, payload=payload)
    await connection.call(
        "writing the head",
        lambda client: client.upsert(
            name,
            [point],
            wait=True,
            update_filter=None if only_new else requests.written_by(head.run),
            update_mode=models.UpdateMode.INSERT_ONLY if only_new else None,
        ),
    )


async def set_alias(connection: Connection, name: str) -> None:
    """Point the alias at this collection, in one step, and mark it as finished."""
    from qdrant_client import models

    alias = connection.server.collection
    actions: list[models.AliasOperations] = [
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=name, alias_name=alias)
        )
    ]
    if alias in await aliases(connection):
        old = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        actions.insert(0, old)
    await connection.call(
        "setting the alias", lambda client: client.update_collection_aliases(actions)
    )
    # Last: a version that is neither live nor being built may be deleted.
    await finish(connection, name)


async def delete(connection: Connection, name: str) -> None:
    await connection.call("deleting a collection", lambda client: client.delete_collection(name))


async def finish(connection: Connection, name: str) -> None:
    """Mark a collection as no longer being built."""
    described = await open_described(connection, name)
    await write_description(connection, name, msgspec.structs.replace(described, building=False))


async def write_description(
    connection: Connection, name: str, described: CollectionDescription
) -> None:
    """Replace the description in a collection's metadata."""
    metadata = layout.metadata_of(described)
    await connection.call(
        "describing the collection",
        lambda client: client.update_collection(name, metadata=metadata),
    )
