"""A hundred connections for long, beside a server that does nothing, and more than it can do.

`python -m benchmarks --only endurance` takes SOAK_MINUTES (10) for each of the two.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.processes import canned_doors, one_result, rag_server_doors, request_line
from benchmarks.timing import Figure
from benchmarks.workload import SYMBOLS, states

_CONNECTIONS = 100
# The busiest hour asks twice as much as the others; at twice this, waits would be those of a crowd.
_PART_OF_CAPACITY = 0.4
_SLICES = 10
_DEADLINE_S = 1.0
_CROWD = 480  # at a capacity of 200 a second, twice what has its turn within the deadline
_RECOVERY_S = 5.0


def soak_seconds() -> float:
    return 60 * float(os.environ.get("SOAK_MINUTES", "10"))


def endurance(folder: Path) -> list[Figure]:
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    lines = [request_line(tables, int(i), row=None, rng=rng) for i in rng.integers(0, 3, 500)]
    return [*_endurance(folder, lines), *_overload(folder, lines)]


def _endurance(folder: Path, lines: list[bytes]) -> list[Figure]:
    slice_s = soak_seconds() / _SLICES
    with rag_server_doors(folder) as (process, ports):
        _warm_up(ports, lines)
        pace = _PART_OF_CAPACITY * ask(ports, 16, 10.0, 0, lines)["answers"] / 10.0
        with canned_doors("doors", one_result(ports[0], lines[0])) as (_, no_op):
            ask(ports, _CONNECTIONS, slice_s, pace, lines)
            before = process.memory_info().rss
            subjects, floors = [], []
            for _ in range(_SLICES):
                subjects.append(ask(ports, _CONNECTIONS, slice_s, pace, lines))
                floors.append(ask((no_op[0], no_op[1]), _CONNECTIONS, slice_s, pace, lines))
            growth = process.memory_info().rss / before - 1
    faults = [seen[kind] for seen in subjects for kind in ("errors", "refusals") if seen[kind]]
    ratio = median(a["p99_ms"] / b["p99_ms"] for a, b in zip(subjects, floors, strict=True))
    p99_ms, floor_ms = (median(seen["p99_ms"] for seen in each) for each in (subjects, floors))
    told = f"{_CONNECTIONS} connections, {pace:.0f} queries a second, {soak_seconds() / 60:g} min"
    return [
        Figure(f"{told}: errors", f"{len(faults)} {faults[:3] or ''}", "0", not faults),
        Figure("  memory after the warm-up, growth", f"{growth:.2%}", "1 %", growth < 0.01),
        Figure(
            "  99th percentile, against a server that does nothing",
            f"{ratio:.1f} x ({p99_ms:.0f} ms, floor {floor_ms:.0f} ms)",
            "5 x",
            ratio <= 5,
        ),
    ]


def _overload(folder: Path, lines: list[bytes]) -> list[Figure]:
    deadline = {"LLM_TRADER_SERVING__REQUEST_DEADLINE_S": str(_DEADLINE_S)}
    with rag_server_doors(folder, **deadline) as (_, ports):
        _warm_up(ports, lines)
        alone_s = median(answer_s(ports[0], line) for line in lines[:50])
        crowd = ask(ports, _CROWD, min(60.0, soak_seconds() / 4), 0, lines)
        recovery_s = recovered_after_s(ports[0], lines, 3 * alone_s)
    shed = crowd["refusals"].get("-32012", 0)
    others = {code: count for code, count in crowd["refusals"].items() if code != "-32012"}
    p99_s = crowd["p99_ms"] / 1000
    return [
        Figure(
            f"{_CROWD} clients that ask without pause, deadline {_DEADLINE_S:g} s: shed as -32012",
            f"{shed:,}; answered {crowd['answers']:,}; others {others or 'none'}",
            "some",
            shed > 0 and not crowd["errors"],
        ),
        Figure(
            "  99th percentile of what is answered, against the deadline",
            f"{p99_s / _DEADLINE_S:.2f} x",
            "1.5 x",
            p99_s <= 1.5 * _DEADLINE_S,
        ),
        Figure(
            "  seconds until a query takes no longer than 3 x one alone",
            f"{recovery_s:.2f}",
            f"{_RECOVERY_S:g}",
            recovery_s <= _RECOVERY_S,
        ),
    ]


def _warm_up(ports: tuple[int, int], lines: list[bytes]) -> None:
    """Every day is asked for once, and each of the connections to come has been there."""
    ask(ports, _CONNECTIONS, 15.0, 0, lines)


def ask(
    ports: tuple[int, int], connections: int, seconds: float, per_second: float, lines: list[bytes]
) -> dict[str, Any]:
    """What so many clients saw; see `benchmarks.paced`."""
    numbers = map(str, (*ports, connections, seconds, per_second))
    command = [sys.executable, "-m", "benchmarks.paced", *numbers]
    done = subprocess.run(command, input=b"".join(lines), capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load failed: {done.stderr.decode()[-2000:]}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def answer_s(port: int, line: bytes) -> float:
    """The seconds of one query on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started_s = time.monotonic()
        connection.sendall(line)
        reply = connection.makefile("rb").readline()
        return time.monotonic() - started_s if b'"result"' in reply[:60] else float("inf")


def recovered_after_s(port: int, lines: list[bytes], most_s: float) -> float:
    """The seconds until three queries in a row take at most so long; infinite after 30."""
    started_s, in_a_row = time.monotonic(), 0
    for line in lines:
        in_a_row = in_a_row + 1 if answer_s(port, line) <= most_s else 0
        elapsed_s = time.monotonic() - started_s
        if in_a_row == 3:
            return elapsed_s
        if elapsed_s > 30:
            break
    return float("inf")
