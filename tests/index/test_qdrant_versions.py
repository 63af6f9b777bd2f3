"""Versions beside each other: built, swapped under running readers, pruned."""

from __future__ import annotations

import pytest

from llm_trader.errors import ConfigurationError, StoreLockedError, VectorIndexError
from llm_trader.index.points import STATE
from llm_trader.index.protocol import SearchQuery
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.versions import build_beside, prune, swap, versions
from tests.index.builders import ALWAYS, SYMBOL, collection, found, points_at, same_points, stored
from tests.index.qdrant_places import place_at, stub
from tests.index.qdrant_stub import Stub

OLD, NEW = points_at(range(20), 1), points_at(range(10, 40), 2)


@pytest.fixture(scope="module")
def server() -> Stub:
    return stub()


@pytest.fixture
async def place(server: Stub) -> QdrantServer:
    """An index of the old points."""
    place = place_at(server)
    async with await QdrantIndex.create_or_open(place, collection()) as index:
        await index.upsert(OLD)
    return place


async def built(place: QdrantServer, **changes: str) -> str:
    """A new version of the new points, not live yet; its name."""
    async with await build_beside(place, collection(**changes)) as index:
        await index.begin_run("build", None, "2026-03-20T12:00:00Z")
        await index.upsert(NEW)
        return index.name


async def test_a_running_reader_goes_on_with_the_version_that_was_swapped_in(
    place: QdrantServer,
) -> None:
    query = SearchQuery(SYMBOL, ALWAYS, NEW.vectors[STATE][-1], 3)
    async with await QdrantIndex.open(place) as reader, await QdrantIndex.open(place) as other:
        assert same_points(await stored(reader), OLD)
        assert same_points(await stored(other), OLD)
        name = await built(place)
        assert same_points(await stored(reader), OLD)
        await swap(place, name)
        hits = await reader.search(query)
        assert found(hits).timestamp_ms[0] == NEW.timestamp_ms[-1]
        assert hits.eligible == len(NEW)
        assert same_points(await stored(reader), NEW)
        assert (await other.timestamps(SYMBOL)).tolist() == NEW.timestamp_ms.tolist()
        assert name in (await other.info()).location
        await prune(place)
        assert same_points(await stored(reader), NEW)


async def test_a_reader_finds_the_swapped_version_also_where_the_old_one_is_gone(
    place: QdrantServer,
) -> None:
    async with await QdrantIndex.open(place) as reader:
        await swap(place, await built(place))
        await prune(place)
        fetched = await reader.fetch(SYMBOL, NEW.timestamp_ms, (STATE,))
        assert same_points(fetched, NEW)


async def test_a_reader_forgets_a_collection_whose_name_another_one_got(
    place: QdrantServer,
) -> None:
    async def made(slots: range) -> QdrantIndex:
        index = await QdrantIndex.create_or_open(place, collection())
        await index.begin_run("build", None, "2026-03-20T12:00:00Z")
        await index.upsert(points_at(slots, 1))
        return index

    async with Connection(place) as connection:
        for slots in (range(20), range(10, 40)):  # the same runs and transactions, other points
            name = (await versions(place))[0].name
            await connection.client.delete_collection(name)
            async with await made(slots) as index:
                assert index.name == name
            if slots.start == 0:
                reader = await QdrantIndex.open(place)
                assert same_points(await stored(reader), points_at(slots, 1))
        assert same_points(await stored(reader), points_at(slots, 1))
        await reader.aclose()


async def test_a_reader_refuses_a_version_of_other_features_and_says_to_restart(
    place: QdrantServer,
) -> None:
    query = SearchQuery(SYMBOL, ALWAYS, NEW.vectors[STATE][-1], 3)
    async with await QdrantIndex.open(place) as reader:
        await stored(reader)
        await swap(place, await built(place, state_space_id="another-space"))
        for _ in range(2):
            with pytest.raises(VectorIndexError, match=r"rebuilt with other features .* restart"):
                await reader.search(query)
        with pytest.raises(VectorIndexError, match="another-space"):
            await reader.info()
    async with await QdrantIndex.open(place) as restarted:
        assert restarted.collection.state_space_id == "another-space"
        assert same_points(await stored(restarted), NEW)


