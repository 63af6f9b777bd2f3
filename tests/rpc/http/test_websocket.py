"""JSON-RPC over WebSocket, with a client of another maker and with bare sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.keys import KeyRing
from tests.rpc.http.raw import call, http
from tests.rpc.stub import Doors, Size, serving_http, until


def url(doors: Doors) -> str:
    return f"ws://127.0.0.1:{doors.http[1]}/ws"


pushed: list[bool] = []


async def push(params: Size, context: RequestContext) -> None:
    """Sends many notifications, as long as the client reads."""
    channel = context.session.channel
    assert channel is not None
    document = b'{"jsonrpc":"2.0","method":"news","params":"%b"}' % (b"x" * 60_000)
    pushed[:] = [channel.push(document)]
    while pushed[-1] and len(pushed) < params.size:
        await asyncio.sleep(0)
        pushed.append(channel.push(document))


PUSHES = Method("push", Size, push, "Pushes.", None)


@pytest.fixture(autouse=True)
def nothing_pushed() -> None:
    pushed.clear()


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with serving_http(PUSHES) as running:
        yield running


@pytest.fixture
async def client(doors: Doors) -> AsyncIterator[ClientConnection]:
    async with connect(url(doors)) as connection:
        yield connection


async def ask(client: ClientConnection, document: Any) -> Any:
    await client.send(json.dumps(document))
    return await receive(client)


async def receive(client: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(client.recv(), 5))


async def close_code(client: ClientConnection) -> tuple[int | None, str]:
    with suppress(ConnectionClosed):
        async with asyncio.timeout(5):
            async for _ in client:
                pass
    return client.close_code, client.close_reason or ""


async def test_a_frame_is_a_document_and_its_reply_another(client: ClientConnection) -> None:
    assert (await ask(client, call("subtract", [5, 3])))["result"] == 2
    batch = await ask(client, [call("subtract", [5, 3]), call("no_such")])
    assert [member.get("result") for member in batch] == [2, None]
    assert (await ask(client, {"a": 1}))["error"]["code"] == -32600
    await client.send("{nonsense")
    assert (await receive(client))["error"]["code"] == -32700
    notification = {"jsonrpc": "2.0", "method": "update", "params": [1]}
    await client.send(json.dumps(notification))
    assert (await ask(client, call("rpc.ping")))["result"]["pong"] is True


async def test_a_quick_call_overtakes_a_slow_one(client: ClientConnection) -> None:
    await client.send(json.dumps(call("sleep", [0.3], 1)))
    assert (await ask(client, call("subtract", [5, 3], 2)))["id"] == 2
    assert (await receive(client))["id"] == 1


async def test_a_thousand_calls_sent_ahead_are_each_answered(client: ClientConnection) -> None:
    for number in range(1000):
        await client.send(json.dumps(call("subtract", [number, 0], number)))
    replies = [await receive(client) for _ in range(1000)]
    assert {reply["id"]: reply["result"] for reply in replies} == {n: n for n in range(1000)}


async def test_a_binary_frame_is_refused_with_a_code(client: ClientConnection) -> None:
    await client.send(b"\x00")
    assert (await close_code(client))[0] == 1003


async def test_a_message_that_is_too_large_is_refused_with_a_code() -> None:
    async with serving_http(max_frame_kib=1) as doors, connect(url(doors)) as client:
        await client.send("x" * 2000)
        assert (await close_code(client))[0] == 1009


async def test_a_message_that_never_ends_is_refused_at_its_deadline() -> None:
    async def parts() -> AsyncIterator[str]:
        while True:
            yield "x"
            await asyncio.sleep(0.02)

    async with serving_http(frame_timeout_s=0.2) as doors, connect(url(doors)) as client:
        sending = asyncio.create_task(client.send(parts()))
        assert await close_code(client) == (1008, "a message must arrive within 0.2 s")
        with pytest.raises(ConnectionClosed):
            await sending


async def test_a_handshake_of_a_foreign_page_is_refused(doors: Doors) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(doors), origin=Origin("http://evil.example")):
            pass
    assert refused.value.response.status_code == 403
    assert b"serving.http_allowed_origins" in refused.value.response.body
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(doors).replace("/ws", "/elsewhere")):
            pass
    assert refused.value.response.status_code == 403


async def test_a_token_is_sent_at_the_handshake_or_by_a_call() -> None:
    async with serving_http(keys=KeyRing(["right"])) as doors:
        bearer = {"Authorization": "Bearer right"}
        async with connect(url(doors), additional_headers=bearer) as client:
            assert (await ask(client, call("subtract", [5, 3])))["result"] == 2
        async with connect(url(doors)) as client:
            refused = (await ask(client, call("subtract", [5, 3])))["error"]
            assert refused["code"] == -32010
            assert "call rpc.authenticate" in refused["message"]
            assert "result" in await ask(client, call("rpc.authenticate", ["right"]))
            assert (await ask(client, call("subtract", [5, 3])))["result"] == 2


async def test_a_connection_that_sends_no_token_in_time_is_closed() -> None:
    limits = {"keys": KeyRing(["right"]), "authentication_timeout_s": 0.1}
    async with serving_http(**limits) as doors, connect(url(doors)) as client:
        assert (await close_code(client))[0] == 4401


async def test_stopping_finishes_answers_and_says_restart(doors: Doors) -> None:
    async with connect(url(doors)) as busy, connect(url(doors)) as idle:
        await ask(idle, call("rpc.ping"))
        await busy.send(json.dumps(call("sleep", [0.3])))
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(doors.server.stop())
        assert (await close_code(idle))[0] == 1012
        assert (await receive(busy))["result"] == 0.3
        assert (await close_code(busy))[0] == 1012
        async with asyncio.timeout(2):
            await stopping


async def test_a_client_that_is_gone_leaves_nothing_behind(doors: Doors) -> None:
    client = await connect(url(doors))
    await client.send(json.dumps(call("sleep", [30])))
    await until(lambda: doors.gate._in_flight == 1)
    client.transport.abort()
    await until(lambda: doors.gate._in_flight == 0 and doors.gate.connections == 0)
    assert doors.gate.received_bytes == 0


async def raw_websocket(doors: Doors, receive_buffer: int) -> socket.socket:
    """A client that has shaken hands, and reads nothing by itself."""
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    bare.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(bare, doors.http)
    request = (
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await loop.sock_sendall(bare, request)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await loop.sock_recv(bare, 1)
    assert head.startswith(b"HTTP/1.1 101")
    return bare


def text_frame(document: Any) -> bytes:
    """A masked frame; the mask is zero."""
    body = msgspec.json.encode(document)
    assert len(body) < 126
    return bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body


async def test_a_slow_consumer_is_dropped_with_a_code_that_says_so(doors: Doors) -> None:
    loop = asyncio.get_running_loop()
    bare = await raw_websocket(doors, 1 << 16)
    await loop.sock_sendall(bare, text_frame(call("push", [200])))
    await until(lambda: pushed[-1:] == [False])
    received = b""
    async with asyncio.timeout(10):
        while chunk := await loop.sock_recv(bare, 1 << 20):
            received += chunk
            if b"you read too slowly" in received:
                break
    code = received[received.rindex(b"you read too slowly") - 2 :][:2]
    assert int.from_bytes(code, "big") == 4408
    assert received.count(b'"method":"news"') == len(pushed) - 1 < 200
    bare.close()
    await until(lambda: doors.gate.connections == 0)


async def test_a_slow_consumer_that_never_reads_again_is_cut_off() -> None:
    async with serving_http(PUSHES, write_timeout_s=0.3) as doors:
        bare = await raw_websocket(doors, 1 << 16)
        await asyncio.get_running_loop().sock_sendall(bare, text_frame(call("push", [200])))
        await until(lambda: pushed[-1:] == [False])
        await until(lambda: doors.gate.connections == 0)
        bare.close()


async def test_http_goes_on_beside_websockets(doors: Doors, client: ClientConnection) -> None:
    async with http(doors.http) as plain:
        assert (await plain.call("subtract", [5, 3])).json["result"] == 2
    assert (await ask(client, call("subtract", [5, 3])))["result"] == 2
