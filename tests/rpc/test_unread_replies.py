"""Replies that clients leave unread, and stalls of the server that clients must not pay for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from contextlib import AsyncExitStack
from typing import Any

from llm_trader.rpc.dispatcher import Method, RequestContext
from tests.rpc.stub import Seconds, Size, connected, serving

LARGE = 400_000
QUERY = {"timestamp": 1, "current_state": {"price": 1, "rsi_7": 2}}


class Counted:
    """A method with large replies; `made` counts them."""

    def __init__(self) -> None:
        self.made = 0

    def method(self) -> Method:
        return Method("large", Size, self.large, "A long string.", str)

    async def large(self, params: Size, context: RequestContext) -> str:
        self.made += 1
        return "x" * params.size


def large(call_id: int, size: int = LARGE) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "large", "params": [size], "id": call_id}


async def block(params: Seconds, context: RequestContext) -> None:
    time.sleep(params.seconds)  # noqa: ASYNC251  a stall of the server


BLOCK = Method("block", Seconds, block, "Stalls the server.")


async def unread(address: tuple[str, int], *documents: Any) -> socket.socket:
    """A connection with a small window that sends and does not read."""
    rude = socket.socket()
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    rude.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(rude, address)
    for document in documents:
        await loop.sock_sendall(rude, json.dumps(document).encode() + b"\n")
    return rude


async def is_cut_off(rude: socket.socket) -> bool:
    """Whether the connection ends before its replies do."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(loop.sock_recv(rude, 1 << 20), 5):
            if data.endswith(b"\n"):
                return False
    return True


async def test_no_more_is_made_for_a_client_that_does_not_read() -> None:
    counted = Counted()
    async with serving(counted.method()) as server, connected(server) as other:
        rude = await unread(server.address, *(large(n, 5_000_000) for n in range(30)))
        await asyncio.sleep(0.3)
        assert counted.made <= 2
        assert "result" in await other.call("large", [10])
        rude.close()


async def test_a_client_that_sends_without_end_and_reads_nothing_is_read_no_more() -> None:
    counted = Counted()
    async with serving(counted.method()) as server:
        rude = await unread(server.address)
        sending = asyncio.create_task(_send_for_ever(rude, large(1, 5_000_000)))
        await asyncio.sleep(0.3)
        assert counted.made <= 2
        sending.cancel()
        await asyncio.wait([sending])
        rude.close()


async def _send_for_ever(rude: socket.socket, document: Any) -> None:
    data = json.dumps(document).encode() + b"\n"
    while True:
        await asyncio.get_running_loop().sock_sendall(rude, data * 1000)


async def test_beyond_the_budget_of_all_the_stalest_clients_are_cut_off() -> None:
    counted = Counted()
    limits = {"max_unsent_mib": 20}
    async with serving(counted.method(), **limits) as server, connected(server) as other:
        rude = []
        for n in range(10):
            rude.append(await unread(server.address, large(n, 8_000_000)))
            assert "result" in await other.call("large", [10])
            await asyncio.sleep(0.05)
        assert counted.made == 20
        cut = [await is_cut_off(one) for one in (rude[0], rude[-1])]
        assert cut == [True, False]
        for one in rude:
            one.close()


async def test_a_batch_whose_replies_are_too_large_is_answered_in_part() -> None:
    counted = Counted()
    limits = {"max_batch_reply_kib": 1024}
    async with serving(counted.method(), **limits) as server, connected(server) as line:
        for _ in range(2):
            replies = await line.ask([large(n) for n in range(10)])
            assert [reply["id"] for reply in replies] == list(range(10))
            assert ["result" in reply for reply in replies] == [True] * 3 + [False] * 7
            assert {reply["error"]["code"] for reply in replies[3:]} == {-32012}
        assert counted.made == 6


async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    counted = Counted()
    async with serving(counted.method(), write_timeout_s=0.3) as server:
        slow = await unread(server.address, large(1, 12_000_000))
        loop, got, started_s = asyncio.get_running_loop(), 0, time.monotonic()
        while got < 12_000_000:
            data = await asyncio.wait_for(loop.sock_recv(slow, 400_000), 5)
            assert data, f"cut off after {got} bytes"
            got += len(data)
            if time.monotonic() - started_s < 1.0:
                await asyncio.sleep(0.05)
        slow.close()


async def test_a_stall_of_the_server_is_not_charged_to_those_it_keeps_waiting() -> None:
    limits = {"frame_timeout_s": 0.4, "idle_timeout_s": 0.4, "write_timeout_s": 0.4}
    async with (
        serving(BLOCK, **limits) as server,
        connected(server) as halfway,
        connected(server) as silent,
        connected(server) as blocking,
    ):
        document = b'{"jsonrpc": "2.0", "method": "rpc.ping", "id": 1}\n'
        await silent.call("rpc.ping")
        halfway.send(document[:10])
        await asyncio.sleep(0.05)
        blocked = asyncio.create_task(blocking.call("block", [1.0]))
        await asyncio.sleep(0)
        halfway.send(document[10:])
        silent.send(document)
        assert (await halfway.receive())["result"]["pong"] is True
        assert (await silent.receive())["result"]["pong"] is True
        assert (await blocked)["result"] is None


async def test_requests_that_wait_have_a_budget_and_small_ones_are_always_read() -> None:
    limits = {"max_received_mib": 2, "max_frame_kib": 1024}
    async with serving(**limits) as server, AsyncExitStack() as stack:
        holding = [await stack.enter_async_context(connected(server)) for _ in range(4)]
        for line in holding:
            line.send(b'{"jsonrpc": "2.0", "method": "' + b"x" * 900_000)
            await line.writer.drain()
            await asyncio.sleep(0.1)
        refusal = await holding[-1].receive()
        assert refusal["error"]["code"] == -32012
        assert await holding[-1].receive() is None
        other = await stack.enter_async_context(connected(server))
        assert "result" in await other.call("subtract", [5, 3])
        holding[0].send(b'", "id": 1}\n')
        assert (await holding[0].receive())["error"]["code"] == -32601
        for line in holding:
            await line.close()
        await asyncio.sleep(0.1)
        assert "result" in await other.call("query", {"symbol": "x" * 900_000, **QUERY})
        assert "result" in await other.call("query", {"symbol": "x" * 900_000, **QUERY})
