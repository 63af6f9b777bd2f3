"""Whatever clients send through either door, each log line is one JSON object of this program."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from contextlib import suppress
from io import StringIO

import pytest

from llm_trader.logs import configure_logging
from llm_trader.rpc.server import RpcServer
from tests.cli.corridor import AT_MS, Corridor
from tests.rpc.http.raw import call, get, post
from tests.serving.metrics.scraping import running

FORGED = '\n{"ts":"2025-01-01","level":"info","logger":"forged","event":"all_is_well"}\n'
TEXTS = [FORGED, "\r\n\r\nforged", "\x1b[2J\x00", "\u2028forged\u0085", "x" * 3000, "%s%(x)s{0}"]


@pytest.fixture
def log(restored_logging: None) -> StringIO:
    stream = StringIO()
    configure_logging("trace", "json", stream)
    return stream


async def send(address: tuple[str, int] | None, data: bytes, *, reset: bool = False) -> None:
    assert address is not None
    reader, writer = await asyncio.open_connection(*address)
    with suppress(ConnectionError, TimeoutError):
        writer.write(data)
        await writer.drain()
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            writer.write_eof()
            async with asyncio.timeout(5):
                await reader.read()
    writer.close()


def documents(text: str) -> list[bytes]:
    params = {"symbol": text, "timestamp": AT_MS, text: text}
    calls = [call(text), call("rag.query_patterns", params), call("rpc.ping", [text], text)]
    return [
        *(json.dumps(c).encode() for c in calls),
        text.encode() + b"\n",
        b"\xff" + text.encode(),
    ]


async def attack(server: RpcServer) -> None:
    for text in TEXTS:
        for document in documents(text):
            for reset in (False, True):
                await send(server.address, document + b"\n", reset=reset)
                await send(server.http_address, post(document), reset=reset)
        await send(server.http_address, get("/" + text.replace(" ", "")))
        await send(server.http_address, get("/metrics", X_Forged=text, Origin=text))
        await send(server.http_address, get("/ws", Upgrade="websocket", Connection="Upgrade"))
        await send(server.http_address, text.encode())


async def test_client_bytes_start_no_line_and_no_line_is_a_traceback(
    corridor: Corridor, log: StringIO
) -> None:
    async with running(corridor) as server:
        await attack(server)
    lines = log.getvalue().split("\n")
    assert lines.pop() == ""
    events = [json.loads(line) for line in lines]
    assert len(events) > 100
    for line, event in zip(lines, events, strict=True):
        assert line.startswith('{"ts": "')
        assert event["logger"] != "forged"
        assert "exception" not in event
        assert event["level"] in ("debug", "info"), event
