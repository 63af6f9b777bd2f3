"""Ingestion and the server as whole processes: CPU, memory, throughput."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil

from benchmarks.timing import Figure
from benchmarks.workload import END_MS, START_MS, SYMBOLS, WARM_UP_DAYS, classic_params, states
from llm_trader.rpc.server import run
from llm_trader.timeframe import DAY_MS, iso8601

# 8 times the 150 requests a second of the prototype that this system replaces.
_LEAST_PER_SECOND = 8 * 150
_ROUNDS = 9
_PAUSE_S = 1.0
_CLI = "from llm_trader.cli.main import {0}; {0}()"


class Load(NamedTuple):
    """What a load did to a server: its CPU per request, and what the clients saw."""

    cpu_us: float
    seen: dict[str, Any]


def ingestion(folder: Path) -> list[Figure]:
    command = [sys.executable, "-c", _CLI.format("rag_ingest")]
    command += ["--store", str(folder / "market"), "--index", str(folder / "index")]
    command += ["--start", iso8601(START_MS + WARM_UP_DAYS * DAY_MS), "--end", iso8601(END_MS)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE)
    said = process.stdout.read() if process.stdout else b""
    _, status, used = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - started
    if status:
        raise SystemExit("ingestion failed")
    points = sum(report["added"] for report in json.loads(said))
    peak_mb = used.ru_maxrss / 1024
    return [
        Figure(f"ingesting {points:,} points, s", f"{elapsed:.1f}", "20", elapsed <= 20),
        Figure("ingesting, peak memory, MB", f"{peak_mb:.0f}", "600", peak_mb <= 600),
    ]


def server(folder: Path) -> list[Figure]:
    """Whole queries over the socket, evidence included, and the RPC layer beside its floor.

    Loads come in bursts that take turns, so that each meets the machine fast and slow.
    """
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    at_random = [request_line(tables, int(i), row=None, rng=rng) for i in rng.integers(0, 3, 3000)]
    live = [request_line(tables, i % 3, row=-1, rng=rng) for i in range(30)]
    with (
        rag_server(folder) as (process, port),
        rag_server(folder, LLM_TRADER_SERVING__METRICS="false") as unmetered,
    ):
        load(process, port, 16, 3000, at_random)  # now every day has been asked for once
        load(*unmetered, 16, 3000, at_random)
        result = one_result(port, at_random[0])
        with (
            _canned("rpc", result) as rpc,
            _canned("floor", result) as floor,
            _canned("http", result) as http,
            _canned("rpc", _without_evidence(result)) as small_rpc,
            _canned("floor", _without_evidence(result)) as small_floor,
        ):
            bursts = _bursts(
                {
                    "random": (process, port, 16, 480, at_random),
                    "without metrics": (*unmetered, 16, 480, at_random),
                    "random, alone": (process, port, 1, 300, at_random),
                    "live": (process, port, 16, 480, live),
                    "rpc": (*rpc, 16, 4000, at_random),
                    "http": (*http, 16, 4000, at_random, "http"),
                    "floor": (*floor, 16, 4000, at_random),
                    "small rpc": (*small_rpc, 16, 4000, at_random),
                    "small floor": (*small_floor, 16, 4000, at_random),
                }
            )
        memory_mb = process.memory_info().rss / 2**20
    return [
        *_query_figures("times at random", bursts["random"], bursts["floor"]),
        *_query_figures("all asking about now", bursts["live"], bursts["floor"]),
        _latency(bursts["random, alone"]),
        _deadline_share(bursts["random"]),
        _metrics_cost(bursts["random"], bursts["without metrics"]),
        _rpc_layer("1 KB", bursts["small rpc"], bursts["small floor"]),
        _rpc_layer("10 KB", bursts["rpc"], bursts["floor"]),
        _http_beside_tcp(bursts["http"], bursts["rpc"], bursts["random"]),
        Figure("server memory with the index, MB", f"{memory_mb:.0f}", "250", memory_mb < 250),
    ]


def _bursts(loads: dict[str, Any]) -> dict[str, list[Load]]:
    done: dict[str, list[Load]] = {name: [] for name in loads}
    for _ in range(_ROUNDS):
        for name, arguments in loads.items():
            time.sleep(_PAUSE_S)
            done[name].append(load(*arguments))
    return done


def _query_figures(what: str, loads: list[Load], floors: list[Load]) -> list[Figure]:
    cpu_us = median(load.cpu_us for load in loads)
    ratio = median(a.cpu_us / b.cpu_us for a, b in zip(loads, floors, strict=True))
    per_second = median(load.seen["per_second"] for load in loads)
    best = max(load.seen["per_second"] for load in loads)
    return [
        Figure(
            f"query over the socket, {what}: server CPU, µs",
            f"{cpu_us:.0f} ({min(load.cpu_us for load in loads):.0f} at best; "
            f"{ratio:.0f} x a canned reply)",
            "1000",
            cpu_us <= 1000,
        ),
        Figure(
            f"  requests a second at 16 connections, {what}",
            f"{per_second:,.0f} ({best:,.0f} at best)",
            f"{_LEAST_PER_SECOND:,}",
            per_second >= _LEAST_PER_SECOND,
        ),
    ]


def _latency(loads: list[Load]) -> Figure:
    seen = [load.seen for load in loads]
    told = [median(one[key] for one in seen) for key in ("median_ms", "p99_ms")]
    return Figure(
        "latency at 1 connection, median / p99, ms", f"{told[0]:.2f} / {told[1]:.2f}", "", None
    )


def _deadline_share(queries: list[Load]) -> Figure:
    """The dispatcher's `asyncio.timeout_at` around each method, against the whole queries."""
    deadline_us = median(run(_deadline_us()) for _ in range(_ROUNDS))
    share = deadline_us / median(load.cpu_us for load in queries)
    return Figure(
        "deadline of a request: server CPU, µs (part of a query at random)",
        f"{deadline_us:.1f} ({share:.2%})",
        "",
        None,
    )


