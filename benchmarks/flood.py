"""What a client sees while another one floods the server: `python -m benchmarks --only flood`.

`python -m benchmarks.flood PORT CONNECTIONS` sends what stands on standard input on each of the
connections, again and again, and reads the replies.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.processes import rag_server, request_line
from benchmarks.timing import Figure
from benchmarks.workload import SYMBOLS, states
from llm_trader.rpc.server import run

_CONNECTIONS = (10, 60)
_ASKED = 300
_PING = b'{"jsonrpc":"2.0","id":1,"method":"rpc.ping"}\n'
_DISCOVER = b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n'


def floods(folder: Path) -> list[Figure]:
    """The waits of one client's pings and queries, in turn, beside each flood; those of queries
    against the median just before it.
    """
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    queries = [request_line(tables, n % len(tables), row=None, rng=rng) for n in range(_ASKED)]
    kinds = {
        "batches of queries": _batch(queries[:100]) * 32,
        "batches of discoveries": _batch([_DISCOVER] * 100) * 32,
        "discoveries": _DISCOVER * 3200,
        "pings": _PING * 3200,
        "lines that are no calls": b'{"n":1}\n' * 3200,
    }
    with rag_server(folder) as (_, port):
        _waits(port, queries)  # now every day has been asked for once
        figures = []
        for (kind, data), connections in itertools.product(kinds.items(), _CONNECTIONS):
            alone_s = median(_waits(port, queries[:100])[1])
            with _flooding(port, connections, data):
                pings_s, queries_s = _waits(port, queries)
            figures += _figures(f"{kind} on {connections} connections", pings_s, queries_s, alone_s)
    return figures


def _figures(
    flood: str, pings_s: list[float], queries_s: list[float], alone_s: float
) -> list[Figure]:
    ping_ms = [wait_s * 1000 for wait_s in _median_and_p99(pings_s)]
    ratios = [wait_s / alone_s for wait_s in _median_and_p99(queries_s)]
    return [
        Figure(
            f"beside {flood}: ping, median / p99, ms",
            "{:.0f} / {:.0f}".format(*ping_ms),
            "100",
            ping_ms[1] <= 100,
        ),
        Figure(
            f"beside {flood}: query against alone, median / p99",
            "{:.1f} / {:.1f} x".format(*ratios),
            "20 x",
            ratios[1] <= 20,
        ),
    ]


def _median_and_p99(seconds: list[float]) -> tuple[float, float]:
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


def _waits(port: int, queries: list[bytes]) -> tuple[list[float], list[float]]:
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        connection.makefile("rb") as replies,
    ):

        def wait_s(line: bytes) -> float:
            started_s = time.perf_counter()
            connection.sendall(line)
            if b'"result"' not in replies.readline():
                raise SystemExit("a query was refused")
            return time.perf_counter() - started_s

        waits = [(wait_s(_PING), wait_s(query)) for query in queries]
    return [ping_s for ping_s, _ in waits], [query_s for _, query_s in waits]


def _batch(lines: list[bytes]) -> bytes:
    return b"[" + b",".join(line.strip() for line in lines) + b"]\n"


@contextmanager
def _flooding(port: int, connections: int, data: bytes) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.flood", str(port), str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("no pipes")
        process.stdin.write(data)
        process.stdin.close()
        json.loads(process.stdout.readline())
        time.sleep(1.0)
        try:
            yield
        finally:
            process.kill()


class _Flooder(asyncio.Protocol):
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._loop = asyncio.get_running_loop()
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._loop.call_soon(self._send)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._send()

    def _send(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.write(self._data)
            self._loop.call_soon(self._send)


async def _flood(port: int, connections: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: _Flooder(data), "127.0.0.1", port)
    print(connections, flush=True)
    await loop.create_future()


if __name__ == "__main__":
    run(_flood(int(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer.read()))