async def test_an_ingestion_stops_when_the_alias_leads_elsewhere(place: QdrantServer) -> None:
    async with await QdrantIndex.create_or_open(place, collection()) as index:
        await swap(place, await built(place))
        with pytest.raises(StoreLockedError, match=r"leads to .* by now"):
            await index.upsert(points_at([100]))


async def test_a_version_under_way_is_taken_up_again_and_a_live_one_is_not(
    place: QdrantServer,
) -> None:
    name = await built(place)
    async with await build_beside(place, collection()) as again:
        assert again.name == name
        assert same_points(await stored(again), NEW)
    other = await built(place, exchange="binance")
    assert other != name
    await swap(place, name)
    async with await build_beside(place, collection()) as third:
        assert third.name not in (name, other)
    live = [(v.name, v.live, v.building, v.points) for v in await versions(place)]
    assert [each[1:] for each in live] == [
        (False, False, len(OLD)),
        (True, False, len(NEW)),
        (False, True, len(NEW)),
        (False, True, 0),
    ]
    assert [each[0] for each in live[1:]] == [name, other, third.name]


async def test_pruning_keeps_what_is_live_under_way_or_of_others(
    server: Stub, place: QdrantServer
) -> None:
    from qdrant_client import models

    foreign = f"{place.collection}_v2_5m4h_abcdef_9"
    neighbour = place_at(server, collection=f"{place.collection}_more")
    async with await QdrantIndex.create_or_open(neighbour, collection()) as index:
        await index.upsert(OLD)
    async with Connection(place) as connection:
        plain = models.VectorParams(size=4, distance=models.Distance.DOT)
        await connection.client.create_collection(foreign, vectors_config=plain)
        old, live = (await versions(place))[0].name, await built(place)
        await swap(place, live)
        building = await built(place, exchange="binance")
        assert await prune(place) == [old]
        assert [version.name for version in await versions(place)] == [live, building]
        assert await prune(place, also_building=True) == [building]
        assert await prune(place) == []
        assert await connection.client.collection_exists(foreign)
    async with await QdrantIndex.open(neighbour) as index:
        assert same_points(await stored(index), OLD)


async def test_a_version_whose_swap_was_killed_before_its_end_is_an_old_one_after_the_next(
    place: QdrantServer,
) -> None:
    from qdrant_client import models

    name = await built(place)
    async with Connection(place) as connection:
        to = models.CreateAlias(collection_name=name, alias_name=place.collection)
        await connection.client.update_collection_aliases(
            [models.CreateAliasOperation(create_alias=to)]
        )
        following = await built(place)
        assert following != name
        await swap(place, following)
    assert [(v.name, v.building) for v in await versions(place)][1:] == [
        (name, False),
        (following, False),
    ]
    assert name in await prune(place)


async def test_nothing_is_pruned_while_nothing_is_live(place: QdrantServer) -> None:
    from qdrant_client import models

    async with Connection(place) as connection:
        gone = models.DeleteAlias(alias_name=place.collection)
        await connection.client.update_collection_aliases(
            [models.DeleteAliasOperation(delete_alias=gone)]
        )
    with pytest.raises(ConfigurationError, match="none is deleted"):
        await prune(place)
    assert len(await versions(place)) == 1


async def test_the_swap_back_brings_the_old_answers_back(place: QdrantServer) -> None:
    old = (await versions(place))[0].name
    async with await QdrantIndex.open(place) as reader:
        await swap(place, await built(place))
        assert same_points(await stored(reader), NEW)
        await swap(place, old)
        assert same_points(await stored(reader), OLD)


async def test_only_a_version_that_holds_points_is_swapped_in(place: QdrantServer) -> None:
    with pytest.raises(ConfigurationError, match=r"no version of .* there are: .*_1"):
        await swap(place, "somewhere")
    async with await build_beside(place, collection()) as index:
        name = index.name
    with pytest.raises(ConfigurationError, match="holds no points"):
        await swap(place, name)


async def test_a_name_that_is_a_collection_itself_is_read_but_not_swapped(
    place: QdrantServer, server: Stub
) -> None:
    name = (await versions(place))[0].name
    itself = place_at(server, collection=name)
    async with await QdrantIndex.open(itself) as index:
        assert same_points(await stored(index), OLD)
