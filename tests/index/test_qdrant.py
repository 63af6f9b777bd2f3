"""What the Qdrant backend does beyond the contract: other processes, round trips, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from llm_trader.checks.recall import recall
from llm_trader.checks.sampling import Sampling
from llm_trader.errors import (
    ConfigurationError,
    StoreLockedError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.index.points import COLUMNS, STATE, point_id
from llm_trader.index.protocol import FieldRange, IngestionRun, SearchQuery
from llm_trader.index.qdrant import catalog, layout, requests
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.layout import Head
from llm_trader.market.series_changes import DataMark
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS
from tests.index.builders import (
    ALWAYS,
    SYMBOL,
    at,
    collection,
    found,
    merged,
    points_at,
    same_points,
    stored,
    unit_vectors,
)
from tests.index.qdrant_places import place_at, stub
from tests.index.qdrant_stub import Stub
from tests.index.test_embedded import BATCHES
from tests.market.processes import hear, running, tell
from tests.retrieval.builders import COLLECTION, SPACE, comparable, index_of, past, state_of

STARTED = "2026-03-20T12:00:00Z"

WRITER = """
import asyncio
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from tests.index.builders import collection, points_at
from tests.index.test_embedded import BATCHES

url, grpc_port, name = path.read_text().split()
place = QdrantServer(url=url, grpc_port=int(grpc_port), collection=name)

async def main():
    async with await QdrantIndex.create_or_open(place, collection()) as index:
        await index.begin_run("build", "bybit", "2026-03-20T12:00:00Z")
        say("open")
        for slots, seed in BATCHES.values():
            wait()
            say(await index.upsert(points_at(slots, seed, run=seed)))
        wait()
        await index.upsert(points_at(range(4), 9, symbol="ETHUSDT"))
        say("another symbol")

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Stub:
    return stub()


@pytest.fixture
def place(server: Stub) -> QdrantServer:
    return place_at(server)


@asynccontextmanager
async def writing(place: QdrantServer, held: Any = None) -> AsyncIterator[QdrantIndex]:
    async with await QdrantIndex.create_or_open(place, held or collection()) as index:
        yield index


@asynccontextmanager
async def reading(place: QdrantServer) -> AsyncIterator[QdrantIndex]:
    async with await QdrantIndex.open(place) as index:
        yield index


async def test_values_and_vectors_come_back_to_the_last_bit(place: QdrantServer) -> None:
    points = points_at(range(700), 3, run=7)
    points.values[0, :5] = [5e-324, -0.0, 1.7976931348623157e308, 0.1, -1 / 3]
    async with writing(place) as index:
        assert await index.upsert(points) == 700
    async with reading(place) as reader:
        held = await stored(reader)
        assert held.values.tobytes() == points.values.tobytes()
        assert same_points(held, points)
        assert same_points(await reader.fetch(SYMBOL, points.timestamp_ms, (STATE,)), points)


async def test_other_programs_find_every_field_by_its_name(place: QdrantServer) -> None:
    points = points_at([3], 1, run=1)
    async with writing(place) as index:
        await index.begin_run("build 7", "bybit", STARTED)
        await index.upsert(points)
        name = index.name
    id_ = point_id(SYMBOL, int(points.timestamp_ms[0]), collection().feature_version)
    async with Connection(place) as connection:
        found = await connection.client.retrieve(place.collection, [id_], with_vectors=True)
        info = await connection.client.get_collection(name)
    payload = found[0].payload or {}
    assert [payload[column] for column in COLUMNS] == pytest.approx(points.values[:, 0].tolist())
    del payload["row"], payload["written"]
    assert {key: payload[key] for key in payload if key not in COLUMNS} == {
        "symbol": SYMBOL,
        "timestamp": int(points.timestamp_ms[0]),
        "resolved_at": int(points.timestamp_ms[0]) + DAY_MS,
        "exchange": "bybit",
        "schema_version": collection().schema_version,
        "feature_version": "v2_5m4h",
        "state_space_id": "state-of-tests",
        "run": 1,
        "build_id": "build 7",
    }
    assert info.config.hnsw_config.m == 0
    assert info.config.hnsw_config.payload_m == 16
    indexed = {"symbol", "timestamp", "resolved_at", "written", "run"}
    assert set(info.payload_schema) == indexed | {"oi_delta_pct", "funding_rate"}
    assert info.payload_schema["symbol"].params.is_tenant


