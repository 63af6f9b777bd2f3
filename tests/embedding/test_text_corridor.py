"""Real data to text vectors to answers, with a real transformer. `make test-text` runs these."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, TEXT
from llm_trader.rpc.client import RpcClient
from llm_trader.timeframe import DAY_MS, HOUR_MS, parse_rfc3339
from tests.cli.corridor import console_script, serving_process
from tests.embedding import minilm
from tests.index.builders import ALWAYS
from tests.redis_server import redis_server

pytestmark = pytest.mark.text_model
if reason := minilm.missing():
    pytest.skip(reason, allow_module_level=True)

START, END = "2026-03-10T00:00:00Z", "2026-03-17T00:00:00Z"
AT_MS = parse_rfc3339(END) + DAY_MS


class Place(NamedTuple):
    store: Path
    index: Path
    environ: dict[str, str]
    reports: list[dict[str, Any]]


def run(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, env=env, timeout=110)


@pytest.fixture(scope="module")
def place(
    real_data: Path, minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A week of BTC with both vectors; every command is given the model and a Redis."""
    folder = tmp_path_factory.mktemp("corridor")
    with redis_server() as redis:
        environ = os.environ | {
            "LLM_TRADER_MARKET__STORE": str(folder / "store"),
            "LLM_TRADER_INDEX__PATH": str(folder / "index"),
            "LLM_TRADER_EMBEDDING__TEXT__ENABLED": "true",
            "LLM_TRADER_EMBEDDING__TEXT__MODEL": minilm.NAME,
            "LLM_TRADER_EMBEDDING__TEXT__MODEL_PATH": str(minilm_folder),
            "LLM_TRADER_CACHE__REDIS_URL": redis.url,
            "LLM_TRADER_SERVING__MIN_MATCHES": "1",
        }
        data = real_data / "bybit_5m_2025-09_2026-03"
        program = console_script("llm-trader")
        imported = run(program, "data", "import", str(data), "--exchange", "bybit", env=environ)
        assert imported.returncode == 0, imported.stderr
        ingested = run(
            *(console_script("rag-ingest"), "--symbols", "BTCUSDT"),
            *("--start", START, "--end", END, "--json"),
            env=environ,
        )
        assert ingested.returncode == 0, ingested.stderr
        yield Place(folder / "store", folder / "index", environ, json.loads(ingested.stdout))


async def asked(port: int, vector: str) -> dict[str, Any]:
    async with await RpcClient.connect("127.0.0.1", port) as client:
        query_config = {"vector": vector, "min_similarity": 0, "include_regime_filters": False}
        params = {"symbol": "BTCUSDT", "timestamp": AT_MS, "query_config": query_config}
        answer: dict[str, Any] = await client.call("rag.query_patterns", params)
        return answer


def test_a_week_of_real_data_gets_text_vectors_and_a_second_run_adds_nothing(
    place: Place,
) -> None:
    (report,) = place.reports
    assert (report["added"], report["refused"]) == (673, {})
    with EmbeddedIndex.open(place.index) as index:
        assert index.collection.text_dimension == 384
        name, digest, *_ = str(index.collection.text_model).split()
        assert (name, len(digest)) == (minilm.NAME, 16)
        points = asyncio.run(index.scan("BTCUSDT", ALWAYS, (STATE, TEXT)))
    assert points.vectors[TEXT].shape == (673, 384)
    again = run(
        *(console_script("rag-ingest"), "--symbols", "BTCUSDT"),
        *("--start", START, "--end", END, "--json"),
        env=place.environ,
    )
    (report,) = json.loads(again.stdout)
    assert (report["already_there"], report["added"]) == (673, 0)


def test_queries_by_text_and_by_both_are_answered_with_matches_known_by_then(
    place: Place,
) -> None:
    with serving_process(env=place.environ) as (_, port):
        by = {of: asyncio.run(asked(port, of)) for of in ("state", "text", "hybrid")}
    for vector, answer in by.items():
        stamps = sorted(match["timestamp"] for match in answer["matches"])
        assert len(stamps) == 5
        assert max(match["resolved_at"] for match in answer["matches"]) <= AT_MS
        assert min(b - a for a, b in itertools.pairwise(stamps)) >= 4 * HOUR_MS
        assert answer["metadata"]["vector"] == vector
    models = {vector: answer["metadata"]["embedding_model"] for vector, answer in by.items()}
    assert models["hybrid"] == f"{models['state']}+{models['text']}"
    assert by["text"]["matches"] != by["state"]["matches"]
    assert by["text"]["evidence"]["novelty"]["nearest_similarity"] > 0.9


def test_a_text_query_that_was_asked_before_is_found_by_another_server(place: Place) -> None:
    with serving_process(env=place.environ) as (_, port):
        first = asyncio.run(asked(port, "text"))
    with serving_process(env=place.environ) as (_, port):
        again = asyncio.run(asked(port, "text"))
    assert [m["similarity"] for m in again["matches"]] == [
        m["similarity"] for m in first["matches"]
    ]


@pytest.mark.parametrize("vector", ["text", "hybrid"])
def test_answers_by_text_leak_nothing(place: Place, vector: str) -> None:
    checked = run(
        *(console_script("llm-trader"), "leak-check", "--samples", "10", "--vector", vector),
        "--json",
        env=place.environ,
    )
    assert checked.returncode == 0, checked.stderr + checked.stdout
    report = json.loads(checked.stdout)
    assert report["leaks"] == []
    assert report["states_rebuilt"] > 0


def test_another_model_than_the_index_was_made_with_is_refused(place: Place) -> None:
    compact = place.environ | {"LLM_TRADER_EMBEDDING__TEXT__FORM": "compact"}
    refused = run(console_script("rag-rpc-server"), "--port", "0", env=compact)
    assert refused.returncode == 2
    assert "the index holds vectors of text-" in refused.stderr
    ingested = run(console_script("rag-ingest"), "--symbols", "BTCUSDT", env=compact)
    assert ingested.returncode == 2
    assert "text_space_id is text-" in ingested.stderr


def test_without_the_model_a_server_that_shall_answer_by_text_says_how_to_get_it(
    place: Place, tmp_path: Path
) -> None:
    without = {k: v for k, v in place.environ.items() if "MODEL" not in k} | {
        "LLM_TRADER_EMBEDDING__TEXT__CACHE_DIR": str(tmp_path)
    }
    refused = run(console_script("rag-rpc-server"), "--port", "0", "--vector", "text", env=without)
    assert refused.returncode == 2
    assert "llm-trader models pull" in refused.stderr
