"""A hundred connections for long, and more than the server can do: errors, memory, recovery.

The speed beside a server that does nothing is a benchmark: `python -m benchmarks --only endurance`.
"""

from __future__ import annotations

import json
import sys
from statistics import median

import pytest
from benchmarks.endurance import answer_s, ask, recovered_after_s, soak_seconds

from tests.cli.corridor import Corridor
from tests.serving.server_process import Server, server_of
from tests.serving.test_attack import query

LINES = [json.dumps(query(n)).encode() + b"\n" for n in range(800)]


def ports(server: Server) -> tuple[int, int]:
    return server.port, server.http_port


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_connections_see_no_error_and_memory_stays(corridor: Corridor) -> None:
    """For SOAK_MINUTES, by TCP and HTTP."""
    with server_of(corridor) as server:
        ask(ports(server), 100, 15, 0, LINES)
        # So that a machine that others use as well is not overloaded.
        per_second = 0.3 * ask(ports(server), 16, 10, 0, LINES)["answers"] / 10
        ask(ports(server), 100, 5, per_second, LINES)
        before = server.memory()
        seen = ask(ports(server), 100, soak_seconds(), per_second, LINES)
        growth = server.memory() / before - 1
        sys.stdout.write(f"{seen}; memory {before >> 20} MB, growth {growth:.2%}\n")
        assert (seen["errors"], seen["refusals"]) == ({}, {})
        assert seen["answers"] > 0.9 * soak_seconds() * per_second
        assert growth < 0.01
        assert not [line for line in server.log if line.get("level") == "error"]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_beyond_its_capacity_the_server_sheds_and_recovers(corridor: Corridor) -> None:
    deadline_s = 0.5
    settings = {"LLM_TRADER_SERVING__REQUEST_DEADLINE_S": str(deadline_s)}
    with server_of(corridor, settings=settings) as server:
        ask(ports(server), 16, 5, 0, LINES)
        alone_s = median(answer_s(server.port, line) for line in LINES[:50])
        seen = ask(ports(server), 480, 20, 0, LINES)
        recovery_s = recovered_after_s(server.port, LINES, 5 * alone_s)
        sys.stdout.write(f"{seen}; recovered after {recovery_s:.2f} s\n")
        assert seen["errors"] == {}
        assert seen["refusals"]["-32012"] > seen["refusals"].get("-32013", 0)
        assert seen["answers"] > 20
        # Bounded: a request waits no longer than its deadline before it is answered.
        assert seen["p99_ms"] < 3000 * deadline_s
        assert recovery_s < 5
