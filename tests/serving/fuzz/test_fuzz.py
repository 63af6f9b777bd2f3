"""Mutated frames over real sockets: valid answers, no wedged connection, flat memory, clean log."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.cli.corridor import Corridor
from tests.serving.fuzz.rounds import DOORS, run_rounds
from tests.serving.server_process import Server, server_of

# Of each door, in so many steps; memory is compared from the second step on.
QUICK = {"tcp": 240, "http": 60, "websocket": 160}
THOROUGH = {"tcp": 80_000, "http": 50_000, "websocket": 70_000}
STEPS = 4
# A step of the quick run fills caches that a step of the thorough one has long filled.
MOST_GROWTH_BYTES = 16 << 20


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param(THOROUGH, id="200,000", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_mutated_frames_get_valid_answers_and_leave_the_server_as_it_was(
    corridor: Corridor, tmp_path: Path, frames: dict[str, int]
) -> None:
    seed = os.environ.get("FUZZ_SEED", "1")
    settings = {
        # What a request that never ends waits for.
        "LLM_TRADER_SERVING__FRAME_TIMEOUT_S": "1",
        "LLM_TRADER_AUDIT__FOLDER": str(tmp_path / "audit"),
    }
    with server_of(corridor, settings=settings) as server:
        memory = []
        for step in range(STEPS):
            for door in DOORS:
                asyncio.run(run_rounds(door, f"{seed}/{step}", frames[door] // STEPS, server))
            memory.append(server.memory())
        sizes = [f"{size / 2**20:.1f}" for size in memory]
        sys.stdout.write(f"memory after each step, MB: {sizes}; CPU: {server.cpu_s():.1f} s\n")
        assert max(memory[1:]) - memory[0] < MOST_GROWTH_BYTES
        check_log(server)


def check_log(server: Server) -> None:
    for line in server.log:
        # What is no JSON object has no level.
        assert line.get("level") in ("debug", "info", "warning"), line
        assert "exception" not in line, line
