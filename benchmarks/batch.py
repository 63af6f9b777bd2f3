"""One request of many queries of a symbol, against as many single requests, over the socket."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import psutil

from benchmarks.processes import rag_server
from benchmarks.timing import Figure
from benchmarks.workload import SYMBOLS, classic_params, states

_QUERIES = 1000
_ROUNDS = 3
_TARGET = 1 / 3
_MOST_PING_MS = 100
_MOST_QUERY_RATIO = 20
# A machine that others use as well takes longer than the default.
_PATIENT = {"LLM_TRADER_SERVING__REQUEST_DEADLINE_S": "120"}


def batch(folder: Path) -> list[Figure]:
    """The same queries both ways in turn, at times at random, the caches of both as they come."""
    table = states(SYMBOLS[0], 60)
    rows = np.random.default_rng(1).integers(0, len(table), _QUERIES)
    queries = [classic_params(table, int(row)) for row in rows]
    single = [_request("rag.query_patterns", query) for query in queries]
    together = [_request("rag.query_batch", {"queries": queries})]
    with rag_server(folder, **_PATIENT) as (process, port):
        _cpu_s(process, port, single)  # now every day has been asked for once
        rounds = [
            (_cpu_s(process, port, together), _cpu_s(process, port, single)) for _ in range(_ROUNDS)
        ]
        alone_s = median(_wait_s(port, request) for request in single[:40])
        pings_s, queries_s = _waits_beside(port, together[0], single)
    ratio = median(many / one for many, one in rounds)
    many_s, one_s = (median(each) for each in zip(*rounds, strict=True))
    return [
        Figure(
            f"{_QUERIES:,} queries of one symbol in one request, against as many single ones: "
            "server CPU",
            f"{ratio:.2f} x ({many_s / _QUERIES * 1e6:.0f} µs a query, "
            f"single {one_s / _QUERIES * 1e6:.0f} µs)",
            "0.33 x",
            ratio <= _TARGET,
        ),
        _beside("a ping", [wait_s * 1e3 for wait_s in pings_s], "ms", _MOST_PING_MS),
        _beside(
            "a query", [wait_s / alone_s for wait_s in queries_s], "x alone", _MOST_QUERY_RATIO
        ),
    ]


def _beside(what: str, waits: list[float], unit: str, most: float) -> Figure:
    middle, late = np.percentile(waits, [50, 99])
    return Figure(
        f"  {what} of another client meanwhile, median / 99th percentile",
        f"{middle:.1f} / {late:.1f} {unit} ({len(waits)} in all)",
        f"{most} {unit}",
        bool(late <= most),
    )


def _waits_beside(
    port: int, together: bytes, single: list[bytes]
) -> tuple[list[float], list[float]]:
    """The waits for pings and for queries of other connections while batches are under way."""
    pings_s: list[float] = []
    queries_s: list[float] = []
    ping = _request("rpc.ping", {})
    for _ in range(_ROUNDS):
        with ThreadPoolExecutor(1) as pool:
            batch = pool.submit(_wait_s, port, together)
            while not batch.done():
                pings_s.append(_wait_s(port, ping))
                queries_s.append(_wait_s(port, single[len(queries_s) % len(single)]))
                time.sleep(0.005)
    return pings_s, queries_s


def _wait_s(port: int, request: bytes) -> float:
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        connection.makefile("rb") as replies,
    ):
        started_s = time.perf_counter()
        connection.sendall(request)
        replies.readline()
        return time.perf_counter() - started_s


def _request(method: str, params: Any) -> bytes:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return msgspec.json.encode(request) + b"\n"


def _cpu_s(process: psutil.Process, port: int, requests: list[bytes]) -> float:
    before = process.cpu_times()
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        connection.makefile("rb") as replies,
    ):
        for request in requests:
            connection.sendall(request)
            if b'"error"' in replies.readline():
                raise SystemExit("a query was refused")
    after = process.cpu_times()
    return after.user + after.system - before.user - before.system