def _metrics_cost(metered: list[Load], unmetered: list[Load]) -> Figure:
    ratio = median(a.cpu_us / b.cpu_us for a, b in zip(metered, unmetered, strict=True))
    with_us, without_us = (median(load.cpu_us for load in each) for each in (metered, unmetered))
    return Figure(
        "query with metrics: server CPU, against the same without",
        f"{ratio:.3f} x ({with_us:.0f} µs, without {without_us:.0f} µs)",
        "1.05 x",
        ratio <= 1.05,
    )


async def _deadline_us(calls: int = 20_000) -> float:
    async def method() -> None: ...

    deadline_s = time.monotonic() + 60
    started_s = time.process_time()
    for _ in range(calls):
        async with asyncio.timeout_at(deadline_s):
            await method()
    with_deadline_s = time.process_time()
    for _ in range(calls):
        await method()
    without_s = time.process_time() - with_deadline_s
    return (with_deadline_s - started_s - without_s) / calls * 1e6


def _rpc_layer(size: str, loads: list[Load], floors: list[Load]) -> Figure:
    ratio = median(a.cpu_us / b.cpu_us for a, b in zip(loads, floors, strict=True))
    subject, floor = (median(load.cpu_us for load in each) for each in (loads, floors))
    return Figure(
        f"RPC layer with a canned retriever, against a canned reply of {size}",
        f"{ratio:.2f} x ({subject:.0f} µs, floor {floor:.0f} µs)",
        "2.5 x",
        ratio <= 2.5,
    )


def _http_beside_tcp(http: list[Load], tcp: list[Load], queries: list[Load]) -> Figure:
    by_http, by_tcp, query = (median(load.cpu_us for load in each) for each in (http, tcp, queries))
    return Figure(
        "a call by HTTP beside TCP, 10 KB, CPU",
        f"{by_http:.0f} µs beside {by_tcp:.0f} µs; {(by_http - by_tcp) / query:.1%} of a query",
        "",
        None,
    )


def request_line(tables: list[Any], which: int, row: int | None, rng: np.random.Generator) -> bytes:
    table = tables[which]
    chosen = int(rng.integers(0, len(table))) if row is None else row
    params = classic_params(table, chosen)
    request = {"jsonrpc": "2.0", "id": 1, "method": "rag.query_patterns", "params": params}
    return msgspec.json.encode(request) + b"\n"


def load(
    process: psutil.Process,
    port: int,
    connections: int,
    count: int,
    requests: list[bytes],
    *protocol: str,
) -> Load:
    before = process.cpu_times()
    numbers = map(str, (port, connections, count))
    command = [sys.executable, "-m", "benchmarks.load", *numbers, *protocol]
    done = subprocess.run(command, input=b"".join(requests), capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr.decode()[-2000:]}")
    after = process.cpu_times()
    seen = json.loads(done.stdout)
    cpu_s = after.user + after.system - before.user - before.system
    return Load(cpu_s / seen["requests"] * 1e6, seen)


def _without_evidence(result: bytes) -> bytes:
    """The same answer without matches and horizons: what is left is mostly the RPC layer."""
    answer = msgspec.json.decode(result)
    answer["matches"], answer["evidence"]["horizons"] = [], {}
    return msgspec.json.encode(answer)


def one_result(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        reply = connection.makefile("rb").readline()
    return bytes(msgspec.json.decode(reply, type=dict[str, msgspec.Raw])["result"])


@contextmanager
def rag_server(folder: Path, *flags: str, **variables: str) -> Iterator[tuple[psutil.Process, int]]:
    with rag_server_doors(folder, *flags, **variables) as (process, ports):
        yield process, ports[0]


@contextmanager
def rag_server_doors(
    folder: Path, *flags: str, **variables: str
) -> Iterator[tuple[psutil.Process, tuple[int, int]]]:
    """The process, and its ports for TCP and HTTP."""
    command = [sys.executable, "-c", _CLI.format("rag_rpc_server"), "--port", "0"]
    command += ["--store", str(folder / "market"), "--index", str(folder / "index")]
    environment = os.environ | {"LLM_TRADER_LOGGING__FORMAT": "json"} | variables
    process = subprocess.Popen(
        [*command, "--min-matches", "1", *flags], stderr=subprocess.PIPE, env=environment
    )
    try:
        ports: dict[str, int] = {}
        for line in process.stderr or ():
            event = json.loads(line)
            if event["event"] in ("rpc_listening", "http_listening"):
                ports[event["event"]] = event["port"]
            if len(ports) == 2:
                break
        yield psutil.Process(process.pid), (ports["rpc_listening"], ports["http_listening"])
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def _canned(kind: str, result: bytes) -> Iterator[tuple[psutil.Process, int]]:
    with canned_doors(kind, result) as (process, ports):
        yield process, ports[0]


@contextmanager
def canned_doors(kind: str, result: bytes) -> Iterator[tuple[psutil.Process, list[int]]]:
    command = [sys.executable, "-m", "benchmarks.canned", kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdin is None or process.stdout is None:
        raise SystemExit("no pipes")
    try:
        process.stdin.write(result)
        process.stdin.close()
        yield psutil.Process(process.pid), [int(port) for port in process.stdout.readline().split()]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
