"""A round on each door: a connection, mutated frames, and a ping that must be answered after them.

Every round has a seed of its own, so that a failure is repeated by `run_round(door, seed, …)`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.serving.fuzz import documents, frames, http_requests, replies
from tests.serving.server_process import Server

FRAMES_PER_ROUND = 20
# The server has ten: a machine that is busy must not look like a wedged connection.
PATIENCE_S = 60
_LIMIT = 1 << 24
# Closes whatever brackets a mutated line left open.
_CLOSING = b"}" * 3000 + b"\n"
_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def _ping(ping_id: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "rpc.ping", "id": ping_id}).encode()


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):
        writer.write(data)
        await writer.drain()


async def tcp_round(rng: random.Random, port: int) -> int:
    """Lines; the ping is answered on the same connection, and the rest at half-close."""
    lines = [documents.mutated(rng) for _ in range(FRAMES_PER_ROUND)]
    data = b"\n".join(lines) + b"\n" + _CLOSING + _ping("after") + b"\n"
    answered = False
    async with _connected(port) as (reader, writer), asyncio.TaskGroup() as group:
        sending = group.create_task(_send(writer, data))
        while line := await reader.readline():
            if line == b" ":
                continue  # the server looked whether the client is still there
            if "after" in replies.check(line):
                answered = True
                await sending
                writer.write_eof()
    assert answered, "the connection ended before the ping was answered"
    return len(lines)


async def http_round(rng: random.Random, port: int) -> int:
    """One request, and one that ends the connection unless the first did."""
    request, ping = http_requests.request(rng, documents.mutated(rng)), _ping("after")
    last = (
        b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ping), ping)
    )
    received = b""
    async with _connected(port) as (reader, writer), asyncio.TaskGroup() as group:
        group.create_task(_send(writer, request + last))
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                received += chunk
    responses = replies.http_responses(received)
    assert responses, "no response"
    for status, headers, body in responses:
        replies.check_http(status, headers, body)
    status, headers, _ = responses[-1]
    assert status == 101 or headers.get(b"connection") == b"close", (status, headers)
    return 1


async def websocket_round(rng: random.Random, port: int) -> int:
    """Frames; unless one breaks the protocol, the ping is answered."""
    data = b"".join(frames.valid(rng, documents.mutated(rng)) for _ in range(FRAMES_PER_ROUND))
    breaks_protocol = rng.random() < 0.5
    if breaks_protocol:
        data += frames.wrong(rng, documents.mutated(rng))
    data += frames.frame(rng, _ping("after"))
    ends = False
    async with _connected(port) as (reader, writer), asyncio.TaskGroup() as group:
        writer.write(_HANDSHAKE)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        sending = group.create_task(_send(writer, data))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                opcode, payload = await _server_frame(reader)
                if opcode == frames.CLOSE:  # the last frame of the server
                    ends = True
                    break
                if opcode == frames.TEXT and "after" in replies.check(payload, may_push=True):
                    ends = True
                    await sending
                    await _send(writer, frames.frame(rng, b"\x03\xe8", frames.CLOSE))
    assert ends, "neither an answer to the ping nor a reason"
    return FRAMES_PER_ROUND + breaks_protocol


async def _server_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, size = await reader.readexactly(2)
    assert first & 0xF0 == 0x80, first  # whole, and no reserved bits
    assert size < 128, "a server does not mask"
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    opcode = first & 15
    assert opcode in (frames.TEXT, frames.CLOSE, frames.PING, frames.PONG), opcode
    return opcode, await reader.readexactly(size)


Round = Callable[[random.Random, int], Awaitable[int]]
DOORS: dict[str, Round] = {"tcp": tcp_round, "http": http_round, "websocket": websocket_round}


async def run_round(door: str, seed: str, server: Server) -> int:
    """The number of mutated frames that were sent. The seed is added to whatever goes wrong."""
    port = server.port if door == "tcp" else server.http_port
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await DOORS[door](random.Random(seed), port)
    except Exception as error:
        error.add_note(f"in run_round({door!r}, {seed!r}, server)")
        raise


async def run_rounds(door: str, seed: str, count: int, server: Server, at_once: int = 4) -> int:
    """Rounds until so many frames were sent, some connections at a time."""
    sent = number = 0

    async def go_on() -> None:
        nonlocal sent, number
        while sent < count:
            number += 1
            sent += await run_round(door, f"{seed}/{number}", server)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(go_on())
    return sent
