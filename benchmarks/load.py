"""The client that puts a server under load, and the floor that the server is compared with.

Run as `python -m benchmarks.load PORT CONNECTIONS REQUESTS < requests.jsonl`: sends the requests
round robin over the connections, each waiting for its reply, and prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time

from llm_trader.serving.server import run

_LIMIT = 1 << 22


async def _connection(port: int, requests: itertools.cycle[bytes], count: int) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        writer.write(next(requests))
        reply = await reader.readline()
        seconds.append(time.perf_counter() - started)
        if b'"result"' not in reply:
            raise SystemExit(f"unexpected reply: {reply[:400]!r}")
    writer.close()
    return seconds


async def _load(port: int, connections: int, count: int, lines: list[bytes]) -> None:
    requests = itertools.cycle(lines)
    started = time.perf_counter()
    each = await asyncio.gather(
        *(_connection(port, requests, count // connections) for _ in range(connections))
    )
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
    run(_load(port, connections, count, sys.stdin.buffer.read().splitlines(keepends=True)))
