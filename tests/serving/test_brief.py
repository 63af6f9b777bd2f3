"""The small answer, over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from llm_trader.rpc.client import RpcClient
from llm_trader.serving.brief import BriefResult
from tests.cli.corridor import AT_MS, SYMBOL, Corridor, answering

HORIZONS = ("15m", "1h", "4h", "24h")


@pytest.fixture
async def rag(corridor: Corridor) -> AsyncIterator[RpcClient]:
    async with answering(corridor) as client:
        yield client


async def ask(client: RpcClient, more: dict[str, Any] | None = None, **config: Any) -> Any:
    params = {"symbol": SYMBOL, "timestamp": AT_MS, "query_config": config, **(more or {})}
    return await client.call("rag.query_patterns", params)


async def test_a_brief_answer_has_the_numbers_of_the_whole_one_in_the_same_places(
    rag: RpcClient,
) -> None:
    whole, brief = await ask(rag, top_k=8), await ask(rag, top_k=8, detail="brief")
    assert len(whole["matches"]) == 8
    assert brief["matches"] == [
        {
            "similarity": round(match["similarity"], 4),
            "timestamp": match["timestamp"],
            "outcomes": {
                f"outcome_{h}": round(match["outcomes"][f"outcome_{h}"], 3) for h in HORIZONS[1:]
            },
        }
        for match in whole["matches"][:5]
    ]
    assert brief["evidence"] == {
        "verdict": whole["evidence"]["verdict"],
        "reason": whole["evidence"]["reason"],
        "horizons": {
            h: {
                name: {
                    part: round(whole["evidence"]["horizons"][h][name][part], 3)
                    for part in ("value", "base_rate")
                }
                for name in ("mean", "p10", "p50", "p90")
            }
            for h in HORIZONS
        },
    }
    assert brief["metadata"]["as_of"] == whole["metadata"]["as_of"] == AT_MS
    assert brief["metadata"]["state_as_of"] == whole["metadata"]["state_as_of"]


async def test_a_brief_answer_takes_under_2_kb_whatever_a_client_misspells(rag: RpcClient) -> None:
    misspelt = {f"{'x' * 60}{i}": 1 for i in range(50)}
    answer = await ask(rag, misspelt, top_k=50, detail="brief")
    assert len(msgspec.json.encode(answer)) < 2048
    assert msgspec.convert(answer, BriefResult)
    assert answer["metadata"]["warnings"][-1].endswith("more")


async def test_normal_is_the_detail_of_who_names_none(rag: RpcClient) -> None:
    unnamed, normal = await ask(rag), await ask(rag, detail="normal")
    for part in ("matches", "statistics", "evidence"):
        assert msgspec.json.encode(unnamed[part]) == msgspec.json.encode(normal[part])
