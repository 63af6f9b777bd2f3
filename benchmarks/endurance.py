"""A hundred connections for long, beside a server that does nothing.

`python -m benchmarks --only endurance` takes SOAK_MINUTES (10) for each of the two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def soak_seconds() -> float:
    return 60 * float(os.environ.get("SOAK_MINUTES", "10"))


def endurance(folder: Path) -> list[Figure]:
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    lines = [request_line(tables, int(i), row=None, rng=rng) for i in rng.integers(0, 3, 500)]
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
