"""An index without points belongs to no collection yet: another one may take its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llm_trader.errors import VectorIndexError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.qdrant.backend import QdrantIndex
from tests.index.builders import collection, points_at, stored
from tests.index.qdrant_places import place_at, stub
from tests.index.qdrant_stub import Stub
from tests.market.processes import hear, running

INGESTION = """
import asyncio
from llm_trader.index.embedded import EmbeddedIndex
from tests.index.builders import collection, points_at

async def main():
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        await index.upsert(points_at([1, 2]))

asyncio.run(main())
say("done")
"""
OTHER = collection(exchange="binance", intraday="3m")


@pytest.fixture(scope="module")
def server() -> Stub:
    return stub()


async def test_an_empty_embedded_index_takes_another_collection(tmp_path: Path) -> None:
    with EmbeddedIndex.create_or_open(tmp_path, OTHER) as index:
        await index.begin_run("build", "binance", "2026-03-20T12:00:00Z")
    with EmbeddedIndex.create_or_open(tmp_path, collection()) as index:
        assert index.collection == collection()
        assert (await index.info()).runs == []
        await index.upsert(points_at([1, 2]))
    with EmbeddedIndex.open(tmp_path) as index:
        assert len(await stored(index)) == 2


async def ask_for_five_seconds(reader: EmbeddedIndex) -> None:
    """A reader looks once a second whether another file has taken the place of its own."""
    for _ in range(500):
        await reader.info()
        await asyncio.sleep(0.01)


@pytest.mark.soak
async def test_a_reader_of_the_empty_index_hears_of_the_other_collection(tmp_path: Path) -> None:
    EmbeddedIndex.create_or_open(tmp_path, OTHER).close()
    with EmbeddedIndex.open(tmp_path) as reader:
        assert (await reader.info()).symbols == []
        with running(INGESTION, tmp_path) as writer:
            assert hear(writer) == "done"
        with pytest.raises(VectorIndexError, match="rebuilt with other features"):
            await ask_for_five_seconds(reader)


async def test_an_empty_qdrant_index_takes_another_collection(server: Stub) -> None:
    place = place_at(server)
    async with await QdrantIndex.create_or_open(place, OTHER) as index:
        await index.begin_run("build", "binance", "2026-03-20T12:00:00Z")
    async with await QdrantIndex.create_or_open(place, collection()) as index:
        assert index.collection == collection()
        await index.upsert(points_at([1, 2]))
    async with await QdrantIndex.open(place) as index:
        assert len(await stored(index)) == 2
