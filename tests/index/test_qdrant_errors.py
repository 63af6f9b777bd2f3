"""When Qdrant cannot be reached, refuses, or dies: what is raised, and what is tried again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import structs

from llm_trader.errors import ConfigurationError, VectorIndexError
from llm_trader.index.points import STATE, PointTable
from llm_trader.index.protocol import SearchQuery
from llm_trader.index.qdrant import layout
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.errors import failure_of
from tests.index import qdrant_stub
from tests.index.builders import ALWAYS, SYMBOL, collection, points_at, stored, unit_vectors
from tests.index.qdrant_places import place_at
from tests.index.qdrant_stub import Stub

SECRET = "k-5f2c-secret"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Stub]:
    """A stub that wants a key, to be mistreated."""
    with qdrant_stub.start(api_key=SECRET) as stub:
        yield stub


@pytest.fixture
def server(guarded: Stub) -> Iterator[Stub]:
    guarded.behave()
    yield guarded
    guarded.behave()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("UNAVAILABLE", "cannot be reached; is it running"),
        ("DEADLINE_EXCEEDED", "did not answer within 10 s"),
        ("UNAUTHENTICATED", r"does not accept the API key in \$MY_KEY"),
        ("PERMISSION_DENIED", "one with more rights"),
        ("RESOURCE_EXHAUSTED", "memory, disk and limits"),
        ("NOT_FOUND", "rag-ingest --qdrant-url http://127.0.0.1"),
        ("INVALID_ARGUMENT", "refuses the request"),
        ("UNIMPLEMENTED", "does not know this call; is index.qdrant.grpc_port"),
        ("INTERNAL", "look at its log"),
        ("DATA_LOSS", "look at its log"),
    ],
)
async def test_what_the_server_refuses_is_told_with_its_address_and_a_remedy(
    server: Stub, code: str, told: str
) -> None:
    server.fail_next(1000, code)
    place = structs.replace(place_at(server, retry_s=0.0), api_key_env="MY_KEY")
    with pytest.raises(VectorIndexError, match=told) as refusal:
        await QdrantIndex.open(place)
    assert f"127.0.0.1:{server.grpc_port}" in refusal.value.message
    assert SECRET not in refusal.value.message


async def test_nobody_listening_is_told_with_the_command_that_starts_a_server() -> None:
    place = QdrantServer(url="http://127.0.0.1:1", grpc_port=1, retry_s=0.2)
    with pytest.raises(VectorIndexError, match=r"127.0.0.1:1 refuses .* docker compose up -d"):
        await QdrantIndex.open(place)


async def test_a_name_that_is_not_known_is_told_as_one() -> None:
    place = QdrantServer(url="http://no-such-host.invalid:6333", retry_s=0.0)
    with pytest.raises(VectorIndexError, match=r"cannot be resolved; check index\.qdrant\.url"):
        await QdrantIndex.open(place)


async def test_tls_to_a_server_without_it_is_told_and_not_tried_again(server: Stub) -> None:
    secure = place_at(server, url=server.url.replace("http", "https"), retry_s=60)
    with pytest.raises(VectorIndexError, match="fails at TLS"):
        await QdrantIndex.open(secure)


async def test_a_port_of_another_service_is_told_as_one(server: Stub) -> None:
    with pytest.raises(VectorIndexError, match=r"check index\.qdrant\.grpc_port"):
        await QdrantIndex.open(place_at(server, grpc_port=server.http_port, retry_s=0.0))


async def test_a_missing_authority_file_is_a_fault_of_the_settings() -> None:
    place = QdrantServer(url="https://localhost:6333", ca_file=Path("/nowhere/ca.pem"))
    with pytest.raises(ConfigurationError, match=r"ca_file /nowhere/ca\.pem cannot be read"):
        await QdrantIndex.open(place)


async def test_a_missing_or_wrong_key_is_told_by_the_name_of_its_variable(server: Stub) -> None:
    with pytest.raises(VectorIndexError, match="wants an API key"):
        await QdrantIndex.open(place_at(server, api_key=None))
    wrong = place_at(server, api_key="wr0ng-key", api_key_env="MY_KEY")
    with pytest.raises(VectorIndexError, match=r"does not accept the API key in \$MY_KEY"):
        await QdrantIndex.open(wrong)


async def test_the_key_is_never_shown(server: Stub) -> None:
    place = place_at(server, url=server.url.replace("//", "//user:pass-word@"))
    assert SECRET not in repr(place)
    echoed = failure_of(RuntimeError(f"key {SECRET} of header api-key"), place, "asking")
    assert SECRET not in str(echoed.error)
    server.fail_next(2, "UNAVAILABLE")
    with structlog.testing.capture_logs() as logs, pytest.raises(VectorIndexError) as missing:
        await QdrantIndex.open(structs.replace(place, retry_s=5.0))
    assert [log["event"] for log in logs] == ["qdrant_call_repeated"]
    for text in (str(missing.value), repr(missing.value.details), repr(logs)):
        assert SECRET not in text
        assert "pass-word" not in text


async def test_without_the_extra_the_command_that_installs_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ConfigurationError, match=r'pip install "llm-trader-rag\[qdrant\]"'):
        await QdrantIndex.open(QdrantServer(url="http://localhost:6333"))


async def test_a_lost_connection_is_tried_again_until_it_is_there(server: Stub) -> None:
    place = place_at(server, retry_s=30.0)
    async with await QdrantIndex.create_or_open(place, collection()) as index:
        await index.upsert(points_at(range(5)))
        for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            server.fail_next(3, code)
            assert len(await stored(index)) == 5


async def test_a_write_whose_reply_was_lost_is_repeated_and_counted_once(server: Stub) -> None:
    place = place_at(server, retry_s=30.0)
    server.fail_next(1, "UNAVAILABLE", applied=True, methods=["Collections/Create"])
    async with await QdrantIndex.create_or_open(place, collection()) as index:
        server.fail_next(1, "UNAVAILABLE", applied=True, methods=["Points/Upsert"])
        assert await index.begin_run("build", None, "2026-03-20T12:00:00Z") == 1
        server.fail_next(2, "UNAVAILABLE", applied=True, methods=["Points/Upsert"])
        assert await index.upsert(points_at(range(8))) == 8
        assert len(await stored(index)) == 8


async def test_a_limited_rate_is_waited_for_as_long_as_the_server_says(server: Stub) -> None:
    async with await QdrantIndex.create_or_open(place_at(server), collection()) as index:
        await index.upsert(points_at(range(5)))
    async with Connection(place_at(server, retry_s=30.0)) as connection:
        server.fail_next(1, "RESOURCE_EXHAUSTED", retry_after_s=1)
        await connection.call("asking", lambda client: client.get_collections())
    async with Connection(place_at(server, retry_s=0.2)) as connection:
        server.fail_next(1, "RESOURCE_EXHAUSTED", retry_after_s=1)
        with pytest.raises(VectorIndexError, match="out of resources"):
            await connection.call("asking", lambda client: client.get_collections())


async def test_a_server_that_does_not_answer_is_given_up_on(server: Stub) -> None:
    server.delay(2000)
    with pytest.raises(VectorIndexError, match=r"did not answer within 0.1 s"):
        await QdrantIndex.open(place_at(server, timeout_s=0.1, retry_s=0.3))


async def test_a_server_that_is_slow_to_let_in_is_waited_for(server: Stub) -> None:
    """As one far away is, or on a busy machine."""
    async with Connection(place_at(server, retry_s=0.0)) as connection:
        server.process.send_signal(signal.SIGSTOP)
        asking = asyncio.create_task(connection.call("asking", lambda c: c.get_collections()))
        await asyncio.sleep(0.3)
        server.process.send_signal(signal.SIGCONT)
        assert (await asking).collections is not None


async def test_a_caller_that_gives_up_ends_the_tries_at_once(server: Stub) -> None:
    async with Connection(place_at(server, retry_s=600.0)) as connection:
        server.fail_next(10_000, "UNAVAILABLE")
        asking = asyncio.create_task(connection.call("asking", lambda c: c.get_collections()))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        server.behave()
        server.forget_calls()
        await connection.call("asking", lambda client: client.get_collections())
        assert server.calls().get("Collections/List") == 1


async def test_a_query_outlives_the_server_being_killed_and_started_again(tmp_path: Path) -> None:
    points = points_at(range(300))
    asked = SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 1)[0], 7)
    with qdrant_stub.start() as server:
        place = place_at(server, retry_s=60.0)
        async with await QdrantIndex.create_or_open(place, collection()) as index:
            await index.upsert(points)
            before = await index.search(asked)
            server.delay(500, methods=["Points/QueryBatch"])
            under_way = asyncio.create_task(index.search(asked))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.restart)
            for hits in (await under_way, await index.search(asked)):
                assert hits.cosine.tolist() == before.cosine.tolist()
                assert hits.rows.tolist() == before.rows.tolist()
            assert await index.upsert(points_at(range(299, 303))) == 3


async def test_all_who_wait_for_a_lost_server_are_told_at_once(server: Stub) -> None:
    place = place_at(server, retry_s=0.6)
    async with await QdrantIndex.create_or_open(place, collection()) as index:
        await index.upsert(points_at(range(5)))
        async with await QdrantIndex.open(place) as reader:
            now = asyncio.get_running_loop().time
            for work in ("cold", "warm"):
                server.fail_next(10_000)
                begun = now()
                asked = [stored(reader) for _ in range(10)]
                failed = await asyncio.gather(*asked, return_exceptions=True)
                assert now() - begun < 2, work
                assert all(isinstance(error, VectorIndexError) for error in failed), failed
                assert len({str(error) for error in failed}) == 1
                server.behave()
                assert len(await stored(reader)) == 5


async def test_a_closed_index_answers_with_an_index_error(server: Stub) -> None:
    async with await QdrantIndex.create_or_open(place_at(server), collection()) as index:
        await index.upsert(points_at([1, 2]))
    await index.aclose()
    for ask in (stored(index), index.info(), index.timestamps(SYMBOL)):
        with pytest.raises(VectorIndexError, match="closed"):
            await ask


@pytest.mark.parametrize(
    "kind", [AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError]
)
async def test_a_bug_of_ours_in_a_call_surfaces_as_itself_and_is_not_repeated(
    kind: type[Exception],
) -> None:
    calls = 0

    async def ask(client: object) -> None:
        nonlocal calls
        calls += 1
        raise kind("a bug")

    async with Connection(QdrantServer(url="http://localhost:6333")) as connection:
        with pytest.raises(kind, match="a bug"):
            await connection.call("asking", ask)
    assert calls == 1


async def test_what_the_client_itself_raises_is_an_index_error() -> None:
    from qdrant_client import AsyncQdrantClient

    client = AsyncQdrantClient(":memory:")
    async with Connection(QdrantServer(url="http://memory.invalid"), client) as connection:
        with pytest.raises(VectorIndexError, match="Collection nowhere not found"):
            await connection.call("asking", lambda client: client.get_collection("nowhere"))
        await client.close()
        with pytest.raises(VectorIndexError, match="closed"):
            await connection.call("asking", lambda client: client.count("nowhere"))


async def test_a_bug_in_our_decoding_surfaces_as_itself(
    server: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arrays: object) -> PointTable:
        raise ValueError("a bug")

    async with await QdrantIndex.create_or_open(place_at(server), collection()) as index:
        await index.upsert(points_at(range(5)))
        monkeypatch.setattr(layout, "PointTable", broken)
        with pytest.raises(ValueError, match="a bug"):
            await index.fetch(SYMBOL, points_at(range(5)).timestamp_ms)


def test_points_that_are_not_the_clients_are_a_bug_and_no_reply_that_cannot_be_read() -> None:
    for decode in (layout.stamps_of, lambda points: layout.vectors_of(points, STATE, 6)):
        with pytest.raises(AttributeError):
            decode([object()])
        with pytest.raises(TypeError):
            decode(5)


@pytest.mark.parametrize(
    "content",
    [
        {"payload": None, "vector": None},
        {"payload": {}, "vector": {}},
        {"payload": {"timestamp": "today", "row": 5}, "vector": {STATE: [1.0, 2.0]}},
        {"payload": {"row": "ä", "timestamp": 1.5}},
        {"payload": {"row": "AAAA"}},
    ],
    ids=["nothing", "empty", "other types", "no base64", "too short"],
)
def test_stored_content_of_another_kind_cannot_be_read(content: dict[str, Any]) -> None:
    from qdrant_client.models import ScoredPoint

    point = ScoredPoint(id=1, version=1, score=1, **content)
    for decode in (
        layout.stamps_of,
        lambda points: layout.vectors_of(points, STATE, 6),
        lambda points: layout.table_of(SYMBOL, points, {}),
        lambda points: layout.run_of(points[0].payload),
        lambda points: layout.head_of(points[0].payload),
    ):
        with pytest.raises(layout.UnreadableError):
            decode([point])