async def test_a_missing_index_is_refused_with_the_command_that_makes_one(
    place: QdrantServer,
) -> None:
    with pytest.raises(VectorIndexError, match=r"no index .*; make one with: rag-ingest --qdrant"):
        await QdrantIndex.open(place)


async def test_a_collection_of_another_program_is_neither_read_nor_written_to(
    place: QdrantServer,
) -> None:
    from qdrant_client import models

    plain = models.VectorParams(size=4, distance=models.Distance.DOT)
    async with Connection(place) as connection:
        await connection.client.create_collection(place.collection, vectors_config=plain)
        for opening in (QdrantIndex.open(place), QdrantIndex.create_or_open(place, collection())):
            with pytest.raises(VectorIndexError, match="no index of this program"):
                await opening
        assert (await connection.client.count(place.collection)).count == 0


async def test_an_index_of_another_layout_is_refused_with_a_remedy(place: QdrantServer) -> None:
    async with writing(place) as index:
        name = index.name
    async with Connection(place) as connection:
        described = await catalog.open_described(connection, name)
        other = layout.metadata_of(msgspec.structs.replace(described, layout=99))
        await connection.client.update_collection(name, metadata=other)
        with pytest.raises(VectorIndexError, match=r"another version .* llm-trader index rebuild"):
            await QdrantIndex.open(place)


async def test_an_index_of_another_collection_is_refused_with_every_difference_and_kept(
    place: QdrantServer,
) -> None:
    points = points_at(range(3))
    async with writing(place) as index:
        await index.upsert(points)
    other = collection(exchange="binance", dimension=8, intraday="3m")
    with pytest.raises(ConfigurationError, match="llm-trader index rebuild") as refusal:
        await QdrantIndex.create_or_open(place, other)
    for told in ("exchange is bybit, not binance", "dimension is 6, not 8", "intraday is 5m"):
        assert told in refusal.value.message
    async with writing(place) as index:
        assert same_points(await stored(index), points)
        assert (await index.upsert(points_at([2, 3]))) == 1


async def test_an_index_opened_for_reading_cannot_be_written_to(place: QdrantServer) -> None:
    async with writing(place) as index:
        await index.upsert(points_at([1]))
    async with reading(place) as reader:
        with pytest.raises(ConfigurationError, match="for reading only"):
            await reader.upsert(points_at([3]))
        with pytest.raises(ConfigurationError, match="for reading only"):
            await reader.begin_run("build", None, STARTED)


async def test_a_live_reader_takes_over_all_that_another_process_writes(
    place: QdrantServer, tmp_path: Path
) -> None:
    told = tmp_path / "place"
    told.write_text(f"{place.url} {place.grpc_port} {place.collection}")
    with running(WRITER, told) as writer:
        assert hear(writer) == "open"
        async with reading(place) as reader:
            with pytest.raises(SymbolNotFoundError):
                await stored(reader)
            expected = points_at([])
            for name, (slots, seed) in BATCHES.items():
                tell(writer)
                grown = merged(expected, points_at(slots, seed, run=seed))
                assert hear(writer) == str(len(grown) - len(expected)), name
                expected = grown
                query = SearchQuery(SYMBOL, ALWAYS, expected.vectors[STATE][-1], 3)
                hits = await reader.search(query)
                assert found(hits).timestamp_ms[0] == expected.timestamp_ms[-1], name
                assert hits.eligible == len(expected), name
                assert same_points(await stored(reader), expected), name
            tell(writer)
            assert hear(writer) == "another symbol"
            counted = [(s.symbol, s.points) for s in (await reader.info()).symbols]
            assert counted == [("BTCUSDT", len(expected)), ("ETHUSDT", 4)]
            assert len(await stored(reader, "ETHUSDT")) == 4


