"""The files in `schemas/` describe what is really sent; an independent validator says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.serving.wire import REQUIRED_STATE
from llm_trader.snapshot.model import MarketSnapshot
from tests.cli.corridor import AT_MS, DAY_MS, SYMBOL, Corridor, answering

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
MOMENT = {"symbol": SYMBOL, "timestamp": AT_MS}
_RANGE = {"symbol": SYMBOL, "start": AT_MS - DAY_MS, "end": AT_MS}


@pytest.fixture
async def rag(corridor: Corridor) -> AsyncIterator[RpcClient]:
    async with answering(corridor) as client:
        yield client


def closed(schema: Any) -> Any:
    """The schema without leave for fields that it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        inner.setdefault("additionalProperties", False)
    return inner


def faults(name: str, document: Any) -> list[str]:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    errors = Draft202012Validator(closed(schema)).iter_errors(document)
    return [f"{error.json_path}: {error.message}"[:300] for error in errors]


@pytest.mark.parametrize("file", sorted(SCHEMAS.glob("*.json")), ids=lambda file: file.stem)
def test_each_file_is_a_schema(file: Path) -> None:
    Draft202012Validator.check_schema(json.loads(file.read_text(encoding="utf-8")))


async def test_every_method_has_the_schemas_of_its_parameters_and_its_result(
    rag: RpcClient,
) -> None:
    document = await rag.call("rpc.discover")
    for method in document["methods"]:
        name = method["name"].replace("_patterns", "").replace(".", "-").replace("_", "-")
        assert (SCHEMAS / f"{name}-request.json").is_file()
        assert (SCHEMAS / f"{name}-response.json").is_file()


@pytest.mark.parametrize(
    ("method", "name", "params"),
    [
        ("rag.query_patterns", "rag-query", MOMENT),
        ("rag.query_patterns", "rag-query", {**MOMENT, "query_config": {"detail": "full"}}),
        ("rag.query_patterns", "rag-query", {**MOMENT, "query_config": {"detail": "brief"}}),
        (
            "rag.query_batch",
            "rag-query-batch",
            {"queries": [MOMENT, {**MOMENT, "symbol": "NOSUCHUSDT"}], "timeout_ms": 60_000},
        ),
        ("rag.get_snapshot", "rag-get-snapshot", MOMENT),
        ("rag.get_candles", "rag-get-candles", {**_RANGE, "timeframe": "5m", "limit": 5}),
        ("rag.get_funding", "rag-get-funding", {**_RANGE, "timeout_ms": 60_000}),
        ("rag.get_open_interest", "rag-get-open-interest", _RANGE),
        ("rag.forecast_quality", "rag-forecast-quality", {"symbol": SYMBOL, "days": 7}),
        ("rag.stats", "rag-stats", {}),
        ("rpc.ping", "rpc-ping", {"timeout_ms": 1000}),
        ("rpc.authenticate", "rpc-authenticate", {"token": "any"}),
        ("rpc.discover", "rpc-discover", {}),
    ],
)
async def test_requests_and_real_replies_hold_to_their_schemas(
    rag: RpcClient, method: str, name: str, params: dict[str, Any]
) -> None:
    assert faults(f"{name}-request", params) == []
    assert faults(f"{name}-response", await rag.call(method, params)) == []


async def test_a_state_and_what_intakes_are_sent_hold_to_their_schemas(rag: RpcClient) -> None:
    snapshot = (await rag.call("rag.get_snapshot", MOMENT))["snapshot"]
    assert faults("market-snapshot", snapshot) == []
    typed = msgspec.convert(snapshot, MarketSnapshot)
    post = SnapshotPost(
        job_id="j", snapshot_id="s", deadline_ms=AT_MS, snapshot=typed, late=("funding",)
    )
    assert faults("snapshot-post-request", json.loads(msgspec.json.encode(post))) == []


@pytest.mark.parametrize(
    "params",
    [
        {"symbol": SYMBOL},
        {**MOMENT, "symbol": "btc"},
        {**MOMENT, "timestamp": 12},
        {**MOMENT, "query_config": {"top_k": 51}},
        {**MOMENT, "query_config": {"detail": "long"}},
        {**MOMENT, "current_state": {"price": 1.0}},
        {**MOMENT, "current_state": dict.fromkeys(REQUIRED_STATE, -1.0)},
        {**MOMENT, "timeout_ms": 0},
    ],
)
async def test_what_the_server_refuses_the_schema_refuses(
    rag: RpcClient, params: dict[str, Any]
) -> None:
    assert faults("rag-query-request", params)
    with pytest.raises(RpcError) as raised:
        await rag.call("rag.query_patterns", params)
    assert raised.value.rpc_code == -32602
    error = {"code": raised.value.rpc_code, "message": raised.value.message}
    assert faults("error", {**error, "data": raised.value.data}) == []
