"""A hundred connections for long: no error, and memory that stays.

The speed beside a server that does nothing is a benchmark: `python -m benchmarks --only endurance`.
"""

from __future__ import annotations

import json
import sys

import pytest
from benchmarks.endurance import ask, soak_seconds

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
        ask(ports(server), 100, min(90, soak_seconds() / 2), per_second, LINES)
        before = server.memory()
        seen = ask(ports(server), 100, soak_seconds(), per_second, LINES)
        growth = server.memory() / before - 1
        sys.stdout.write(f"{seen}; memory {before >> 20} MB, growth {growth:.2%}\n")
        assert (seen["errors"], seen["refusals"]) == ({}, {})
        assert seen["answers"] > 0.9 * soak_seconds() * per_second
        assert growth < 0.01
        assert not [line for line in server.log if line.get("level") == "error"]