async def test_only_as_much_of_the_past_is_loaded_as_was_asked_for(
    server: Stub, place: QdrantServer
) -> None:
    points = points_at(range(0, 9600, 8))  # 100 days
    async with writing(place) as index:
        await index.upsert(points)
    async with reading(place) as reader:
        for days in (3, 10, 60, 100, 20):
            window = replace(ALWAYS, earliest_timestamp_ms=int(at([9600 - 96 * days])[0]))
            expected = points.take(points.timestamp_ms >= window.earliest_timestamp_ms)
            server.forget_calls()
            scanned = await reader.scan(SYMBOL, window)
            assert np.array_equal(scanned.values, expected.values)
            if days == 3:
                assert server.calls()["Points/Scroll"] == 1
        assert "Points/Scroll" not in server.calls()
        await points_written_before_what_is_kept_are_there_when_asked_for(place, reader)


async def points_written_before_what_is_kept_are_there_when_asked_for(
    place: QdrantServer, reader: QdrantIndex
) -> None:
    async with writing(place) as index:
        await index.upsert(points_at([-9600, 9000], 5))
    assert (
        len(await reader.scan(SYMBOL, replace(ALWAYS, earliest_timestamp_ms=int(at([0])[0]))))
        == 1200
    )
    assert len(await stored(reader)) == 1201


async def test_a_warm_query_is_one_round_trip(server: Stub, place: QdrantServer) -> None:
    query = SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 1)[0], 7, (FieldRange("oi_delta_pct", 0),))
    async with writing(place) as index:
        await index.upsert(points_at(range(100)))
        async with reading(place) as reader:
            await reader.search(query)
            server.forget_calls()
            await reader.search(query)
            assert server.calls() == {"Points/QueryBatch": 1}
            server.forget_calls()
            await reader.scan(SYMBOL, ALWAYS)
            assert server.calls() == {"Points/Get": 1}
            server.forget_calls()
            await asyncio.gather(*(reader.scan(SYMBOL, ALWAYS) for _ in range(20)))
            reads = server.calls()["Points/Get"]
            assert reads <= 2
            use = reader.cache_use()
            assert use["heads"] == (20 - reads, 1 + reads)  # one by the scan before
            assert use["columns"] == (22, 1)
            await index.upsert(points_at([100]))
            server.forget_calls()
            assert (await reader.search(replace(query, ranges=()))).eligible == 101
            assert server.calls() == {"Points/QueryBatch": 1, "Points/Scroll": 1}


async def test_hits_whose_vectors_are_read_by_themselves_are_the_same(
    server: Stub, place: QdrantServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 1)[0], 90)
    async with writing(place) as index:
        await index.upsert(points_at(range(300)))
        at_once = await index.search(asked)
        monkeypatch.setattr(requests, "_LEAST_HITS_ALONG", 10)
        monkeypatch.setattr(requests, "_FLOATS_ALONG", 0)
        monkeypatch.setattr("llm_trader.index.qdrant.reader._FLOATS_A_PAGE", 120)
        server.forget_calls()
        apart = await index.search(asked)
        assert server.calls() == {"Points/QueryBatch": 1, "Points/Get": 5}
    assert apart.rows.tolist() == at_once.rows.tolist()
    assert apart.cosine.tolist() == at_once.cosine.tolist()


async def test_a_process_knows_what_it_wrote_itself(server: Stub, place: QdrantServer) -> None:
    async with writing(place) as index:
        await index.begin_run("build", None, STARTED)
        await index.upsert(points_at(range(10)))
        assert len(await index.scan(SYMBOL, ALWAYS)) == 10
        await index.upsert(points_at(range(5, 15), 1))
        server.forget_calls()
        scanned = await index.scan(SYMBOL, ALWAYS)
        assert server.calls() == {"Points/Get": 1}
    expected = merged(points_at(range(10)), points_at(range(5, 15), 1))
    assert np.array_equal(scanned.values, expected.values)


