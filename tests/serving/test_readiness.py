"""`/livez`, `/readyz` and `/openrpc.json` of a server on a real store and a real index."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.app.server import query_server
from llm_trader.market.config import MarketConfig
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis
from tests.cli.corridor import END_MS, SYMBOL, Corridor, copied
from tests.index import qdrant_stub
from tests.index.qdrant_stub import Stub
from tests.rpc.http.raw import Connection, Reply, call, http


@asynccontextmanager
async def client_of(
    settings: Settings, now_ms: Millis = END_MS, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Connection]:
    async with query_server(settings, environ or {}, lambda: now_ms) as server:
        await server.start()
        try:
            assert server.http_address is not None
            async with http(server.http_address) as client:
                yield client
        finally:
            await server.stop()


async def readiness(settings: Settings, **more: Any) -> Reply:
    async with client_of(settings, **more) as client:
        return await client.get("/readyz")


async def test_a_server_with_index_and_fresh_data_is_ready_and_says_why(corridor: Corridor) -> None:
    reply = await readiness(corridor.settings())
    assert (reply.status, reply.json["ready"]) == (200, True)
    checks = reply.json["checks"]
    assert {name: check["ok"] for name, check in checks.items()} == {
        "index": True,
        "market_store": True,
        "text_model": True,
    }
    assert "states of 2 symbols" in checks["index"]["reason"]
    assert checks["text_model"]["reason"] == "not used"


async def test_a_query_over_http_is_answered_as_over_tcp(corridor: Corridor) -> None:
    async with client_of(corridor.settings()) as client:
        params = {"symbol": SYMBOL, "timestamp": END_MS}
        reply = await client.post(call("rag.query_patterns", params))
        assert reply.status == 200
        assert len(reply.json["result"]["matches"]) == 5
        refused = await client.post(call("rag.query_patterns", {**params, "symbol": "NOSUCH"}))
        assert (refused.status, refused.json["error"]["code"]) == (200, -32002)


async def test_data_that_grew_old_makes_a_server_unready(corridor: Corridor) -> None:
    reply = await readiness(corridor.settings(), now_ms=END_MS + 31 * MINUTE_MS)
    assert (reply.status, reply.json["ready"]) == (503, False)
    check = reply.json["checks"]["market_store"]
    assert not check["ok"]
    assert "longer ago than 30 minutes (serving.max_data_age_minutes)" in check["reason"]
    assert reply.json["checks"]["index"]["ok"]


async def test_an_index_that_was_deleted_makes_a_server_unready(
    corridor: Corridor, tmp_path: Path
) -> None:
    folder = copied(corridor.index, tmp_path / "index")
    async with client_of(corridor.settings(index__path=folder)) as client:
        assert (await client.get("/readyz")).status == 200
        shutil.rmtree(folder)
        reply = await until_status(client, 503)
        assert (await client.get("/livez")).status == 200
    assert (reply.status, reply.json["ready"]) == (503, False)
    assert str(folder) in reply.json["checks"]["index"]["reason"]
    assert reply.json["checks"]["market_store"]["ok"]


@pytest.fixture
def qdrant(corridor: Corridor) -> Iterator[tuple[Stub, Settings]]:
    """A server of Qdrant that holds two days, and settings that name it."""
    with qdrant_stub.start() as stub:
        settings = corridor.settings(
            index__qdrant__url=stub.url,
            index__qdrant__grpc_port=stub.grpc_port,
            index__qdrant__retry_s=0.2,
        )
        first_ms = END_MS - 3 * DAY_MS
        ingest_from_store(Job(settings, {}, END_MS), [SYMBOL], first_ms, END_MS - DAY_MS)
        yield stub, settings


async def test_while_qdrant_is_away_a_server_is_unready_and_says_why(
    qdrant: tuple[Stub, Settings],
) -> None:
    stub, settings = qdrant
    query = call("rag.query_patterns", {"symbol": SYMBOL, "timestamp": END_MS})
    async with client_of(settings) as client:
        reply = await client.get("/readyz")
        assert (reply.status, reply.json["checks"]["qdrant"]["ok"]) == (200, True)
        assert (await client.post(query)).json["result"]["matches"]
        await asyncio.to_thread(stub.kill)
        reply = await until_status(client, 503)
        checks = reply.json["checks"]
        assert {name for name, check in checks.items() if not check["ok"]} == {"index", "qdrant"}
        reason = f"Qdrant at 127.0.0.1:{stub.grpc_port} refuses connections"
        assert reason in checks["qdrant"]["reason"]
        assert (await client.post(query)).json["error"]["code"] == -32003
        assert (await client.get("/livez")).status == 200
        await asyncio.to_thread(stub.launch)
        assert (await until_status(client, 200)).json["ready"]
        assert (await client.post(query)).json["result"]["matches"]


async def until_status(client: Connection, status: int) -> Reply:
    """What `/readyz` says once it has this status; it keeps an answer for a moment."""
    async with asyncio.timeout(20):
        while (reply := await client.get("/readyz")).status != status:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return reply


async def test_a_server_without_a_store_is_ready_for_whole_states(
    corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reply = await readiness(corridor.settings(market__store=MarketConfig().store))
    assert reply.status == 200
    assert "must contain their state" in reply.json["checks"]["market_store"]["reason"]


async def test_strangers_learn_whether_a_server_is_ready_but_not_why(corridor: Corridor) -> None:
    settings = corridor.settings(serving__auth_tokens_env="MY_TOKENS")
    async with client_of(settings, environ={"MY_TOKENS": "one"}) as client:
        assert (await client.get("/readyz")).json == {"ready": True}
        assert "checks" in (await client.get("/readyz", Authorization="Bearer one")).json
        assert (await client.get("/openrpc.json")).status == 401
        assert (await client.get("/livez")).status == 200


async def test_openrpc_json_is_what_rpc_discover_tells(corridor: Corridor) -> None:
    async with client_of(corridor.settings()) as client:
        page = await client.get("/openrpc.json")
        told = await client.post(call("rpc.discover"))
    assert (page.status, page.headers["content-type"]) == (200, "application/json")
    assert page.json == told.json["result"]
    assert "rag.query_patterns" in {method["name"] for method in page.json["methods"]}


async def test_http_can_be_left_out(corridor: Corridor) -> None:
    async with query_server(corridor.settings(serving__http=False), {}) as server:
        await server.start()
        assert server.http_address is None
        await server.stop()
