"""`POST /graphql` over real sockets: what it answers, what it refuses, and at whose cost."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import pytest
from graphql import build_client_schema, get_introspection_query, print_schema

from llm_trader.app.server import query_server
from llm_trader.errors import ConfigurationError, InsufficientMatchesError
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.graphql.schema import graphql_schema
from llm_trader.serving.wire import StatsResult
from tests.cli.corridor import AT_MS, DAY_MS, END_MS, START_MS, SYMBOL, Corridor
from tests.rpc.http.raw import call, get, http, post
from tests.rpc.stub import connected, until
from tests.serving.graphql.clients import (
    as_on_the_wire,
    asking,
    asking_stubs,
    everything,
    sample,
    stub_server,
)

_RANGE = {"symbol": SYMBOL, "start": START_MS, "end": START_MS + DAY_MS}
_OF_THE_MOMENT = ("query_duration_ms", "query_duration_us", "request_id", "queries_answered")


def _settled(result: Any) -> Any:
    """A result without what differs from call to call."""
    metadata = result.get("metadata", result)
    for name in [n for n in metadata if n in _OF_THE_MOMENT or n.endswith("_duration_ms")]:
        del metadata[name]
    return result


@pytest.mark.parametrize(
    ("field", "params"),
    [
        ("query_patterns", {"symbol": SYMBOL, "timestamp": AT_MS}),
        (
            "query_patterns",
            {"symbol": SYMBOL, "timestamp": END_MS, "query_config": {"detail": "full", "top_k": 2}},
        ),
        ("get_snapshot", {"symbol": SYMBOL, "timestamp": AT_MS}),
        ("get_candles", {**_RANGE, "timeframe": "5m", "limit": 10}),
        ("get_funding", _RANGE),
        ("get_open_interest", _RANGE),
        ("forecast_quality", {"days": 7}),
        ("stats", None),
    ],
)
async def test_a_field_is_the_result_of_its_method(
    corridor: Corridor, field: str, params: dict[str, Any] | None
) -> None:
    arguments = ""
    if params:
        texts = {n: json.dumps(v) for n, v in params.items() if n != "query_config"}
        config = params.get("query_config", {})
        inner = ",".join(f"{name}:{json.dumps(value)}" for name, value in config.items())
        texts |= {"query_config": "{" + inner + "}"} if config else {}
        arguments = "(" + ",".join(f"{name}:{text}" for name, text in texts.items()) + ")"
    async with asking(corridor.settings(serving__graphql=True)) as client:
        told = (await client.connection.post(call(f"rag.{field}", params))).json["result"]
        data = await client.data("{" + field + arguments + everything(field) + "}")
    assert _settled(as_on_the_wire(data[field])) == _settled(told)


async def test_variables_and_several_fields_are_answered_together(corridor: Corridor) -> None:
    document = """
        query Desk($symbol: String!, $at: Long!, $config: QueryConfigInput) {
          now: query_patterns(symbol: $symbol, timestamp: $at, query_config: $config) {
            matches { similarity }
            evidence { verdict horizons { key } }
          }
          earlier: get_snapshot(symbol: $symbol, timestamp: 1739000000000) { snapshot { price } }
        }"""
    config = {"top_k": 3, "horizons": ["1h"]}
    variables = {"symbol": SYMBOL, "at": END_MS, "config": config}
    async with asking(corridor.settings(serving__graphql=True)) as client:
        data = await client.data(document, variables)
    assert len(data["now"]["matches"]) == 3
    assert data["now"]["evidence"]["horizons"] == [{"key": "1h"}]
    assert data["earlier"]["snapshot"]["price"] > 0


async def test_an_error_has_the_code_and_the_data_of_json_rpc(corridor: Corridor) -> None:
    async with asking(corridor.settings(serving__graphql=True)) as client:
        too_few = (
            f'query_patterns(symbol: "{SYMBOL}", timestamp: {END_MS}, '
            "query_config: {min_similarity: 1, include_regime_filters: false})"
        )
        unknown = 'get_funding(symbol: "NOSUCH", start: 1735689600000, end: 1735689700000)'
        reply = await client.reply(
            "{a: " + too_few + "{matches{id}} b: " + unknown + "{time} stats{version}}"
        )
        params = {"min_similarity": 1, "include_regime_filters": False}
        query = {"symbol": SYMBOL, "timestamp": END_MS, "query_config": params}
        told = (await client.connection.post(call("rag.query_patterns", query))).json["error"]
    assert reply.status == 200
    assert reply.json["data"] == {"a": None, "b": None, "stats": {"version": "0.1.0"}}
    first, second = reply.json["errors"]
    assert told["code"] == -32001
    assert first["message"] == told["message"]
    assert first["extensions"] == {"code": told["code"], "data": told["data"]}
    assert first["path"] == ["a"]
    assert first["locations"] == [{"line": 1, "column": 2}]
    assert (second["extensions"]["code"], second["path"]) == (-32002, ["b"])


async def test_all_wrong_arguments_are_told_at_once_by_the_names_of_the_wire() -> None:
    document = '{query_patterns(symbol:"x", timestamp:1, query_config:{top_k:99}){matches{id}}}'
    async with asking_stubs() as client:
        error = await client.error(document)
    assert error["extensions"]["code"] == -32602
    fields = [flaw["field"] for flaw in error["extensions"]["data"]["errors"]]
    assert fields == ["symbol", "timestamp", "query_config.top_k"]


@pytest.mark.parametrize(
    ("document", "code", "told"),
    [
        ("{", -32700, "Syntax Error"),
        ("{nothing}", -32600, "Cannot query field 'nothing'"),
        ("{stats{version} ...F} fragment F on Query{...F}", -32600, "within itself"),
        ("mutation{a}", -32600, "mutation operation is not supported"),
        ("query A{stats{version}} query B{stats{ready}}", -32600, "operationName: is required"),
        (
            "query($a:Long!){get_snapshot(symbol:1,timestamp:$a){feature_version}}",
            -32600,
            "non string",
        ),
        ('query($a:Long!){__type(name:"A"){name} a:__typename @skip(if:$a)}', -32600, "Boolean"),
        ("{a:stats{version} a:get_snapshot(symbol:$x)}", -32600, "$x"),
    ],
)
async def test_a_document_that_cannot_be_run_is_refused_with_its_reason(
    document: str, code: int, told: str
) -> None:
    async with asking_stubs() as client:
        reply = await client.reply(document)
    assert reply.status == 400
    assert "data" not in reply.json
    errors = reply.json["errors"]
    assert {error["extensions"]["code"] for error in errors} == {code}
    assert told in " ".join(error["message"] for error in errors)


async def test_a_wrong_variable_is_a_wrong_parameter() -> None:
    document = 'query($t:Long!){get_snapshot(symbol:"A",timestamp:$t){feature_version}}'
    async with asking_stubs() as client:
        for value in (None, "soon", 1.5, 10**30, True, [1]):
            error = await client.error(document, {"t": value})
            assert error["extensions"]["code"] == -32602
            assert "'$t'" in error["message"]


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        (b"", -32700, "truncated"),
        (b"{nonsense", -32700, "malformed"),
        (b"\xff", -32700, "malformed"),
        (b"[" * 40_000, -32600, "batches are not answered"),
        (b'[{"query":"{__typename}"}]', -32600, "batches are not answered"),
        (b'{"variables":{}}', -32600, 'send {"query"'),
        (b'{"query":5}', -32600, 'send {"query"'),
        (b'{"query":"{__typename}","variables":[]}', -32600, "variables"),
        (b'{"query":"' + b" " * 70_000 + b'"}', -32600, "at most 64 KiB"),
        (b'{"query":"' + b" " * 20_000 + b'"}', -32700, "16384"),
        (b'{"query":"{__typename}","operationName":"A"}', -32600, "no operation 'A'"),
    ],
)
async def test_a_body_that_is_no_request_is_refused_and_the_connection_stays(
    body: bytes, code: int, told: str
) -> None:
    async with asking_stubs() as client:
        reply = await client.connection.ask(post(body, path="/graphql"))
        assert (reply.status, reply.json["errors"][0]["extensions"]["code"]) == (400, code)
        assert told in reply.json["errors"][0]["message"]
        assert await client.data("{__typename}") == {"__typename": "Query"}


async def test_what_a_web_page_can_send_without_asking_is_refused() -> None:
    async with asking_stubs() as client:
        body = {"query": "{__typename}"}
        for media_type in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ):
            reply = await client.connection.ask(
                post(body, path="/graphql", Content_Type=media_type)
            )
            assert reply.status == 415
        for path in ("/graphql", "/graphql?query={__typename}"):
            reply = await client.connection.ask(get(path, Accept="text/html"))
            assert (reply.status, reply.headers["allow"]) == (405, "post")
        foreign = await client.reply("{__typename}", Origin="https://evil.example")
        assert foreign.status == 403


async def test_a_document_and_each_of_its_fields_count_against_the_rate() -> None:
    document = "{a:stats{version} b:stats{version} c:stats{version}}"
    async with asking_stubs(rate_limit_per_s=0.01, rate_burst=3) as client:
        first = await client.reply(document)
        assert first.status == 200
        (error,) = first.json["errors"]
        assert (error["path"], error["extensions"]["code"]) == (["c"], -32011)
        assert error["extensions"]["data"]["retry_after_ms"] > 0
        second = await client.reply(document)
        assert (second.status, int(second.headers["retry-after"]) > 1) == (429, True)


async def test_a_field_past_the_deadline_is_given_up() -> None:
    cancelled = asyncio.Event()

    async def sleep(params: Any, context: RequestContext) -> Any:
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    given = {"handlers": {"rag.stats": sleep}, "request_deadline_s": 0.1}
    async with asking_stubs(**given) as client:
        reply = await client.reply("{stats{version}}")
        assert (reply.status, reply.json["data"]) == (504, {"stats": None})
        assert reply.json["errors"][0]["extensions"]["code"] == -32013
    assert cancelled.is_set()


async def test_the_work_for_a_client_that_is_gone_is_cancelled() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def sleep(params: Any, context: RequestContext) -> Any:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    async with stub_server(handlers={"rag.stats": sleep}) as doors:
        async with http(doors.http) as client:
            client.send(post({"query": "{a:stats{version} b:stats{version}}"}, path="/graphql"))
            await started.wait()
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_a_bug_in_a_method_tells_no_more_than_an_id() -> None:
    async def fail(params: Any, context: RequestContext) -> Any:
        raise ValueError("secret")

    async with asking_stubs(handlers={"rag.stats": fail}) as client:
        reply = await client.reply("{stats{version}}")
    assert (reply.status, reply.json["errors"][0]["extensions"]["code"]) == (500, -32603)
    assert b"secret" not in reply.body


async def test_one_field_that_fails_costs_the_others_nothing() -> None:
    async def fail(params: Any, context: RequestContext) -> Any:
        raise InsufficientMatchesError(1, 3, "look further")

    async with asking_stubs(handlers={"rag.stats": fail}) as client:
        reply = await client.reply("{stats{version} __typename}")
    assert (reply.status, reply.json["data"]) == (200, {"stats": None, "__typename": "Query"})
    data = reply.json["errors"][0]["extensions"]["data"]
    assert data == {"matches_found": 1, "min_required": 3, "suggestion": "look further"}


async def test_answers_that_take_too_much_memory_are_refused_and_the_memory_is_given_back() -> None:
    everywhere = " ".join(f"a{i}:stats" + everything("stats") for i in range(12))
    async with asking_stubs(max_batch_reply_kib=4) as client:
        for _ in range(2):
            reply = await client.reply("{" + everywhere + "}")
            answered = [name for name, value in reply.json["data"].items() if value]

            assert 0 < len(answered) < 12
            assert {e["extensions"]["code"] for e in reply.json["errors"]} == {-32012}
        assert len(await client.data("{a:stats{version} b:stats{version}}")) == 2


async def test_each_field_waits_for_a_turn_of_its_own_so_that_others_pass() -> None:
    done = []

    async def work(params: Any, context: RequestContext) -> Any:
        until_s = time.thread_time() + 0.005
        while time.thread_time() < until_s:
            pass
        done.append(context.request_id)
        return sample(StatsResult)

    document = "{" + " ".join(f"a{i}:stats{{version}}" for i in range(30)) + "}"
    async with (
        stub_server(handlers={"rag.stats": work}) as doors,
        http(doors.http) as client,
        connected(doors) as other,
    ):
        client.send(post({"query": document}, path="/graphql"))
        await until(lambda: bool(done))
        assert (await other.call("rag.stats"))["result"]["version"] == "3"
        # The other client's query had its turn among the first ones of the document.
        assert len(done) < 15
        reply = await client.reply()
        assert reply is not None
        assert len(reply.json["data"]) == 30


async def test_the_schema_can_be_asked_for_as_tools_do() -> None:
    async with asking_stubs() as client:
        answer = await client.data(get_introspection_query(descriptions=True))
    assert print_schema(build_client_schema(answer)) == print_schema(graphql_schema())


async def test_introspection_can_be_switched_off_and_nothing_hints_at_names() -> None:
    async with asking_stubs(graphql_introspection=False) as client:
        for document in ("{__schema{types{name}}}", '{__type(name:"Match"){name}}', "{statz}"):
            reply = await client.reply(document)
            assert reply.status == 400
            assert "stats" not in reply.json["errors"][0]["message"]
        assert await client.data("{__typename stats{version}}") == {
            "__typename": "Query",
            "stats": {"version": "3"},
        }


async def test_without_the_setting_there_is_no_graphql(corridor: Corridor) -> None:
    async with asking(corridor.settings()) as client:
        assert (await client.reply("{__typename}")).status == 404


async def test_without_the_extra_the_setting_says_what_to_install(
    corridor: Corridor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("llm_trader.serving.graphql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "strawberry", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[graphql\]'"):
        async with query_server(corridor.settings(serving__graphql=True), {}):
            pass


def test_graphql_without_http_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(ConfigurationError, match="leave out --no-http"):
        ServingConfig(graphql=True, http=False)
