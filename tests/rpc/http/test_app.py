"""JSON-RPC over HTTP: documents in bodies, errors as statuses, one gate for both doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.keys import KeyRing
from tests.rpc.http.raw import Connection, call, get, http, post
from tests.rpc.stub import Doors, connected, raising, serving_http, until


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with serving_http(raising("broken", ValueError("secret"))) as running:
        yield running


@pytest.fixture
async def client(doors: Doors) -> AsyncIterator[Connection]:
    async with http(doors.http) as connection:
        yield connection


async def test_a_call_is_answered_as_json(client: Connection) -> None:
    reply = await client.call("subtract", [5, 3])
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {"jsonrpc": "2.0", "result": 2, "id": 1}


async def test_calls_share_a_connection(client: Connection) -> None:
    for number in range(3):
        assert (await client.call("subtract", [number, 0])).json["result"] == number


async def test_a_batch_is_answered_member_by_member(client: Connection) -> None:
    members = [call("subtract", [5, n], n) for n in range(3)] + [call("no_such", [], 9)]
    reply = await client.post(members)
    assert reply.status == 200
    assert [r.get("result") for r in reply.json] == [5, 4, 3, None]
    assert reply.json[3]["error"]["code"] == -32601


async def test_notifications_are_answered_by_no_content(client: Connection) -> None:
    notification = {"jsonrpc": "2.0", "method": "update", "params": [1]}
    for document in (notification, [notification, notification]):
        reply = await client.post(document)
        assert (reply.status, reply.body) == (204, b"")
    assert (await client.call("rpc.ping")).status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{nonsense", 400, -32700),
        (b"", 400, -32700),
        (b'{"method": 1}', 400, -32600),
        (b'{"jsonrpc":"2.0","method":"no_such","id":1}', 200, -32601),
        (b'{"jsonrpc":"2.0","method":"subtract","params":["a"],"id":1}', 200, -32602),
        (b'{"jsonrpc":"2.0","method":"broken","id":1}', 500, -32603),
    ],
)
async def test_an_error_of_the_request_as_a_whole_has_a_status(
    client: Connection, body: bytes, status: int, code: int
) -> None:
    reply = await client.post(body)
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert b"secret" not in reply.body


async def test_a_body_of_another_type_is_refused(client: Connection) -> None:
    reply = await client.post(call("rpc.ping"), Content_Type="text/plain")
    assert reply.status == 415
    assert "Content-Type: application/json" in reply.json["error"]["message"]
    with_charset = await client.post(call("rpc.ping"), Content_Type="application/json; charset=x")
    assert with_charset.status == 200


async def test_an_unknown_path_or_method_is_refused_as_json(client: Connection) -> None:
    unknown = await client.get("/no-such")
    assert unknown.status == 404
    assert "POST /rpc" in unknown.json["error"]["message"]
    wrong = await client.get("/rpc")
    assert (wrong.status, wrong.headers["allow"]) == (405, "post")


async def test_a_page_is_answered_with_its_value(client: Connection) -> None:
    assert (await client.get("/livez")).json == {"live": True}


async def test_a_call_past_its_deadline_is_a_gateway_timeout() -> None:
    async with serving_http(request_deadline_s=0.1) as doors, http(doors.http) as client:
        reply = await client.call("sleep", [30])
        assert (reply.status, reply.json["error"]["code"]) == (504, -32013)


async def test_overload_says_when_to_come_back() -> None:
    async with serving_http(max_in_flight=1) as doors, connected(doors) as busy:
        busy.send_json(call("sleep", [0.3]))
        await asyncio.sleep(0.05)
        async with http(doors.http) as client:
            reply = await client.call("subtract", [5, 3])
            assert (reply.status, reply.json["error"]["code"]) == (503, -32012)
            assert reply.headers["retry-after"] == "1"
        assert (await busy.receive())["result"] == 0.3


async def test_the_rate_of_an_address_is_one_for_both_doors() -> None:
    limits = {"rate_limit_per_s": 0.5, "rate_burst": 2}
    async with serving_http(**limits) as doors, connected(doors) as line:
        assert "result" in await line.call("rpc.ping")
        async with http(doors.http) as client:
            assert (await client.call("rpc.ping")).status == 200
            reply = await client.call("rpc.ping")
            assert (reply.status, reply.json["error"]["code"]) == (429, -32011)
            assert reply.headers["retry-after"] == "2"


async def test_each_request_brings_its_own_token() -> None:
    async with serving_http(keys=KeyRing(["right"])) as doors, http(doors.http) as client:
        ask = call("subtract", [5, 3])
        refused = await client.post(ask)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "bearer")
        assert (await client.post(ask, Authorization="Bearer wrong")).status == 401
        assert (await client.post(ask, Authorization="Bearer right")).json["result"] == 2
        assert (await client.post(ask)).status == 401


async def test_guessing_tokens_closes_the_connection() -> None:
    async with serving_http(keys=KeyRing(["right"])) as doors, http(doors.http) as client:
        for _ in range(5):
            reply = await client.post(call("subtract", [5, 3]), Authorization="Bearer wrong")
            assert reply.status == 401
        assert await client.reply() is None


async def test_requests_that_are_sent_ahead_are_answered_in_order(client: Connection) -> None:
    first = [post(call("sleep", [0.05 if n % 2 else 0], n)) for n in range(6)]
    client.send(b"".join(first) + get("/livez"))
    replies = [await client.reply() for _ in range(7)]
    assert [r.json.get("id") for r in replies if r] == [0, 1, 2, 3, 4, 5, None]


async def test_thousands_of_requests_sent_ahead_are_all_answered(client: Connection) -> None:
    count = 3000
    client.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
    for _ in range(count):
        reply = await client.reply()
        assert reply is not None
        assert reply.status == 200


async def test_an_http_client_is_one_client_beside_those_of_the_tcp_door() -> None:
    async with serving_http() as doors, connected(doors) as flood, http(doors.http) as client:
        flood.send_json(*(call("get_data", call_id=n) for n in range(2000)))
        reply = await client.call("get_data")
        assert reply.json["result"] == ["hello", 5]
        answered_before = 0
        while await flood.receive():
            answered_before += 1
            if answered_before == 2000:
                break
        assert doors.gate.received_bytes == 0


async def test_work_for_a_client_that_is_gone_is_cancelled() -> None:
    async with serving_http() as doors:
        async with http(doors.http) as client:
            client.send(post(call("sleep", [30])))
            await asyncio.sleep(0.1)
            assert doors.gate._in_flight == 1
        await until(lambda: doors.gate._in_flight == 0)


async def test_connections_of_both_doors_share_one_limit() -> None:
    async with serving_http(max_connections=1) as doors:
        async with connected(doors) as line:
            assert "result" in await line.call("rpc.ping")
            async with http(doors.http) as client:
                reply = await client.get("/livez")
                assert (reply.status, reply.json["error"]["code"]) == (503, -32012)
                assert await client.reply() is None
        await until(lambda: doors.gate.connections == 0)
        async with http(doors.http) as client:
            assert (await client.get("/livez")).status == 200


async def test_stopping_finishes_what_runs_and_closes_idle_connections() -> None:
    async with serving_http() as doors, http(doors.http) as idle, http(doors.http) as busy:
        assert (await idle.get("/livez")).status == 200
        busy.send(post(call("sleep", [0.3])))
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(doors.server.stop())
        assert await idle.reply() is None
        reply = await busy.reply()
        assert reply is not None
        assert reply.json["result"] == 0.3
        assert await busy.reply() is None
        await stopping


async def test_stopping_gives_up_on_what_takes_longer_than_its_bound() -> None:
    async with serving_http(drain_timeout_s=0.2) as doors, http(doors.http) as client:
        client.send(post(call("sleep", [30])))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(3):
            await doors.server.stop()
        with pytest.raises((ConnectionError, AssertionError)):
            assert await client.reply() is not None


async def test_a_port_that_is_taken_is_an_error_that_names_the_remedy() -> None:
    async with serving_http() as first:
        with pytest.raises(ConfigurationError, match=r"--http-port, or leave HTTP out with --no"):
            async with serving_http(http_port=first.http[1]):
                pass
        async with http(first.http) as client:
            assert (await client.get("/livez")).status == 200


def test_http_has_the_port_after_that_of_tcp_unless_another_is_named() -> None:
    assert RpcConfig(port=80).port_for_http == 81
    assert RpcConfig(port=0).port_for_http == 0
    assert RpcConfig(port=80, http_port=9).port_for_http == 9


def test_ports_that_cannot_be_are_refused() -> None:
    assert RpcConfig().port_for_http == 7880
    with pytest.raises(ConfigurationError, match="none follows for HTTP"):
        RpcConfig(port=65535)
    with pytest.raises(ConfigurationError, match="cannot serve both"):
        RpcConfig(port=7000, http_port=7000)
    assert not RpcConfig(port=65535, http=False).http
