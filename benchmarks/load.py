"""The client that puts a server under load, and the floor that the server is compared with.

Run as `python -m benchmarks.load PORT CONNECTIONS REQUESTS [http] < requests.jsonl`: sends
so many in all, each connection the next one when it has its reply, and prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator

from llm_trader.rpc.server import run

_LIMIT = 1 << 22


class _Client(asyncio.Protocol):
    """Sends the next request when the reply to the last has come; cheap, so as not to disturb."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._reply = b""
        self.seconds: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        self._reply += data
        if not self._is_whole():
            return
        self.seconds.append(time.perf_counter() - self._started)
        if b'"result"' not in self._reply[:200]:
            # An exit from here would be swallowed by uvloop.
            self.done.set_exception(SystemExit(f"unexpected reply: {self._reply[:400]!r}"))
            self._transport.close()
            return
        self._send()

    def _is_whole(self) -> bool:
        return self._reply.endswith(b"\n")

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            self.done.set_result(None)
            return
        self._reply = b""
        self._started = time.perf_counter()
        self._transport.write(request)


class _HttpClient(_Client):
    def _is_whole(self) -> bool:
        head, end, body = self._reply.partition(b"\r\n\r\n")
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return bool(end) and len(body) == int(length)


def posted(line: bytes) -> bytes:
    return (
        b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(line), line)
    )


async def _connection(
    client_type: type[_Client], port: int, requests: Iterator[bytes]
) -> list[float]:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: client_type(requests), "127.0.0.1", port)
    await client.done
    return client.seconds


async def _load(port: int, connections: int, count: int, lines: list[bytes], *, http: bool) -> None:
    # Shared by all connections, so that none is left alone at the end.
    endless = itertools.cycle(map(posted, lines) if http else lines)
    requests = itertools.islice(endless, count)
    client = _HttpClient if http else _Client
    started = time.perf_counter()
    each = await asyncio.gather(*(_connection(client, port, requests) for _ in range(connections)))
    elapsed = time.perf_counter() - started
    seconds = sorted(itertools.chain.from_iterable(each))
    seen = {
        "requests": len(seconds),
        "per_second": len(seconds) / elapsed,
        "median_ms": seconds[len(seconds) // 2] * 1000,
        "p99_ms": seconds[int(len(seconds) * 0.99)] * 1000,
    }
    print(json.dumps(seen))


async def floor_server(reply: bytes) -> None:
    """Reads a line, writes a canned reply: what TCP and asyncio cost without any of ours."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=_LIMIT)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    port, connections, count = (int(argument) for argument in sys.argv[1:4])
    lines = sys.stdin.buffer.read().splitlines(keepends=True)
    run(_load(port, connections, count, lines, http="http" in sys.argv[4:]))
