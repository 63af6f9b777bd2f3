"""Two workers beside one, and a server beyond its capacity: `python -m benchmarks --only workers`.

Load generator and servers share the cores of the machine, so throughput by the clock says as much
about the generator as about the server. So what counts is the CPU time of the busiest worker: on a
core of its own it is what bounds the throughput. Both are shown.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.processes import load, rag_server, request_line
from benchmarks.timing import Figure
from benchmarks.workload import SYMBOLS, states
from llm_trader.rpc.server import run

_ROUNDS = 7
# The kernel deals them to the workers by chance, and each must have some that wait.
_CONNECTIONS = 16
_REQUESTS = 480
# Below what all clients of the flood together wait for, so that some must be refused.
_DEADLINE_S = 0.3
_FLOOD_S = 8.0
# Of the reply on its way, with the generator on the same cores.
_ON_THE_WAY_MS = 200


class Burst(NamedTuple):
    per_second: float
    # Of the busiest process, which bounds the throughput on enough cores.
    busiest_cpu_us: float


def workers(folder: Path) -> list[Figure]:
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    requests = [request_line(tables, int(i), row=None, rng=rng) for i in rng.integers(0, 3, 120)]
    with rag_server(folder) as one, rag_server(folder, "--workers", "2") as two:
        servers = {"one": one, "two": two}
        for _ in range(4):  # few at a time, until every worker has read the days
            for process, port in servers.values():
                load(process, port, 4, len(requests), requests)
        bursts: dict[str, list[Burst]] = {name: [] for name in servers}
        for _ in range(_ROUNDS):
            for name, (process, port) in servers.items():
                bursts[name].append(_burst(process, port, requests))
    figures = _throughput(bursts)
    settings = folder / "beyond_capacity.toml"
    settings.touch()
    with rag_server(folder, "--workers", "2", "--config", str(settings)) as (process, port):
        for _ in range(4):
            load(process, port, 4, len(requests), requests)
        # After the days are read, which on a slow machine takes longer.
        settings.write_text(f"[serving]\nrequest_deadline_s = {_DEADLINE_S}\n")
        _reload(port)
        figures += _beyond_capacity(run(flood(port, requests, _FLOOD_S)))
    return figures


def _reload(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b'{"jsonrpc":"2.0","id":1,"method":"admin.reload"}\n')
        reply = json.loads(connection.makefile("rb").readline())
    if "result" not in reply:
        raise SystemExit(f"the settings were not reloaded: {reply}")


def _burst(process: psutil.Process, port: int, requests: list[bytes]) -> Burst:
    processes = process.children() or [process]
    before = [_cpu_s(one) for one in processes]
    seen = load(process, port, _CONNECTIONS, _REQUESTS, requests).seen
    spent_s = [_cpu_s(one) - earlier for one, earlier in zip(processes, before, strict=True)]
    return Burst(seen["per_second"], max(spent_s) / seen["requests"] * 1e6)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _throughput(bursts: dict[str, list[Burst]]) -> list[Figure]:
    pairs = list(zip(bursts["one"], bursts["two"], strict=True))
    by_cpu = median(one.busiest_cpu_us / two.busiest_cpu_us for one, two in pairs)
    by_clock = median(two.per_second / one.per_second for one, two in pairs)
    one_us, two_us = (median(b.busiest_cpu_us for b in each) for each in bursts.values())
    return [
        Figure(
            "throughput of two workers against one, by the CPU time of the busiest worker",
            f"{by_cpu:.2f} x ({one_us:.0f} µs a request, {two_us:.0f} µs of two)",
            "1.8 x",
            by_cpu >= 1.8,
        ),
        Figure(
            "  by the clock, with the load generator on the same cores",
            f"{by_clock:.2f} x",
            "",
            None,
        ),
    ]


class Flood(NamedTuple):
    """What the clients of a flood saw, and how long a query took to be quick again after it."""

    accepted_ms: list[float]
    codes: dict[int, int]
    alone_ms: float
    recovered_s: float


async def flood(port: int, requests: list[bytes], seconds: float, clients: int = 400) -> Flood:
    """Each client asks again when it has its reply; all of them ask for more than can be done."""
    alone_ms = median([await _one_ms(port, request) for request in requests[:12]])
    accepted_ms: list[float] = []
    codes: dict[int, int] = {}
    until_s = time.monotonic() + seconds
    cycle = itertools.cycle(requests)
    await asyncio.gather(
        *(_client(port, cycle, until_s, accepted_ms, codes) for _ in range(clients))
    )
    ended_s = time.monotonic()
    while await _one_ms(port, requests[0]) > 5 * alone_ms + 5:
        pass
    return Flood(sorted(accepted_ms), codes, alone_ms, time.monotonic() - ended_s)


async def _client(
    port: int,
    requests: itertools.cycle[bytes],
    until_s: float,
    accepted_ms: list[float],
    codes: dict[int, int],
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    while (sent_s := time.monotonic()) < until_s:
        writer.write(next(requests))
        line = await reader.readline()
        if b'"result"' in line[:60]:
            accepted_ms.append((time.monotonic() - sent_s) * 1000)
        else:
            error: Any = json.loads(line)["error"]
            codes[error["code"]] = codes.get(error["code"], 0) + 1
            await asyncio.sleep(error.get("data", {}).get("retry_after_ms", 100) / 1000)
    writer.close()
    await writer.wait_closed()


async def _one_ms(port: int, request: bytes) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    started_s = time.perf_counter()
    writer.write(request)
    reply = await reader.readline()
    took_ms = (time.perf_counter() - started_s) * 1000
    writer.close()
    await writer.wait_closed()
    return took_ms if b'"result"' in reply[:60] else float("inf")


def _beyond_capacity(seen: Flood) -> list[Figure]:
    accepted, refused = len(seen.accepted_ms), sum(seen.codes.values())
    p99_ms = seen.accepted_ms[int(accepted * 0.99)]
    # -32013 are those that were at work at the deadline.
    shed = seen.codes.get(-32012, 0)
    mostly_shed = set(seen.codes) <= {-32012, -32013} and shed >= 0.9 * refused
    return [
        Figure(
            "beyond capacity, 400 clients: requests refused with -32012",
            f"{shed:,} of {refused + accepted:,}; with -32013 {refused - shed:,}",
            "9 of 10 refused",
            mostly_shed and refused > 0,
        ),
        Figure(
            f"  99th percentile of accepted requests, deadline {_DEADLINE_S:g} s",
            f"{p99_ms:.0f} ms",
            f"{_DEADLINE_S * 1000 + _ON_THE_WAY_MS:.0f} ms",
            p99_ms <= _DEADLINE_S * 1000 + _ON_THE_WAY_MS,
        ),
        Figure(
            "  until a query is quick again afterwards",
            f"{seen.recovered_s:.2f} s",
            "5 s",
            seen.recovered_s <= 5,
        ),
    ]