@pytest.mark.soak
async def test_the_event_loop_has_its_turns_while_much_is_loaded(place: QdrantServer) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with writing(place) as index:
        await index.upsert(points_at(range(2000)))
    async with reading(place) as reader:
        beside = asyncio.create_task(others())
        await reader.scan(SYMBOL, ALWAYS, (STATE,))
        beside.cancel()
    assert turns > 2000 // 500  # pages


async def test_a_cancelled_load_leaves_the_index_whole(server: Stub, place: QdrantServer) -> None:
    points = points_at(range(900))
    async with writing(place) as index:
        await index.upsert(points)
    async with reading(place) as reader:
        server.delay(200, methods=["Points/Scroll"])
        loading = asyncio.create_task(reader.scan(SYMBOL, ALWAYS))
        await asyncio.sleep(0.1)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        server.behave()
        assert same_points(await stored(reader), points)


async def test_a_later_ingestion_takes_over_and_the_earlier_one_stops(place: QdrantServer) -> None:
    async with writing(place) as early, writing(place) as late:
        assert await early.begin_run("early", None, STARTED) == 1
        await early.upsert(points_at(range(3), run=1))
        assert await late.begin_run("late", None, STARTED) == 2
        with pytest.raises(StoreLockedError, match=r"another ingestion \(run 2\) took over"):
            await early.upsert(points_at(range(3, 6), run=1))
        assert await late.upsert(points_at(range(6), run=2)) == 3
        assert await early.begin_run("early again", None, STARTED) == 3
        assert await early.upsert(points_at([6], run=3)) == 1
        with pytest.raises(StoreLockedError):
            await late.upsert(points_at([7], run=2))
        assert [run.build_id for run in (await late.info()).runs] == [
            "early",
            "late",
            "early again",
        ]


async def test_ingestions_that_begin_at_once_have_numbers_of_their_own(place: QdrantServer) -> None:
    async with writing(place) as one, writing(place) as two, writing(place) as three:
        begun = [index.begin_run("build", None, STARTED) for index in (one, two, three)]
        assert sorted(await asyncio.gather(*begun)) == [1, 2, 3]


async def test_a_run_whose_process_was_killed_as_it_began_is_begun_again_under_its_number(
    place: QdrantServer,
) -> None:
    """A migration needs the numbers of its source."""
    async with writing(place) as killed, writing(place) as again, writing(place) as other:
        assert killed._writer is not None
        run = IngestionRun(run=1, build_id="build", exchange=None, started_at=STARTED)
        await killed._writer._register(run, "a token")
        assert await again.begin_run("build", None, STARTED) == 1
        assert await again.upsert(points_at(range(3), run=1)) == 3
        await killed._writer._register(msgspec.structs.replace(run, run=2), "a token")
        assert await other.begin_run("another build", None, STARTED) == 3


async def test_what_a_killed_transaction_left_is_found_and_taken_over(place: QdrantServer) -> None:
    """Points are there, but the head was never written."""
    async with writing(place) as index, reading(place) as reader:
        await index.begin_run("build", None, STARTED)
        await index.upsert(points_at(range(10), 1))
        assert len(await stored(reader)) == 10
        half = points_at(range(10, 14), 2)
        await cut_short(index, half)
        hits = await reader.search(SearchQuery(SYMBOL, ALWAYS, half.vectors[STATE][2], 1))
        assert found(hits).timestamp_ms[0] == half.timestamp_ms[2]
        assert (await index.timestamps(SYMBOL)).tolist() == at(range(14)).tolist()
        assert await index.upsert(points_at(range(10, 16), 2)) == 2
        assert len(await stored(reader)) == 16


async def cut_short(index: QdrantIndex, points: Any) -> None:
    """Send a transaction's points and nothing more."""
    async with Connection(index.connection.server) as connection:
        head = await index.cache.reader.head()
        contents = layout.payloads(points, index.collection, "build", head.written + 1)
        ids = [point_id(SYMBOL, t, "v2_5m4h") for t in points.timestamp_ms.tolist()]
        structs = requests.point_structs(ids, points.vectors, contents)
        await connection.client.upsert(index.name, structs, wait=True)


