"""Servers to call, and both faces of the client as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from llm_trader.client import AsyncClient, Call, Client
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.server import RpcServer


class Face(Protocol):
    async def send(self, call: Call[Any]) -> Any: ...

    async def send_all(self, calls: Sequence[Call[Any]]) -> list[Any]: ...


class Threads:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, call: Call[Any]) -> Any:
        return await asyncio.to_thread(self._client.send, call)

    async def send_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        return await asyncio.to_thread(self._client.send_all, calls)


class Tasks:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def send(self, call: Call[Any]) -> Any:
        return await self._client.send(call)

    async def send_all(self, calls: Sequence[Call[Any]]) -> list[Any]:
        return await asyncio.gather(*map(self._client.send, calls))


@asynccontextmanager
async def face(kind: str, url: str, **options: Any) -> AsyncIterator[Face]:
    if kind == "threads":
        with Client(url, **options) as client:
            yield Threads(client)
    else:
        async with AsyncClient(url, **options) as tasks:
            yield Tasks(tasks)


def tcp(server: RpcServer) -> str:
    host, port = server.address
    return f"tcp://{host}:{port}"


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    """The port of a server whose connections are handled so; their clients end them."""
    handled: set[asyncio.Task[Any] | None] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.add(asyncio.current_task())
        await handler(reader, writer)

    server = await asyncio.start_server(tracked, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*filter(None, handled)), 5)


@asynccontextmanager
async def http_door(server: RpcServer, *, chunked: bool = False) -> AsyncIterator[str]:
    """`POST /rpc` over HTTP/1.1 to the dispatcher of a server; any other path is 404."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                break
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
            document = await reader.readexactly(int(fields["content-length"]))
            if not head.startswith("POST /rpc HTTP/1.1"):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nlost")
                continue
            if fields.get("authorization") == "bearer wrong":
                writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
                continue
            reply = await server._dispatcher.handle(document, RequestContext(), server._gate) or b""
            writer.write(_http_reply(reply, chunked))
        writer.close()

    async with listening(handle) as port:
        yield f"http://127.0.0.1:{port}"


def _http_reply(body: bytes, chunked: bool) -> bytes:
    if not chunked:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    chunks = [body[i : i + 7] for i in range(0, len(body), 7)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + sent + b"0\r\n\r\n"
