"""Keys, limits and caps on HTTP and WebSocket are those of the TCP port."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.keys import ApiKey, KeyRing
from tests.rpc.http.raw import call, http
from tests.rpc.stub import serving_http


def key_of(token: str, **times: int) -> ApiKey:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return ApiKey(id="a1", name="desk", sha256=digest, scopes=("query",), created_at_ms=0, **times)


async def reload(params: None, context: RequestContext) -> None: ...


RELOAD = Method("reload", None, reload, "Needs more.", access="admin")


@pytest.fixture
def keys() -> KeyRing:
    ring = KeyRing()
    ring.follow_file([key_of("one")])
    return ring


async def test_a_bearer_key_needs_the_scope_of_the_method(keys: KeyRing) -> None:
    async with serving_http(RELOAD, keys=keys) as doors, http(doors.http) as client:
        bearer = {"Authorization": "Bearer one"}
        assert (await client.post(call("subtract", [5, 3]), **bearer)).json["result"] == 2
        reply = await client.post(call("reload"), **bearer)
        assert reply.status == 401
        assert reply.json["error"]["data"] == {"missing_scope": "admin"}


async def test_a_revoked_bearer_key_is_refused_on_an_open_connection(keys: KeyRing) -> None:
    async with serving_http(keys=keys) as doors, http(doors.http) as client:
        bearer = {"Authorization": "Bearer one"}
        assert (await client.post(call("get_data"), **bearer)).status == 200
        keys.follow_file([key_of("one", revoked_at_ms=1)])
        reply = await client.post(call("get_data"), **bearer)
        assert (reply.status, reply.json["error"]["code"]) == (401, -32010)


async def test_a_wrong_bearer_key_is_refused_even_for_what_needs_none(keys: KeyRing) -> None:
    async with serving_http(keys=keys) as doors, http(doors.http) as client:
        assert (await client.post(call("rpc.ping"))).status == 200
        assert (await client.post(call("rpc.ping"), Authorization="Bearer no")).status == 401
        assert (await client.get("/livez")).status == 200


async def test_a_key_has_one_limit_for_all_doors(keys: KeyRing) -> None:
    limits = {"rate_limit_per_s": 0.01, "rate_burst": 2}
    async with serving_http(keys=keys, **limits) as doors, http(doors.http) as client:
        address = f"ws://127.0.0.1:{doors.http[1]}/ws"
        headers = {"Authorization": "Bearer one"}
        async with connect(address, additional_headers=headers) as socket:
            await socket.send(json.dumps(call("get_data")))
            assert "result" in json.loads(await socket.recv())
            assert (await client.post(call("get_data"), **headers)).status == 200
            await socket.send(json.dumps(call("get_data")))
            assert json.loads(await socket.recv())["error"]["code"] == -32011
        reply = await client.post(call("get_data"), **headers)
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) >= 50


async def test_connections_of_an_address_count_on_all_doors_together() -> None:
    async with (
        serving_http(max_connections_per_address=2) as doors,
        http(doors.http) as first,
        http(doors.http) as second,
    ):
        for client in (first, second):
            assert (await client.get("/livez")).status == 200
        async with http(doors.http) as third:
            reply = await third.reply()
            assert reply is not None
            assert (reply.status, reply.json["error"]["code"]) == (503, -32012)


async def replies(socket: ClientConnection) -> AsyncIterator[str | bytes]:
    while True:
        yield await socket.recv()


async def test_notifications_end_with_the_key(keys: KeyRing) -> None:
    """The server pushes only to those whose key is good now."""
    pushed: list[bool] = []

    async def push(params: None, context: RequestContext) -> None:
        if channel := context.session.channel:
            pushed.append(channel.push(b'{"jsonrpc":"2.0","method":"news"}'))
            keys.follow_file([])
            pushed.append(channel.push(b'{"jsonrpc":"2.0","method":"news"}'))

    method = Method("push", None, push, "Pushes twice.")
    async with serving_http(method, keys=keys) as doors:
        address = f"ws://127.0.0.1:{doors.http[1]}/ws"
        headers = {"Authorization": "Bearer one"}
        async with connect(address, additional_headers=headers) as socket:
            await socket.send(json.dumps(call("push")))
            assert json.loads(await socket.recv())["method"] == "news"
            with pytest.raises(ConnectionClosed) as closed:
                _ = [message async for message in replies(socket)]
    assert pushed == [True, False]
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