async def test_an_older_state_that_was_restored_is_noticed(place: QdrantServer) -> None:
    from qdrant_client import models

    async with writing(place) as index:
        await index.begin_run("build", None, STARTED)
        await index.upsert(points_at(range(10), 1))
        async with reading(place) as reader:
            restored = await index.cache.reader.head()
            await index.upsert(points_at(range(5, 30), 2))
            assert len(await stored(reader)) == 30
            # As a snapshot would bring it back.
            client = index.connection.client
            await client.delete(index.name, models.Filter())
            await catalog.write_head(index.connection, index.name, restored, only_new=True)
            await cut_short(index, points_at(range(10), 1))
            assert same_points(await stored(reader), points_at(range(10), 1))


async def test_content_that_cannot_be_read_is_an_index_error(place: QdrantServer) -> None:
    async with writing(place) as index:
        await index.upsert(points_at(range(10)))
        client, name = index.connection.client, index.name
        id_ = point_id(SYMBOL, int(at([4])[0]), "v2_5m4h")
        for payload in ({"row": "AAAA"}, {"row": 7}, {"row": "%"}):
            await client.set_payload(name, payload, [id_], wait=True)
            async with reading(place) as reader:
                with pytest.raises(VectorIndexError, match=r"cannot read .*row"):
                    await stored(reader)
        await client.set_payload(name, {"written": "?"}, [layout.HEAD_ID], wait=True)
        with pytest.raises(VectorIndexError, match=r"cannot read .*head"):
            await QdrantIndex.open(place)
        await client.delete(name, [layout.HEAD_ID], wait=True)
        with pytest.raises(VectorIndexError, match=r"cannot read .*head"):
            await QdrantIndex.open(place)


async def test_the_text_vectors_own_space_is_told_with_each_point(place: QdrantServer) -> None:
    held = collection(text_space_id="text-of-tests", text_dimension=4)
    points = points_at(range(3))
    points = replace(points, vectors={STATE: points.vectors[STATE], "text": unit_vectors(3, 1, 4)})
    async with writing(place, held) as index:
        await index.upsert(points)
    async with reading(place) as reader:
        assert reader.collection == held
        assert same_points(await stored(reader), points)


@pytest.mark.parametrize("regime", [True, False])
@pytest.mark.soak
async def test_answers_equal_those_of_the_embedded_index_to_the_last_bit(
    place: QdrantServer, regime: bool
) -> None:
    points = past(range(2000), 4)
    # Twins, so that there are ties, also where a limit cuts.
    twins = np.arange(1000, 1400)
    points.values[:, twins] = points.values[:, twins - 600]
    points.vectors[STATE][twins] = points.vectors[STATE][twins - 600]
    config = SearchSpec(lookback_days=20, include_regime_filters=regime, min_similarity=0.2)
    async with index_of(points) as embedded, writing(place, COLLECTION) as index:
        await index.upsert(points)
        async with reading(place) as reader:
            ours, theirs = Retriever(reader, SPACE), Retriever(embedded, SPACE)
            for row, slot in [(500, 1999), (900, 1500), (1700, 1799), (1100, 1300), (3, 100)]:
                state = state_of(points, row, int(at([slot])[0]))
                answer = await ours.query(state, int(at([slot])[0]), config)
                expected = await theirs.query(state, int(at([slot])[0]), config)
                assert comparable(answer) == comparable(expected)


@pytest.mark.parametrize("quantization", ["none", pytest.param("int8", marks=pytest.mark.soak)])
@pytest.mark.soak
async def test_an_approximate_search_finds_nearly_all_that_an_exact_one_finds(
    place: QdrantServer, quantization: Any
) -> None:
    place = msgspec.structs.replace(place, quantization=quantization)
    points = points_at(range(3000), vectors=unit_vectors(3000, 1, 16))
    async with writing(place, collection(dimension=16)) as index:
        await index.upsert(points)
        async with (
            reading(place) as exact,
            reading(msgspec.structs.replace(place, approximate=True, hnsw_ef=64)) as approximate,
        ):
            report = await recall(exact, approximate, SYMBOL, Sampling(10, 20, 20, 1))
            assert report.mean > 0.9
            assert report.samples == 20
            everything = SearchQuery(SYMBOL, ALWAYS, points.vectors[STATE][0], 5000)
            hits = await approximate.search(everything)
            assert len(hits.rows) == hits.eligible == 3000
        info = await index.connection.client.get_collection(index.name)
        assert (info.config.quantization_config is not None) == (quantization == "int8")


