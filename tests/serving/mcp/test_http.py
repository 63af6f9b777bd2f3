"""`POST /mcp` of a real server, asked by the SDK's own client and by hand."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from llm_trader.app.server import query_server
from llm_trader.errors import ConfigurationError
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.retrieval.cohort.conditions import CONDITIONS, looks
from llm_trader.rpc.client import RpcClient
from llm_trader.rpc.key_file import create_key
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.wire import QueryPatternsResult
from llm_trader.timeframe import iso8601
from tests.audit.builders import files, lines
from tests.cli.corridor import AT_MS, END_MS, QUARTER_MS, SYMBOL, SYMBOLS, Corridor
from tests.llm.record.decisions import recorded
from tests.rpc.http.raw import Reply, get, http, post
from tests.serving.mcp.clients import ARGUMENTS, AS_OF, COHORT, answer, assistant, serving

_MODERN = {
    "Accept": "application/json, text/event-stream",
    "MCP_Protocol_Version": "2026-07-28",
}
_ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_every_tool_answers_by_its_schema_and_only_reads(
    corridor: Corridor, mode: str, version: str
) -> None:
    async with serving(corridor) as at, assistant(at.url, mode=mode) as client:
        assert client.protocol_version == version
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == [*ARGUMENTS]
        assert len(tools) <= 8
        for tool in tools:
            assert tool.annotations.read_only_hint
            assert not tool.annotations.destructive_hint
            Draft202012Validator(tool.input_schema).validate(ARGUMENTS[tool.name])
            result = await client.call_tool(tool.name, ARGUMENTS[tool.name])
            # Clients in Python and in JavaScript read schemas by different drafts.
            for validator in (Draft202012Validator, Draft7Validator):
                validator(tool.output_schema).validate(result.structured_content)
            assert json.loads(result.content[0].text) == result.structured_content
            assert len(result.content[0].text) < 8000
            receipt = result.structured_content["receipt"]
            assert receipt["arguments"].items() >= ARGUMENTS[tool.name].items()
            assert receipt["reproducible"] is (tool.name not in ("data_status", "decisions"))


async def test_tools_tell_what_the_methods_of_json_rpc_tell(corridor: Corridor) -> None:
    async with (
        serving(corridor) as at,
        assistant(at.url) as client,
        await RpcClient.connect(*at.rpc) as rpc,
    ):
        moment = {"symbol": SYMBOL, "timestamp": AT_MS}
        config = {"top_k": 3, "stop_pct": 1.0, "target_pct": 1.5}
        params = moment | {"query_config": config}
        whole = await rpc.call("rag.query_patterns", params, QueryPatternsResult)
        similar = await answer(client, "similar_states", **ARGUMENTS["similar_states"])
        assert [m["timestamp"] for m in similar["matches"]] == [m.timestamp for m in whole.matches]
        forecast = await answer(client, "forecast", **ARGUMENTS["forecast"])
        for name, horizon in whole.evidence.horizons.items():
            told = forecast["horizons"][name]
            assert told["p_up"] == horizon.forecast.p_up
            assert told["quantiles"]["p10"] == horizon.forecast.quantiles[9]
            assert told["similar_p_up"]["base_rate"] == horizon.p_up.base_rate
        assert forecast["verdict"] == whole.evidence.verdict
        state = await answer(client, "market_state", **ARGUMENTS["market_state"])
        assert state["state"] == (await rpc.call("rag.get_snapshot", moment, dict))["snapshot"]
        status = await answer(client, "data_status")
        assert [symbol["symbol"] for symbol in status["symbols"]] == sorted(SYMBOLS)


async def test_a_conversation_opens_ranks_and_refines_a_cohort(corridor: Corridor) -> None:
    async with serving(corridor) as at, assistant(at.url) as client:
        cohort = await answer(client, "cohort_open", symbol=SYMBOL, as_of=AS_OF)
        assert cohort["cohort"] == COHORT
        ranking = await answer(client, "cohort_rank", cohort=COHORT)
        assert {entry["condition"] for entry in ranking["ranking"]} == set(CONDITIONS)
        best = ranking["ranking"][0]
        refined = await answer(
            client, "cohort_refine", cohort=COHORT, conditions=[best["condition"]]
        )
        assert refined["outcomes"]["states"] == best["states"]
        assert refined["outcomes"]["looks"] == looks(1)


async def test_a_question_without_a_time_is_about_now(corridor: Corridor) -> None:
    async with serving(corridor) as at, assistant(at.url) as client:
        now = await answer(client, "forecast", symbol=SYMBOL)
        assert now["as_of"] == iso8601(END_MS)
        assert now["receipt"]["arguments"]["as_of"] == iso8601(END_MS)
        assert now["receipt"]["as_of"] == END_MS


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("forecast", {"symbol": "DOGEUSDT", "as_of": AS_OF}, "DOGEUSDT"),
        ("forecast", {"symbol": SYMBOL, "as_of": "noon"}, "'noon' is not RFC 3339"),
        ("forecast", {"symbol": SYMBOL, "as_of": "2099-01-01T00:00:00Z"}, "candle is too old"),
        ("forecast", {"symbol": SYMBOL, "stop_pct": 1}, "a stop without a target"),
        ("similar_states", {"symbol": SYMBOL, "top_k": 99}, "top_k"),
        ("similar_states", {"symbol": SYMBOL, "top": 9}, r"top.*is no argument"),
        ("cohort_refine", {"cohort": COHORT, "conditions": ["trend=side"]}, "choose from"),
        ("cohort_rank", {"cohort": "x"}, "no name of a cohort"),
        ("market_state", {}, "symbol"),
    ],
)
async def test_a_wrong_question_is_answered_with_what_is_wrong(
    corridor: Corridor, tool: str, arguments: dict[str, Any], told: str
) -> None:
    async with serving(corridor) as at, assistant(at.url) as client:
        result = await client.call_tool(tool, arguments)
        assert result.is_error
        assert result.structured_content is None
        with pytest.raises(AssertionError, match=told):
            raise AssertionError(result.content[0].text)


async def test_an_unknown_tool_is_refused_with_the_nearest(corridor: Corridor) -> None:
    from mcp.shared.exceptions import MCPError

    async with serving(corridor) as at, assistant(at.url) as client:
        with pytest.raises(MCPError, match=r"no tool 'forecasts'; did you mean forecast\?"):
            await client.call_tool("forecasts", {})


async def test_decisions_are_those_on_record(corridor: Corridor, tmp_path: Path) -> None:
    with DecisionRecord.open(tmp_path / "record") as record:
        for number in range(3):
            record.decisions.add(recorded(key=str(number)))
        record.decisions.add(recorded(symbol="ETHUSDT"))
    settings = {"decisions__record": tmp_path / "record"}
    async with serving(corridor, **settings) as at, assistant(at.url) as client:
        told = await answer(client, "decisions", symbol=SYMBOL, limit=2)
        assert (told["recorded"], told["total"], len(told["decisions"])) == (True, 3, 2)
        assert told["decisions"][0]["decision"]["reasoning"] == "It rose."
    settings = {"decisions__record": tmp_path / "none"}
    async with serving(corridor, **settings) as at, assistant(at.url) as client:
        told = await answer(client, "decisions")
        assert (told["recorded"], told["total"], told["decisions"]) == (False, 0, [])


async def ask(at: Any, document: Any, **headers: str) -> Reply:
    async with http(at.http) as connection:
        return await connection.ask(post(document, "/mcp", **{**_MODERN, **headers}))


def message(method: str, **params: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": 7,
        "method": method,
        "params": {**params, "_meta": _ENVELOPE},
    }


def called(tool: str, **arguments: Any) -> dict[str, Any]:
    return message("tools/call", name=tool, arguments=arguments)


async def test_keys_scopes_limits_and_the_audit_are_those_of_all_doors(
    corridor: Corridor, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    tokens = {
        name: create_key(keys, name, [scope], now_ms=END_MS, expires_at_ms=None)[1]
        for name, scope in (("desk", "query"), ("pusher", "subscribe"))
    }
    settings = {
        "serving__keys_file": keys,
        "audit__folder": tmp_path / "audit",
        "serving__rate_limit_per_s": 0.01,
        "serving__rate_burst": 12,
    }
    async with serving(corridor, **settings) as at:
        listing = message("tools/list")
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            refused = await ask(at, listing, Mcp_Method="tools/list", **headers)
            assert (refused.status, refused.json["error"]["code"]) == (401, -32010)
            assert refused.headers["www-authenticate"] == "bearer"
        bearer = {"Authorization": f"Bearer {tokens['pusher']}", "Mcp_Method": "tools/list"}
        refused = await ask(at, listing, **bearer)
        assert refused.json["error"]["data"] == {"missing_scope": "query"}
        async with assistant(at.url, tokens["desk"]) as client:
            await answer(client, "forecast", **ARGUMENTS["forecast"])
            await client.call_tool("market_state", {"symbol": "no symbol"})
        bearer = {"Authorization": f"Bearer {tokens['desk']}", "Mcp_Method": "tools/list"}
        for _ in range(12):
            reply = await ask(at, listing, **bearer)
        assert (reply.status, reply.json["error"]["code"], reply.json["id"]) == (429, -32011, 7)
    entries = [json.loads(line) for file in files(tmp_path / "audit") for line in lines(file)]
    of_tools = [
        (entry["method"], entry.get("code"), entry["key_id"] is not None)
        for entry in entries
        if entry.get("method")
    ]
    assert ("rag.query_patterns", None, True) in of_tools
    assert ("rag.get_snapshot", -32602, True) in of_tools


@pytest.mark.parametrize(
    ("document", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"[" * 60_000, {}, 400),
        (b'{"jsonrpc":"2.0","id":1}', {}, 400),
        (b'"' + b"x" * 70_000 + b'"', {}, 400),
        (message("tools/list"), {}, 400),  # lacks the header Mcp-Method
        (message("nothing"), {"Mcp_Method": "nothing"}, 404),
        (
            message("subscriptions/listen", notifications={"toolsListChanged": True}),
            {"Mcp_Method": "subscriptions/listen"},
            404,
        ),
        (message("tools/list"), {"Mcp_Method": "tools/list", "Content_Type": "text/plain"}, 415),
        (message("tools/list"), {"Mcp_Method": "tools/list", "Accept": "text/html"}, 406),
        (message("tools/list"), {"Mcp_Method": "tools/list", "Origin": "http://evil.example"}, 403),
        (message("tools/list"), {"Mcp_Method": "tools/list"}, 200),
        ({"jsonrpc": "2.0", "method": "notifications/initialized"}, {}, 202),
    ],
)
async def test_what_is_no_request_is_refused_and_the_server_stays(
    mcp_server_address: Any, document: Any, headers: dict[str, str], status: int
) -> None:
    assert (await ask(mcp_server_address, document, **headers)).status == status


async def test_there_is_no_stream_to_get(mcp_server_address: Any) -> None:
    async with http(mcp_server_address.http) as connection:
        assert (await connection.ask(get("/mcp"))).status == 405


async def test_many_assistants_at_once_get_their_own_answers(mcp_server_address: Any) -> None:
    async def one(number: int) -> None:
        as_of = iso8601(AT_MS - number * QUARTER_MS)
        arguments = {"symbol": SYMBOLS[number % 2], "as_of": as_of}
        mode = ("auto", "legacy")[number % 3 == 0]
        async with assistant(mcp_server_address.url, mode=mode) as client:
            state = await answer(client, "market_state", **arguments)
            assert {name: state[name] for name in arguments} == arguments

    await asyncio.gather(*map(one, range(6)))


async def test_there_is_no_such_path_unless_it_is_switched_on(corridor: Corridor) -> None:
    async with serving(corridor, serving__mcp=False) as at:
        assert (await ask(at, message("tools/list"))).status == 404


async def test_without_the_sdk_the_server_says_what_to_install(
    corridor: Corridor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith(("llm_trader.serving.mcp.endpoint",))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp.server.streamable_http_manager", None)
    settings = corridor.settings(serving__mcp=True)
    with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[mcp\]'"):
        async with query_server(settings, {}, lambda: END_MS):
            pass


def test_it_needs_the_http_port() -> None:
    with pytest.raises(ConfigurationError, match=r"leave out --no-http .* or --mcp"):
        ServingConfig(http=False, mcp=True)
