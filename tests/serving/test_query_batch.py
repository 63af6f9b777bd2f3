"""`rag.query_batch` over sockets: what single queries answer; others get through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest

from llm_trader.app.server import query_server
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.serving.wire import REQUIRED_STATE, QueryBatchResult
from tests.cli.corridor import AT_MS, QUARTER_MS, SYMBOL, SYMBOLS, Corridor, answering

# What differs between two answers to the same question.
OF_THE_REQUEST = {
    *("request_id", "query_duration_ms", "query_duration_us"),
    *("embedding_duration_ms", "retrieval_duration_ms"),
}


@pytest.fixture
async def rag(corridor: Corridor) -> AsyncIterator[RpcClient]:
    async with answering(corridor) as client:
        yield client


def comparable(result: dict[str, Any]) -> bytes:
    metadata = {k: v for k, v in result["metadata"].items() if k not in OF_THE_REQUEST}
    return msgspec.json.encode({**result, "metadata": metadata})


def questions(corridor: Corridor, count: int) -> list[dict[str, Any]]:
    """Of both symbols, with and without a state, at times in no order."""
    rng = np.random.default_rng(3)
    ten = corridor.fields_at(AT_MS, *REQUIRED_STATE)
    asked = []
    for number in range(count):
        query: dict[str, Any] = {
            "symbol": SYMBOLS[number % 2],
            "timestamp": AT_MS - int(rng.integers(0, 800)) * QUARTER_MS,
        }
        if number % 3 == 1:
            query |= {"symbol": SYMBOL, "timestamp": AT_MS, "current_state": ten}
        if number % 4 == 1:
            query["query_config"] = {"top_k": 9, "lookback_days": 20}
        asked.append(query)
    return asked


async def test_the_answers_are_those_of_single_queries(corridor: Corridor, rag: RpcClient) -> None:
    asked = questions(corridor, 40)
    batch = await rag.call("rag.query_batch", {"queries": asked})
    assert [sorted(answer) for answer in batch["answers"]] == [["result"]] * len(asked)
    for query, answer in zip(asked, batch["answers"], strict=True):
        single = await rag.call("rag.query_patterns", query)
        assert comparable(answer["result"]) == comparable(single)
    assert msgspec.convert(batch, QueryBatchResult).metadata.refused == 0


async def test_a_config_holds_for_all_queries_that_do_not_say_otherwise(rag: RpcClient) -> None:
    moment = {"symbol": SYMBOL, "timestamp": AT_MS}
    own = {**moment, "query_config": {"top_k": 4}}
    params = {"queries": [moment, own], "query_config": {"top_k": 7, "detail": "brief"}}
    first, second = (await rag.call("rag.query_batch", params))["answers"]
    assert len(first["brief"]["matches"]) == 5
    assert len(second["brief"]["matches"]) == 4


async def test_an_error_is_of_its_query_alone(rag: RpcClient) -> None:
    moment = {"symbol": SYMBOL, "timestamp": AT_MS}
    asked = [
        moment,
        {**moment, "symbol": "NOSUCHUSDT"},
        {**moment, "query_config": {"stop_pct": 1.0}},
        {**moment, "query_config": {"min_similarity": 1.0}},
        {**moment, "unknown": 1},
    ]
    batch = await rag.call("rag.query_batch", {"queries": asked})
    codes = [answer.get("error", {}).get("code") for answer in batch["answers"]]
    assert codes == [None, -32002, -32602, -32001, None]
    assert batch["metadata"]["refused"] == 3
    assert batch["metadata"]["unknown_fields"] == ["queries[4].unknown"]
    assert batch["answers"][4]["result"]["metadata"]["unknown_fields"] == ["unknown"]
    assert batch["answers"][0]["result"]["metadata"]["unknown_fields"] == []


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_1_to_1000_queries(rag: RpcClient, count: int) -> None:
    queries = [{"symbol": SYMBOL, "timestamp": AT_MS}] * count
    with pytest.raises(RpcError) as raised:
        await rag.call("rag.query_batch", {"queries": queries})
    assert raised.value.rpc_code == -32602


async def test_pings_and_queries_of_others_are_answered_while_a_batch_is_under_way(
    corridor: Corridor,
) -> None:
    async with query_server(corridor.settings(), {}) as server:
        await server.start()
        try:
            async with (
                await RpcClient.connect(*server.address, timeout_s=60) as one,
                await RpcClient.connect(*server.address) as other,
            ):
                params = {"queries": questions(corridor, 400)}
                batch = asyncio.create_task(one.call("rag.query_batch", params))
                await asyncio.sleep(0.05)
                for _ in range(5):
                    await other.call("rpc.ping")
                query = {"symbol": SYMBOL, "timestamp": AT_MS}
                await other.call("rag.query_patterns", query)
                assert not batch.done()
                assert (await batch)["metadata"]["refused"] == 0
        finally:
            await server.stop()


async def test_a_batch_answers_what_it_reached_by_its_timeout_and_frees_the_server(
    corridor: Corridor, rag: RpcClient
) -> None:
    asked = questions(corridor, 1000)
    await rag.call("rag.query_batch", {"queries": asked[:200]})  # now their days are in memory
    started_s = time.monotonic()
    await rag.call("rag.query_batch", {"queries": asked[:200]})
    # So long that it reaches some, and too short for five times as many.
    timeout_ms = max(round((time.monotonic() - started_s) * 2000), 250)
    before = (await rag.call("rag.stats"))["queries_answered"]
    batch = await rag.call("rag.query_batch", {"queries": asked, "timeout_ms": timeout_ms})
    errors = [answer["error"] for answer in batch["answers"] if "error" in answer]
    assert {error["code"] for error in errors} == {-32013}
    assert 0 < len(errors) == batch["metadata"]["refused"] < 1000
    reached = 1000 - len(errors)
    assert f"the batch reached {reached} of its 1000 queries" in errors[0]["message"]
    await rag.call("rpc.ping")
    assert (await rag.call("rag.stats"))["queries_answered"] == before + reached


async def test_a_batch_that_reached_nothing_by_its_timeout_is_an_error(
    corridor: Corridor, rag: RpcClient
) -> None:
    params = {"queries": questions(corridor, 1000), "timeout_ms": 1}
    with pytest.raises(RpcError) as raised:
        await rag.call("rag.query_batch", params)
    assert raised.value.rpc_code == -32013
    assert (await rag.call("rag.stats"))["queries_answered"] == 0


async def test_calls_beyond_the_size_of_a_reply_are_refused_one_by_one(corridor: Corridor) -> None:
    async with answering(corridor, serving__max_batch_reply_kib=64) as client:
        queries = [{"symbol": SYMBOL, "timestamp": AT_MS}] * 12
        batch = await client.call("rag.query_batch", {"queries": queries})
        codes = [answer.get("error", {}).get("code") for answer in batch["answers"]]
        assert codes == sorted(codes, key=lambda code: code is not None)
        assert set(codes) == {None, -32012}
        again = await client.call("rag.query_batch", {"queries": queries[:2]})
        assert again["metadata"]["refused"] == 0
