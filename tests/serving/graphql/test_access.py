"""A GraphQL document has the keys, limits and records of any other call."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from graphql import get_introspection_query

from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.keys import ApiKey, KeyRing, Scope
from llm_trader.rpc.observer import RequestRecord
from llm_trader.serving.wire import StatsResult
from tests.audit.builders import files, lines, verify
from tests.cli.corridor import END_MS, SYMBOL, Corridor
from tests.rpc.http.raw import call, get
from tests.serving.graphql.clients import Asking, asking, asking_stubs, sample

_ABOUT_THE_SCHEMA = ("{__typename}", "{__schema{types{name}}}", '{__type(name:"Match"){name}}')
_DOCUMENTS = ("{stats{version}}", *_ABOUT_THE_SCHEMA, "{", "{nothing}")


def key(name: str, *scopes: Scope, **times: int) -> ApiKey:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return ApiKey(
        id=f"id-{name}", name=name, sha256=digest, scopes=scopes, created_at_ms=0, **times
    )


@pytest.fixture
def keys() -> KeyRing:
    ring = KeyRing()
    ring.follow_file([key("desk", "query"), key("pusher", "subscribe", "ingest", "admin")])
    return ring


async def refused(client: Asking, document: str, **headers: str) -> Any:
    """The one error of a refusal for which no field was looked at."""
    reply = await client.reply(document, **headers)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "bearer")
    assert reply.json.keys() == {"errors"}
    (error,) = reply.json["errors"]
    assert error["extensions"]["code"] == -32010
    return error


@pytest.mark.parametrize("document", _DOCUMENTS)
async def test_without_a_key_nobody_sees_an_answer_or_the_schema(
    keys: KeyRing, document: str
) -> None:
    async with asking_stubs(keys=keys) as client:
        error = await refused(client, document)
    assert error["message"] == "unauthorized; send the header Authorization: Bearer KEY"


@pytest.mark.parametrize("document", _DOCUMENTS)
async def test_a_key_without_the_scope_query_sees_neither(keys: KeyRing, document: str) -> None:
    async with asking_stubs(keys=keys) as client:
        error = await refused(client, document, Authorization="Bearer pusher")
    assert error["extensions"]["data"] == {"missing_scope": "query"}
    assert "the key 'pusher' has: admin, ingest, subscribe" in error["message"]


async def test_a_key_with_the_scope_query_sees_both(keys: KeyRing) -> None:
    async with asking_stubs(keys=keys) as client:
        for document in ("{stats{version}}", *_ABOUT_THE_SCHEMA):
            reply = await client.reply(document, Authorization="Bearer desk")
            assert (reply.status, "errors" in reply.json) == (200, False)


async def test_wrong_keys_are_refused_until_the_connection_is_closed(keys: KeyRing) -> None:
    async with asking_stubs(keys=keys) as client:
        for _ in range(4):
            error = await refused(client, "{stats{version}}", Authorization="Bearer guess")
            assert "does not know this key" in error["message"]
        reply = await client.reply("{stats{version}}", Authorization="Bearer guess")
        assert (reply.status, reply.headers["connection"]) == (401, "close")
        assert await client.connection.reply() is None


async def test_a_revoked_key_is_refused_on_an_open_connection(keys: KeyRing) -> None:
    async with asking_stubs(keys=keys) as client:
        bearer = {"Authorization": "Bearer desk"}
        assert (await client.reply("{__typename}", **bearer)).status == 200
        keys.follow_file([key("desk", "query", revoked_at_ms=1)])
        await refused(client, "{__typename}", **bearer)


async def test_documents_and_calls_of_a_key_share_one_limit(keys: KeyRing) -> None:
    limits = {"rate_limit_per_s": 0.01, "rate_burst": 3}
    async with asking_stubs(keys=keys, **limits) as client:
        bearer = {"Authorization": "Bearer desk"}
        # One for the document, one for its field, one for the call.
        assert (await client.reply("{stats{version}}", **bearer)).status == 200
        assert (await client.connection.post(call("rag.stats"), **bearer)).status == 200
        reply = await client.reply("{__typename}", **bearer)
        assert (reply.status, reply.json["errors"][0]["extensions"]["code"]) == (429, -32011)


async def test_the_work_of_a_field_is_charged_to_its_key(keys: KeyRing) -> None:
    async def work(params: Any, context: RequestContext) -> Any:
        time.sleep(0.6)  # noqa: ASYNC251  it blocks the loop, as work does
        return sample(StatsResult)

    # Reading the document takes some 2 ms, on a busy machine far more.
    given = {"keys": keys, "work_limit_ms_per_s": 1, "work_burst_ms": 500}
    async with asking_stubs(handlers={"rag.stats": work}, **given) as client:
        bearer = {"Authorization": "Bearer desk"}
        assert (await client.reply("{stats{version}}", **bearer)).status == 200
        assert (await client.connection.post(call("rag.stats"), **bearer)).status == 429


async def test_the_work_of_reading_a_document_is_charged_to_its_key(keys: KeyRing) -> None:
    async with asking_stubs(keys=keys, work_limit_ms_per_s=1, work_burst_ms=1) as client:
        bearer = {"Authorization": "Bearer desk"}
        assert (await client.reply(get_introspection_query(), **bearer)).status == 200
        assert (await client.connection.post(call("rag.stats"), **bearer)).status == 429
        assert (await client.reply("{__typename}", **bearer)).status == 429


async def test_every_field_leaves_a_record_of_its_method_and_its_key(keys: KeyRing) -> None:
    records: list[RequestRecord] = []
    document = '{a:stats{version} b:get_snapshot(symbol:"x",timestamp:1){feature_version}}'
    async with asking_stubs(keys=keys, observers=[records.append]) as client:
        await client.reply(document, Authorization="Bearer desk")
    assert {(r.method, r.code, r.key_id, r.batch_position) for r in records} == {
        ("rag.stats", None, "id-desk", 1),
        ("rag.get_snapshot", -32602, "id-desk", 2),
    }
    answered = next(r for r in records if r.code is None)
    assert answered.reply_bytes == len(b'{"version":"3"}')
    assert {"queue", "handle", "encode"} <= answered.stages.keys()


@pytest.mark.parametrize(
    ("document", "key_name", "code"),
    [
        ("{__typename}", "desk", None),
        ("{nothing}", "desk", -32600),
        ("{stats{version}}", "pusher", -32010),
        ("{stats{version}}", "guess", -32010),
    ],
)
async def test_a_document_without_calls_leaves_one_record(
    keys: KeyRing, document: str, key_name: str, code: int | None
) -> None:
    records: list[RequestRecord] = []
    async with asking_stubs(keys=keys, observers=[records.append]) as client:
        reply = await client.reply(document, Authorization=f"Bearer {key_name}")
    (record,) = records
    assert (record.method, record.code) == (None, code)
    assert record.key_id == (None if key_name == "guess" else f"id-{key_name}")
    assert record.reply_bytes == len(reply.body)
    assert record.request_bytes > len(document)


async def test_the_timeout_of_a_field_ends_this_field_alone() -> None:
    async def sleep(params: Any, context: RequestContext) -> Any:
        await asyncio.sleep(30)

    async with asking_stubs(handlers={"rag.stats": sleep}) as client:
        document = '{stats(timeout_ms:50){version} get_funding(symbol:"BTCUSDT",start:1735689600000'
        reply = await client.reply(document + ",end:1735689700000,timeout_ms:60000){time}}")
        assert reply.json["data"] == {"stats": None, "get_funding": {"time": [3, 3]}}
        (error,) = reply.json["errors"]
        assert (error["path"], error["extensions"]["code"]) == (["stats"], -32013)


async def test_a_brief_answer_is_refused_with_what_to_do_instead() -> None:
    document = """query($config: QueryConfigInput) {
        query_patterns(symbol: "BTCUSDT", timestamp: 1735689600000, query_config: $config) {
            evidence { verdict }
        }
    }"""
    async with asking_stubs() as client:
        reply = await client.reply(document, {"config": {"detail": "brief"}})
        assert reply.status == 400
        (error,) = reply.json["errors"]
        assert error["extensions"]["code"] == -32602
        assert error["message"].startswith("query_config.detail: GraphQL has no brief answers")
        assert error["locations"] == [{"line": 2, "column": 9}]
        for config in ({"detail": "full"}, {}, None):
            assert "query_patterns" in await client.data(document, {"config": config})


async def test_a_batch_is_no_field_and_several_queries_are_asked_under_aliases() -> None:
    async with asking_stubs() as client:
        error = await client.error("{query_batch(queries:[]){metadata{duration_us}}}")
        assert "Cannot query field 'query_batch'" in error["message"]


async def test_a_real_server_counts_and_audits_fields_as_calls(
    corridor: Corridor, tmp_path: Path
) -> None:
    settings = corridor.settings(serving__graphql=True, audit__folder=tmp_path)
    snapshot = f'get_snapshot(symbol:"{SYMBOL}",timestamp:{END_MS}){{feature_version}}'
    async with asking(settings) as client:
        await client.data("{a:" + snapshot + " b:" + snapshot + " stats{version}}")
        await client.reply("{nothing}")
        metrics = (await client.connection.ask(get("/metrics"))).body.decode()
    assert 'requests_total{method="rag.get_snapshot"} 2' in metrics
    assert 'requests_total{method="rag.stats"} 1' in metrics
    assert 'requests_total{method="none"} 1' in metrics
    audited = [msgspec.json.decode(line) for line in lines(files(tmp_path)[0])]
    requests = [line for line in audited if line["event"] == "request"]
    fields = ["rag.get_snapshot", "rag.get_snapshot", "rag.stats"]
    # Each is written when it ends; the refused document is no call and came last.
    assert sorted(line["method"] for line in requests[:-1]) == fields
    assert (requests[-1].get("method"), requests[-1]["code"]) == (None, -32600)
    assert verify(tmp_path).passed