async def test_a_run_that_began_is_not_overwritten_by_an_earlier_one(place: QdrantServer) -> None:
    async with writing(place) as early, writing(place) as late:
        await early.begin_run("early", None, STARTED)
        await late.begin_run("late", None, STARTED)
        head = await late.cache.reader.head()
        await catalog.write_head(early.connection, early.name, Head("early", 1, 1 << 24))
        assert await late.cache.reader.head() == head


async def test_a_reader_loses_what_another_program_removes(place: QdrantServer) -> None:
    async with writing(place) as index, reading(place) as reader:
        await index.begin_run("build", "bybit", STARTED)
        await index.upsert(points_at(range(10)))
        await index.upsert(points_at([1], symbol="ETHUSDT"))
        assert len(await reader.scan(SYMBOL, ALWAYS)) == 10
        assert await index.remove(SYMBOL, at([3, 4, 99])) == 2
        held = await reader.scan(SYMBOL, ALWAYS)
        assert held.timestamp_ms.tolist() == at([0, 1, 2, 5, 6, 7, 8, 9]).tolist()
        hits = await reader.search(SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 0)[0], 99))
        assert hits.eligible == len(hits.points) == 8
        # Caches stay afterwards: nothing is loaded anew for each answer.
        again = await reader.scan(SYMBOL, ALWAYS)
        assert again.version_token == hits.points.version_token
        assert len(await reader.scan("ETHUSDT", ALWAYS)) == 1


async def test_a_removal_that_was_killed_reaches_readers_with_the_next_run(
    place: QdrantServer,
) -> None:
    async with writing(place) as index, reading(place) as reader:
        await index.begin_run("build", "bybit", STARTED)
        await index.upsert(points_at(range(10)))
        assert len(await reader.scan(SYMBOL, ALWAYS)) == 10
        # What a removal leaves that is killed after its points are gone.
        head = await reader.cache.reader.head()
        begun = msgspec.structs.replace(head, removed=head.written + 1)
        await catalog.write_head(index.connection, index.name, begun)
        gone = [point_id(SYMBOL, int(at([5])[0]), collection().feature_version)]
        await index.connection.client.delete(index.name, requests.ids_of(gone), wait=True)
        assert len(await reader.scan(SYMBOL, ALWAYS)) == 10
        await index.begin_run("build", "bybit", STARTED)
        assert len(await reader.scan(SYMBOL, ALWAYS)) == 9
        await index.upsert(points_at([20]))
        assert len(await reader.scan(SYMBOL, ALWAYS)) == 10
        assert len((await reader.info()).runs) == 2


async def test_an_older_program_s_head_and_a_damaged_mark(place: QdrantServer) -> None:
    from qdrant_client import models

    assert layout.head_of({"token": "t", "run": 1, "written": 2}) == Head("t", 1, 2, 0)
    async with writing(place) as index:
        for payload in ({}, {"details": 3}, {"details": "{"}):
            point = models.PointStruct(id=layout.mark_id(SYMBOL), vector={}, payload=payload)
            await index.connection.client.upsert(index.name, [point], wait=True)
            with pytest.raises(VectorIndexError, match="data mark"):
                await index.data_mark(SYMBOL)


async def test_removing_gives_way_to_a_later_ingestion(place: QdrantServer) -> None:
    async with writing(place) as early, writing(place) as late:
        await early.begin_run("build", "bybit", STARTED)
        await early.upsert(points_at(range(3)))
        await late.begin_run("build", "bybit", STARTED)
        with pytest.raises(StoreLockedError, match="took over"):
            await early.remove(SYMBOL, at([1]))
        with pytest.raises(StoreLockedError, match="took over"):
            await early.set_data_mark(SYMBOL, DataMark(1, {}, 1))
        assert len(await late.timestamps(SYMBOL)) == 3
