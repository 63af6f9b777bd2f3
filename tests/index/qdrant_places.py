"""Qdrant for tests: its client's local mode, a stub server with its engine, or a real server."""

from __future__ import annotations

import asyncio
import atexit
import os
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest

from llm_trader.index.protocol import Collection, VectorIndex
from llm_trader.index.qdrant import catalog
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.layout import Head
from tests.index import qdrant_stub
from tests.index.qdrant_stub import Stub

_numbers = count(1)
_spare: dict[tuple[Any, Collection], list[QdrantServer]] = {}


@cache
def stub() -> Stub:
    """One stub for each test process; it ends with it."""
    opened = ExitStack()
    running = opened.enter_context(qdrant_stub.start())
    atexit.register(opened.close)
    return running


def place_at(server: Stub, **changes: Any) -> QdrantServer:
    """A name on a stub that no other test uses."""
    given = {
        "url": server.url,
        "grpc_port": server.grpc_port,
        "collection": f"test{os.getpid()}x{next(_numbers)}",
        "timeout_s": 10.0,
        "retry_s": 0.5,
        "api_key": server.api_key,
    }
    return QdrantServer(**(given | changes))


def real_server(**changes: Any) -> QdrantServer:
    """A name on the server that QDRANT_URL tells; skips where it tells none."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("no Qdrant server; set QDRANT_URL to one, such as http://localhost:6333")
    grpc_port = int(os.environ.get("QDRANT_GRPC_PORT", (urlsplit(url).port or 6333) + 1))
    given = {
        "url": url,
        "grpc_port": grpc_port,
        "collection": f"test{os.getpid()}x{next(_numbers)}",
        "api_key": os.environ.get("QDRANT_API_KEY"),
    }
    return QdrantServer(**(given | changes))


async def drop(place: QdrantServer) -> None:
    """Delete all that tests made under the name of a place."""
    async with Connection(place) as connection:
        for name in await catalog.names(connection):
            await connection.client.delete_collection(name)


async def empty(connection: Connection) -> None:
    """Delete all points of what tests made under a name, and its past."""
    from qdrant_client import models

    for name in await catalog.names(connection):
        await connection.client.delete(name, models.Filter())
        await catalog.write_head(connection, name, Head("made", 0, 0), only_new=True)


@asynccontextmanager
async def fresh_in_memory(content: Collection) -> AsyncIterator[VectorIndex]:
    from qdrant_client import AsyncQdrantClient

    place = QdrantServer(url="http://memory.invalid", collection="test")
    with warnings.catch_warnings():
        # The local mode tells that it has no use for indexes and search parameters.
        warnings.filterwarnings("ignore", message="(Payload indexes|Local mode)")
        client = AsyncQdrantClient(":memory:")
        async with await QdrantIndex.create_or_open(place, content, client) as index:
            yield index


@asynccontextmanager
async def fresh_on_stub(content: Collection) -> AsyncIterator[VectorIndex]:
    async with _emptied(_place_on_stub, content) as index:
        yield index


@asynccontextmanager
async def fresh_on_server(content: Collection) -> AsyncIterator[VectorIndex]:
    async with _emptied(_place_to_drop, content) as index:
        yield index


@asynccontextmanager
async def _emptied(
    make: Callable[[], QdrantServer], content: Collection
) -> AsyncIterator[QdrantIndex]:
    """Collections are emptied and used again: it takes long to make one."""
    spare = _spare.setdefault((make, content), [])
    place = spare.pop() if spare else make()
    connection = Connection(place)
    await empty(connection)
    async with await QdrantIndex.create_or_open(place, content, connection.client) as index:
        yield index
    spare.append(place)


def _place_to_drop() -> QdrantServer:
    place = real_server()
    atexit.register(lambda: asyncio.run(drop(place)))
    return place


def _place_on_stub() -> QdrantServer:
    return place_at(stub())
