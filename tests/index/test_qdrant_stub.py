"""The stub server behaves as Qdrant does, seen through the unmodified client."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.common.version_check import is_compatible

from tests.index.qdrant_stub import Stub, start

# Of a tool of the tests; the contract of every index uses it in `make test`.
pytestmark = pytest.mark.soak

DIMENSION = 68
START = 1_723_456_789_123
QUARTER = 900_000


def unit_vectors(count: int, dimension: int = DIMENSION, seed: int = 1) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(count, dimension))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


VECTORS = unit_vectors(60)
QUERY = unit_vectors(1, seed=2)[0]


def point(number: int) -> models.PointStruct:
    return models.PointStruct(
        id=number,
        vector={"state": VECTORS[number].tolist()},
        payload={
            "symbol": "BTCUSDT" if number % 3 else "ETHUSDT",
            "timestamp": START + number * QUARTER,
            "funding_rate": (number - 30) / 1e5,
            "regime": {"name": "calm"},
        },
    )


def field(key: str, **condition: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, **condition)


def where(*conditions: Any) -> models.Filter:
    return models.Filter(must=list(conditions))


def state_vector(size: int = DIMENSION) -> dict[str, models.VectorParams]:
    return {"state": models.VectorParams(size=size, distance=models.Distance.COSINE)}


@asynccontextmanager
async def connected(stub: Stub, **options: Any) -> AsyncIterator[AsyncQdrantClient]:
    client = AsyncQdrantClient(
        url=stub.url,
        prefer_grpc=True,
        grpc_port=stub.grpc_port,
        timeout=10,
        # The check runs in a thread, and warns there when a test kills the server meanwhile.
        check_compatibility=False,
        **options,
    )
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def refused(code: grpc.StatusCode, message: str) -> AsyncIterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert caught.value.code() == code
    assert message in (caught.value.details() or "")


async def fill(client: AsyncQdrantClient, name: str) -> None:
    await client.create_collection(name, vectors_config=state_vector(), metadata={"space": "v1"})
    tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
    await client.create_payload_index(name, "symbol", tenant)
    times = models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=False, range=True, is_principal=True
    )
    await client.create_payload_index(name, "timestamp", times)
    await client.upsert(name, [point(number) for number in range(len(VECTORS))])


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with start() as running:
        yield running


@pytest.fixture
async def client(stub: Stub) -> AsyncIterator[AsyncQdrantClient]:
    async with connected(stub) as open_client:
        yield open_client


@pytest.fixture
def name() -> str:
    return f"points-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def filled(client: AsyncQdrantClient, name: str) -> str:
    await fill(client, name)
    return name


async def ids_where(client: AsyncQdrantClient, name: str, condition: models.Filter) -> list[Any]:
    records, _ = await client.scroll(name, condition, limit=1000)
    assert (await client.count(name, condition)).count == len(records)
    return sorted(record.id for record in records)


def numbers(keep: Any) -> list[int]:
    return [number for number in range(len(VECTORS)) if keep(number)]


async def test_ranges_of_integers_keep_their_bounds_to_the_millisecond(
    client: AsyncQdrantClient, filled: str
) -> None:
    low, high = START + 10 * QUARTER, START + 20 * QUARTER
    for bounds, expected in (
        ({"gte": low, "lte": high}, numbers(lambda n: 10 <= n <= 20)),
        ({"gt": low, "lt": high}, numbers(lambda n: 10 < n < 20)),
        ({"gte": low + 1, "lte": high - 1}, numbers(lambda n: 10 < n < 20)),
    ):
        condition = where(field("timestamp", range=models.Range(**bounds)))
        assert await ids_where(client, filled, condition) == expected


async def test_ranges_of_floats_work_without_an_index(
    client: AsyncQdrantClient, filled: str
) -> None:
    bound = (40 - 30) / 1e5
    for bounds, expected in (
        ({"gte": bound}, numbers(lambda n: n >= 40)),
        ({"gt": bound}, numbers(lambda n: n > 40)),
        ({"lt": 0.0}, numbers(lambda n: n < 30)),
    ):
        condition = where(field("funding_rate", range=models.Range(**bounds)))
        assert await ids_where(client, filled, condition) == expected


async def test_conditions_combine_with_must_should_and_must_not(
    client: AsyncQdrantClient, filled: str
) -> None:
    ether = field("symbol", match=models.MatchValue(value="ETHUSDT"))
    late = field("timestamp", range=models.Range(gte=START + 40 * QUARTER))
    stored = await ids_where(client, filled, models.Filter(must=[late], must_not=[ether]))
    assert stored == numbers(lambda n: n >= 40 and n % 3)
    stored = await ids_where(client, filled, models.Filter(should=[late, ether]))
    assert stored == numbers(lambda n: n >= 40 or n % 3 == 0)
    stored = await ids_where(client, filled, where(models.Filter(must_not=[late]), ether))
    assert stored == numbers(lambda n: n < 40 and n % 3 == 0)


async def test_points_are_found_by_id_and_by_nested_fields(
    client: AsyncQdrantClient, filled: str
) -> None:
    has = models.HasIdCondition(has_id=[3, 5, 999])
    calm = field("regime.name", match=models.MatchAny(any=["calm", "wild"]))
    assert await ids_where(client, filled, where(has, calm)) == [3, 5]


async def test_strict_mode_refuses_filters_on_fields_without_an_index(
    client: AsyncQdrantClient, name: str
) -> None:
    strict = models.StrictModeConfig(enabled=True, unindexed_filtering_retrieve=False)
    await client.create_collection(name, vectors_config=state_vector(), strict_mode_config=strict)
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "Index required but not found"):
        await client.count(name, where(field("x", range=models.Range(gt=0))))


async def nearest(client: AsyncQdrantClient, name: str, **options: Any) -> list[Any]:
    options = {"query": QUERY.tolist(), "using": "state", "limit": 10} | options
    return (await client.query_points(name, **options)).points


async def test_scores_are_cosines_and_hits_descend(client: AsyncQdrantClient, filled: str) -> None:
    hits = await nearest(client, filled, search_params=models.SearchParams(exact=True))
    cosine = VECTORS.astype(np.float64) @ QUERY.astype(np.float64)
    best = np.argsort(-cosine)[:10]
    assert [hit.id for hit in hits] == best.tolist()
    np.testing.assert_allclose([hit.score for hit in hits], cosine[best], atol=1e-6)


async def test_a_filtered_search_agrees_with_numpy(client: AsyncQdrantClient, filled: str) -> None:
    condition = where(
        field("symbol", match=models.MatchValue(value="BTCUSDT")),
        field("timestamp", range=models.Range(gte=START + 7 * QUARTER, lte=START + 50 * QUARTER)),
    )
    hits = await nearest(client, filled, query_filter=condition, limit=100)
    rows = np.array(numbers(lambda n: n % 3 and 7 <= n <= 50))
    cosine = VECTORS[rows].astype(np.float64) @ QUERY.astype(np.float64)
    order = np.argsort(-cosine)
    assert [hit.id for hit in hits] == rows[order].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], cosine[order], atol=1e-6)


async def test_a_score_threshold_offset_and_limit_cut_the_ranking(
    client: AsyncQdrantClient, filled: str
) -> None:
    everything = await nearest(client, filled, limit=100)
    threshold = (everything[4].score + everything[5].score) / 2
    above = await nearest(client, filled, limit=100, score_threshold=threshold)
    assert [hit.id for hit in above] == [hit.id for hit in everything[:5]]
    paged = await nearest(client, filled, limit=3, offset=2)
    assert [hit.id for hit in paged] == [hit.id for hit in everything[2:5]]


async def test_a_batch_answers_each_query_in_its_place(
    client: AsyncQdrantClient, filled: str
) -> None:
    filters = (None, where(field("symbol", match=models.MatchValue(value="ETHUSDT"))))
    requests = [
        models.QueryRequest(query=QUERY.tolist(), using="state", limit=5, filter=condition)
        for condition in filters
    ]
    batch = await client.query_batch_points(filled, requests)
    for condition, reply in zip(filters, batch, strict=True):
        assert reply.points == await nearest(
            client, filled, limit=5, query_filter=condition, with_payload=False
        )


async def test_a_point_is_searched_by_its_id_without_finding_itself(
    client: AsyncQdrantClient, filled: str
) -> None:
    hits = await nearest(client, filled, query=7, limit=1)
    cosine = VECTORS @ VECTORS[7]
    cosine[7] = -1
    assert hits[0].id == int(np.argmax(cosine))


async def test_selectors_choose_payload_fields_and_vectors(
    client: AsyncQdrantClient, filled: str
) -> None:
    (bare,) = await nearest(client, filled, limit=1, with_payload=False)
    assert not bare.payload
    assert bare.vector is None
    (chosen,) = await nearest(
        client, filled, limit=1, with_payload=["timestamp"], with_vectors=["state"]
    )
    assert chosen.payload == {"timestamp": START + chosen.id * QUARTER}
    assert np.array_equal(np.float32(chosen.vector["state"]), VECTORS[chosen.id])
    excluded = models.PayloadSelectorExclude(exclude=["regime", "symbol", "funding_rate"])
    (rest,) = await client.retrieve(filled, [chosen.id], with_payload=excluded)
    assert rest.payload == chosen.payload


async def kept(client: AsyncQdrantClient, name: str, payload: dict[str, Any]) -> dict[str, Any]:
    await client.create_collection(name, vectors_config=state_vector())
    await client.upsert(name, [models.PointStruct(id=1, vector={}, payload=payload)])
    (stored,) = await client.retrieve(name, [1])
    return stored.payload or {}


async def test_integers_short_decimals_and_json_come_back_as_they_were(
    client: AsyncQdrantClient, name: str
) -> None:
    payload = {
        "integers": [START, 2**62 + 1, -(2**63), 0],
        "decimals": [0.0001, -12.345678, 1e-8, 98765.4321, -0.0],
        "whole": 3.0,
        "others": [None, True, "µ", {"deep": [1, 1.0]}],
    }
    stored = await kept(client, name, payload)
    assert repr(dict(sorted(stored.items()))) == repr(dict(sorted(payload.items())))


async def test_long_doubles_may_lose_their_last_bit_but_not_single_precision(
    client: AsyncQdrantClient, name: str
) -> None:
    """The engine reads its own JSON with a quick parser; one double in eight is off by a bit."""
    values = np.random.default_rng(5).normal(size=2000) * 1e-5
    bits = values.view(np.int64)
    stored = await kept(client, name, {"doubles": values.tolist(), "bits": bits.tolist()})
    returned = np.array(stored["doubles"])
    assert np.abs(returned.view(np.int64) - bits).max() in (1, 2)
    assert np.array_equal(returned.astype(np.float32), values.astype(np.float32))
    assert stored["bits"] == bits.tolist()


async def test_unit_vectors_come_back_unchanged(client: AsyncQdrantClient, name: str) -> None:
    await client.create_collection(name, vectors_config=state_vector(384))
    vectors = unit_vectors(50, 384)
    points = [
        models.PointStruct(id=n, vector={"state": vector.tolist()})
        for n, vector in enumerate(vectors)
    ]
    await client.upsert(name, points)
    stored = await client.retrieve(name, list(range(50)), with_vectors=True)
    returned = {record.id: np.float32(record.vector["state"]) for record in stored}
    assert all(np.array_equal(returned[n], vectors[n]) for n in range(50))


async def test_ordering_by_time_pages_in_both_directions(
    client: AsyncQdrantClient, filled: str
) -> None:
    async def page(start_from: int | None, direction: models.Direction) -> list[Any]:
        by = models.OrderBy(key="timestamp", direction=direction, start_from=start_from)
        records, following = await client.scroll(filled, limit=4, order_by=by)
        assert following is None
        return [record.id for record in records]

    assert await page(None, models.Direction.ASC) == [0, 1, 2, 3]
    assert await page(START + 10 * QUARTER, models.Direction.ASC) == [10, 11, 12, 13]
    assert await page(START + 10 * QUARTER + 1, models.Direction.DESC) == [10, 9, 8, 7]


async def test_ordering_needs_a_range_index_and_takes_no_offset(
    client: AsyncQdrantClient, filled: str
) -> None:
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "Wrong input: No range index"):
        await client.scroll(filled, order_by="funding_rate")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "Cannot use an `offset`"):
        await client.scroll(filled, order_by="timestamp", offset=3)


async def test_scrolling_by_id_visits_every_point_once(
    client: AsyncQdrantClient, filled: str
) -> None:
    seen: list[Any] = []
    offset = None
    while True:
        records, offset = await client.scroll(filled, limit=7, offset=offset)
        seen += [record.id for record in records]
        if offset is None:
            break
    assert seen == list(range(len(VECTORS)))


async def test_facets_count_values_and_need_an_index(
    client: AsyncQdrantClient, filled: str
) -> None:
    facet = await client.facet(filled, "symbol", exact=True)
    assert {hit.value: hit.count for hit in facet.hits} == {"BTCUSDT": 40, "ETHUSDT": 20}
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "No appropriate index for faceting"):
        await client.facet(filled, "funding_rate")


async def test_a_collection_tells_how_it_was_made_and_merges_new_metadata(
    client: AsyncQdrantClient, name: str
) -> None:
    hnsw = models.HnswConfigDiff(m=0, payload_m=16)
    metadata = {"space": "abc", "version": 3, "weights": [0.5, None], "deep": {"x": 1.0}}
    await client.create_collection(
        name, vectors_config=state_vector(), hnsw_config=hnsw, metadata=metadata, shard_number=3
    )
    await client.create_payload_index(name, "symbol", models.PayloadSchemaType.KEYWORD)
    info = await client.get_collection(name)
    assert info.config.metadata == metadata
    assert (info.config.hnsw_config.m, info.config.hnsw_config.payload_m) == (0, 16)
    assert info.config.params.vectors == state_vector()
    assert info.config.params.shard_number == 3
    assert info.payload_schema["symbol"].data_type == models.PayloadSchemaType.KEYWORD
    assert (info.points_count, info.status) == (0, models.CollectionStatus.GREEN)
    await client.update_collection(name, metadata={"version": 4, "run": 2})
    merged = (await client.get_collection(name)).config.metadata
    assert merged == {**metadata, "version": 4, "run": 2}


async def test_indexes_keep_their_parameters_and_can_be_removed(
    client: AsyncQdrantClient, filled: str
) -> None:
    schema = (await client.get_collection(filled)).payload_schema
    assert schema["symbol"].params.is_tenant
    assert schema["symbol"].points == len(VECTORS)
    times = schema["timestamp"].params
    assert (times.lookup, times.range, times.is_principal) == (False, True, True)
    await client.delete_payload_index(filled, "symbol")
    assert list((await client.get_collection(filled)).payload_schema) == ["timestamp"]


async def test_inserting_only_leaves_existing_points_as_they_are(
    client: AsyncQdrantClient, filled: str
) -> None:
    points = [
        models.PointStruct(id=number, vector={}, payload={"timestamp": 1}) for number in (5, 500)
    ]
    await client.upsert(filled, points, update_mode=models.UpdateMode.INSERT_ONLY)
    old, new = sorted(await client.retrieve(filled, [5, 500]), key=lambda record: record.id)
    assert (old.payload, new.payload) == (point(5).payload, {"timestamp": 1})
    await client.upsert(filled, points)
    assert (await client.count(filled)).count == len(VECTORS) + 1


async def test_a_conditional_upsert_replaces_only_matching_points(
    client: AsyncQdrantClient, filled: str
) -> None:
    points = [models.PointStruct(id=n, vector={}, payload={"symbol": "new"}) for n in (3, 4)]
    ether = where(field("symbol", match=models.MatchValue(value="ETHUSDT")))
    await client.upsert(filled, points, update_filter=ether)
    new = where(field("symbol", match=models.MatchValue(value="new")))
    assert await ids_where(client, filled, new) == [3]


async def test_points_are_deleted_by_id_and_by_filter(
    client: AsyncQdrantClient, filled: str
) -> None:
    await client.delete(filled, [0, 1])
    early = where(field("timestamp", range=models.Range(lt=START + 5 * QUARTER)))
    await client.delete(filled, models.FilterSelector(filter=early))
    assert await ids_where(client, filled, models.Filter()) == numbers(lambda n: n >= 5)


async def test_payload_is_set_by_id(client: AsyncQdrantClient, filled: str) -> None:
    await client.set_payload(filled, {"run": 7}, points=[2])
    (stored,) = await client.retrieve(filled, [2])
    assert stored.payload == {**(point(2).payload or {}), "run": 7}


async def test_uuid_ids_stay_uuids(client: AsyncQdrantClient, filled: str) -> None:
    given = str(uuid.uuid4())
    await client.upsert(filled, [models.PointStruct(id=given, vector={})])
    (stored,) = await client.retrieve(filled, [given])
    assert stored.id == given
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "Unable to parse UUID: abc"):
        await client.retrieve(filled, ["abc"])


def move(alias: str, target: str) -> list[Any]:
    return [
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)),
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=target, alias_name=alias)
        ),
    ]


async def test_an_alias_moves_at_once_and_works_everywhere(
    client: AsyncQdrantClient, filled: str
) -> None:
    alias, green = f"live-{filled}", f"green-{filled}"
    await client.create_collection(green, vectors_config=state_vector())
    await client.update_collection_aliases(move(alias, filled)[1:])
    assert (await client.count(alias)).count == len(VECTORS)
    assert len(await nearest(client, alias)) == 10
    assert await client.collection_exists(alias)
    await client.update_collection_aliases(move(alias, green))
    assert (await client.count(alias)).count == 0
    described = (await client.get_collection_aliases(green)).aliases
    assert [record.alias_name for record in described] == [alias]
    assert (await client.get_collection_aliases(filled)).aliases == []


async def test_alias_actions_apply_all_or_none(client: AsyncQdrantClient, filled: str) -> None:
    alias = f"live-{filled}"
    await client.update_collection_aliases(move(alias, filled)[1:])
    async with refused(grpc.StatusCode.NOT_FOUND, "Collection `nowhere` doesn't exist!"):
        await client.update_collection_aliases(move(alias, "nowhere"))
    assert (await client.count(alias)).count == len(VECTORS)


async def test_a_deleted_collection_takes_its_aliases_along(
    client: AsyncQdrantClient, filled: str
) -> None:
    alias = f"live-{filled}"
    await client.update_collection_aliases(move(alias, filled)[1:])
    assert await client.delete_collection(filled)
    assert not await client.delete_collection(filled)
    assert not await client.collection_exists(alias)
    collections = (await client.get_collections()).collections
    assert filled not in [record.name for record in collections]


async def test_errors_are_worded_as_the_real_server_words_them(
    client: AsyncQdrantClient, filled: str
) -> None:
    message = "Not found: Collection `unknown` doesn't exist!"
    async with refused(grpc.StatusCode.NOT_FOUND, message):
        await client.count("unknown")
    message = f"Wrong input: Collection `{filled}` already exists!"
    async with refused(grpc.StatusCode.ALREADY_EXISTS, message):
        await client.create_collection(filled, vectors_config=state_vector())
    message = "Wrong input: Vector dimension error: expected dim: 68, got 4"
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, message):
        await nearest(client, filled, query=[1.0, 2.0, 3.0, 4.0])
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, message):
        await client.upsert(filled, [models.PointStruct(id=1, vector={"state": [1.0] * 4})])
    message = "Wrong input: Not existing vector name error: text"
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, message):
        await nearest(client, filled, using="text")


async def test_collections_and_aliases_survive_a_kill() -> None:
    with start() as stub:
        async with connected(stub) as client:
            await fill(client, "c")
            await client.update_collection_aliases(move("live", "c")[1:])
        stub.restart()
        async with connected(stub) as client:
            assert (await client.count("live")).count == len(VECTORS)
            info = await client.get_collection("live")
            assert info.config.metadata == {"space": "v1"}
            assert sorted(info.payload_schema) == ["symbol", "timestamp"]
            (stored,) = await client.retrieve("live", [8], with_vectors=True)
            assert np.array_equal(np.float32(stored.vector["state"]), VECTORS[8])
            assert stored.payload == point(8).payload


async def download(stub: Stub, collection: str, snapshot: str) -> bytes:
    async with httpx.AsyncClient(base_url=stub.url) as http:
        reply = await http.get(f"/collections/{collection}/snapshots/{snapshot}")
        assert reply.status_code == 200
        return reply.content


async def upload(stub: Stub, collection: str, content: bytes, checksum: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=stub.url) as http:
        return await http.post(
            f"/collections/{collection}/snapshots/upload",
            params={"priority": "snapshot", "checksum": checksum},
            files={"snapshot": ("a.snapshot", content)},
        )


@pytest.mark.soak
async def test_a_snapshot_restores_a_collection_on_an_empty_server(
    stub: Stub, client: AsyncQdrantClient, filled: str
) -> None:
    snapshot = await client.create_snapshot(filled)
    assert await client.list_snapshots(filled) == [snapshot]
    content = await download(stub, filled, snapshot.name)
    assert snapshot.checksum == hashlib.sha256(content).hexdigest()
    assert snapshot.size == len(content)
    with start() as empty:
        assert (await upload(empty, "copy", content, snapshot.checksum)).json()["result"] is True
        async with connected(empty) as other:
            assert (await nearest(other, "copy")) == await nearest(client, filled)
            info = await other.get_collection("copy")
            assert info.model_dump() == (await client.get_collection(filled)).model_dump()
            await other.upsert("copy", [models.PointStruct(id=99, vector={})])
        empty.restart()
        async with connected(empty) as other:
            assert (await other.count("copy")).count == len(VECTORS) + 1


async def test_a_snapshot_is_recovered_in_place_and_deleted(
    stub: Stub, client: AsyncQdrantClient, filled: str
) -> None:
    snapshot = await client.create_snapshot(filled)
    await client.delete(filled, models.FilterSelector(filter=models.Filter()))
    location = f"{stub.url}/collections/{filled}/snapshots/{snapshot.name}"
    assert await client.recover_snapshot(filled, location, checksum=snapshot.checksum)
    assert (await client.count(filled)).count == len(VECTORS)
    await client.delete_snapshot(filled, snapshot.name)
    assert await client.list_snapshots(filled) == []


async def test_a_snapshot_with_another_checksum_or_of_other_vectors_is_refused(
    stub: Stub, client: AsyncQdrantClient, filled: str
) -> None:
    other = f"{filled}-other"
    await client.create_collection(other, vectors_config=state_vector(4))
    snapshot = await client.create_snapshot(other)
    content = await download(stub, other, snapshot.name)
    for checksum, message in (
        ("0" * 64, "Checksum mismatch"),
        (snapshot.checksum, "not compatible"),
    ):
        reply = await upload(stub, filled, content, checksum or "")
        assert reply.status_code == 400
        assert message in reply.json()["status"]["error"]
    assert (await client.count(filled)).count == len(VECTORS)


async def test_unknown_things_are_404_in_json(stub: Stub) -> None:
    async with httpx.AsyncClient(base_url=stub.url) as http:
        reply = await http.get("/collections/unknown/snapshots")
    assert reply.status_code == 404
    message = "Not found: Collection `unknown` doesn't exist!"
    assert reply.json() == {"status": {"error": message}, "time": 0.0}


async def test_the_cluster_is_as_large_as_asked_for() -> None:
    with start(peers=3) as stub:
        async with connected(stub) as client:
            await client.create_collection(
                "c", vectors_config=state_vector(), shard_number=3, replication_factor=2
            )
        async with httpx.AsyncClient(base_url=stub.url) as http:
            cluster = (await http.get("/cluster")).json()["result"]
            shards = (await http.get("/collections/c/cluster")).json()["result"]
    assert len(cluster["peers"]) == 3
    assert len(shards["local_shards"]) + len(shards["remote_shards"]) == 6
    assert shards["shard_count"] == 3


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
async def test_an_api_key_is_required_on_grpc_and_rest() -> None:
    code = grpc.StatusCode.UNAUTHENTICATED
    with start(api_key="right") as stub:
        async with connected(stub) as client, refused(code, "Must provide an API key"):
            await client.get_collections()
        headers: Sequence[dict[str, str]] = ({}, {"api-key": "wrong"}, {"api-key": "right"})
        async with httpx.AsyncClient(base_url=stub.url) as http:
            replies = [await http.get("/collections", headers=record) for record in headers]
        assert [reply.status_code for reply in replies] == [401, 401, 200]
        async with connected(stub, api_key="right") as client:
            assert (await client.get_collections()).collections == []


async def test_the_client_finds_the_version_compatible(
    stub: Stub, client: AsyncQdrantClient
) -> None:
    async with httpx.AsyncClient(base_url=stub.url) as http:
        served = (await http.get("/")).json()["version"]
    assert served == (await client.info()).version
    assert is_compatible(importlib.metadata.version("qdrant-client"), served)


async def test_ordered_faults_fail_that_many_calls(stub: Stub, filled: str) -> None:
    async with connected(stub) as client:
        stub.fail_next(2, methods=["Points/Count"])
        for _ in range(2):
            async with refused(grpc.StatusCode.UNAVAILABLE, "ordered"):
                await client.count(filled)
        assert (await client.count(filled)).count == len(VECTORS)
        stub.fail_next(code="RESOURCE_EXHAUSTED", retry_after_s=3)
        with pytest.raises(ResourceExhaustedResponse) as caught:
            await client.count(filled)
        assert caught.value.retry_after_s == 3


async def test_a_fault_may_come_after_the_work_is_done(
    stub: Stub, client: AsyncQdrantClient, filled: str
) -> None:
    stub.fail_next(applied=True)
    async with refused(grpc.StatusCode.UNAVAILABLE, "ordered"):
        await client.delete(filled, [0])
    assert (await client.count(filled)).count == len(VECTORS) - 1


async def test_calls_are_counted_and_delayed(
    stub: Stub, client: AsyncQdrantClient, filled: str
) -> None:
    stub.forget_calls()
    stub.delay(50, methods=["Points/Query"])
    begun = time.perf_counter()
    await nearest(client, filled)
    assert time.perf_counter() - begun >= 0.05
    await client.count(filled)
    stub.behave()
    assert stub.calls() == {"Points/Count": 1, "Points/Query": 1}
