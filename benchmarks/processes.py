"""Ingestion and the server as whole processes: CPU, memory, throughput."""

from __future__ import annotations

import json
import os
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
from llm_trader.timeframe import DAY_MS, iso8601

# 8 times the 150 requests a second of the prototype that this system replaces.
_LEAST_PER_SECOND = 8 * 150
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
    """Whole queries over the socket, evidence included, and the RPC layer beside its floor."""
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    anywhere = [_request(tables, int(i), row=None, rng=rng) for i in rng.integers(0, 3, 3000)]
    live = [_request(tables, i % 3, row=-1, rng=rng) for i in range(30)]
    with _rag_server(folder) as (process, port):
        _load(process, port, 16, 3000, anywhere)  # every day of the 60 has been asked for once
        mixed = _load(process, port, 16, 6000, anywhere)
        one = _load(process, port, 1, 2000, anywhere)
        now = _load(process, port, 16, 6000, live)
        memory_mb = process.memory_info().rss / 2**20
        result = _one_result(port, anywhere[0])
    return [
        *_query_figures("times at random", mixed, one),
        *_query_figures("all asking about now", now, None),
        Figure("server memory with the index, MB", f"{memory_mb:.0f}", "250", memory_mb < 250),
        *_rpc_layer(result, anywhere),
    ]


def _query_figures(what: str, load: Load, one: Load | None) -> list[Figure]:
    figures = [
        Figure(
            f"query over the socket, {what}: server CPU, µs",
            f"{load.cpu_us:.0f}",
            "1000",
            load.cpu_us <= 1000,
        ),
        Figure(
            f"  requests a second at 16 connections, {what}",
            f"{load.seen['per_second']:,.0f}",
            f"{_LEAST_PER_SECOND:,}",
            load.seen["per_second"] >= _LEAST_PER_SECOND,
        ),
    ]
    if one:
        told = f"{one.seen['median_ms']:.2f} / {one.seen['p99_ms']:.2f}"
        figures.append(Figure("  latency at 1 connection, median / p99, ms", told, "", None))
    return figures


def _rpc_layer(result: bytes, requests: list[bytes]) -> list[Figure]:
    with _canned("rpc", result) as rpc, _canned("floor", result) as floor:
        ratios, subject, bare = [], [], []
        for round_ in range(8):
            a, b = (_load(process, port, 16, 4000, requests) for process, port in (rpc, floor))
            if round_:
                ratios.append(a.cpu_us / b.cpu_us)
                subject.append(a.cpu_us)
                bare.append(b.cpu_us)
    ratio = median(ratios)
    return [
        Figure(
            "RPC layer with a canned retriever, against a canned reply",
            f"{ratio:.2f} x ({median(subject):.0f} µs, floor {median(bare):.0f} µs)",
            "2.5 x",
            ratio <= 2.5,
        )
    ]


def _request(tables: list[Any], which: int, row: int | None, rng: np.random.Generator) -> bytes:
    table = tables[which]
    chosen = int(rng.integers(0, len(table))) if row is None else row
    params = classic_params(table, chosen)
    request = {"jsonrpc": "2.0", "id": 1, "method": "rag.query_patterns", "params": params}
    return msgspec.json.encode(request) + b"\n"


def _load(
    process: psutil.Process, port: int, connections: int, count: int, requests: list[bytes]
) -> Load:
    before = process.cpu_times()
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(connections), str(count)]
    done = subprocess.run(command, input=b"".join(requests), capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr.decode()[-2000:]}")
    after = process.cpu_times()
    seen = json.loads(done.stdout)
    cpu_s = after.user + after.system - before.user - before.system
    return Load(cpu_s / seen["requests"] * 1e6, seen)


def _one_result(port: int, request: bytes) -> bytes:
    import socket

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        reply = connection.makefile("rb").readline()
    return bytes(msgspec.json.decode(reply, type=dict[str, msgspec.Raw])["result"])


@contextmanager
def _rag_server(folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    command = [sys.executable, "-c", _CLI.format("rag_rpc_server"), "--port", "0"]
    command += ["--store", str(folder / "market"), "--index", str(folder / "index")]
    environment = os.environ | {"LLM_TRADER_LOGGING__FORMAT": "json"}
    process = subprocess.Popen(
        [*command, "--min-matches", "1"], stderr=subprocess.PIPE, env=environment
    )
    try:
        port = next(
            event["port"]
            for event in map(json.loads, process.stderr or ())
            if event["event"] == "rpc_listening"
        )
        yield psutil.Process(process.pid), port
    finally:
        process.terminate()
        process.communicate()


@contextmanager
def _canned(kind: str, result: bytes) -> Iterator[tuple[psutil.Process, int]]:
    command = [sys.executable, "-m", "benchmarks.canned", kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if process.stdin is None or process.stdout is None:
        raise SystemExit("no pipes")
    try:
        process.stdin.write(result)
        process.stdin.close()
        yield psutil.Process(process.pid), int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
