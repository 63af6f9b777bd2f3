"""A client of bare sockets: it sends what no library would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> Reply | None:
        """The next response; None at the end."""
        async with asyncio.timeout(10):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = await self.reader.readline()
                if not line:
                    return None
                head += line
            first, *lines = head.decode().strip().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(first.split()[1]), headers, body)

    async def ask(self, data: bytes) -> Reply:
        self.send(data)
        reply = await self.reply()
        assert reply is not None
        return reply

    async def post(self, document: Any, **headers: str) -> Reply:
        return await self.ask(post(document, **headers))

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.ask(get(path, **headers))

    async def call(self, method: str, params: Any = None) -> Reply:
        return await self.post(call(method, params))


def call(method: str, params: Any = None, call_id: Any = 1) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "method": method, "id": call_id}
    return request if params is None else {**request, "params": params}


def get(path: str, **headers: str) -> bytes:
    return _request(f"GET {path}", headers, None)


def post(document: Any, path: str = "/rpc", **headers: str) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return _request(f"POST {path}", {"Content_Type": "application/json", **headers}, body)


def _request(line: str, headers: dict[str, str], body: bytes | None) -> bytes:
    headers = {"Host": "localhost", **headers}
    if body is not None:
        headers["Content_Length"] = str(len(body))
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"{line} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + (body or b"")


@asynccontextmanager
async def http(address: tuple[str, int]) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(*address, limit=1 << 24)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
