"""A server beyond its capacity: it sheds, answers what it accepts in time, and recovers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from benchmarks.workers import flood

from llm_trader.timeframe import HOUR_MS
from tests.app.workers.fleet import fleet_of
from tests.cli.corridor import AT_MS, SYMBOL, Corridor
from tests.rpc.http import raw

_DEADLINE_S = 0.3
# Of the reply on its way, and of a client on the same cores.
_ON_THE_WAY_MS = 500


@pytest.mark.soak
def test_beyond_capacity_it_sheds_with_32012_and_recovers_within_5_s(
    corridor: Corridor, tmp_path: Path
) -> None:
    lines = [
        json.dumps(
            raw.call("rag.query_patterns", {"symbol": SYMBOL, "timestamp": AT_MS - n * HOUR_MS}),
            separators=(",", ":"),
        ).encode()
        + b"\n"
        for n in range(12)
    ]
    with fleet_of(corridor, tmp_path, "--no-http") as fleet:
        fleet.toml.write_text(f"[serving]\nrequest_deadline_s = {_DEADLINE_S}\n")
        fleet.process.send_signal(1)  # SIGHUP
        fleet.wait_for("settings_reloaded")
        seen = asyncio.run(flood(fleet.port, lines, 6.0))
    accepted = len(seen.accepted_ms)
    assert accepted > 50
    # -32013 are those that were at work at the deadline.
    refused = sum(seen.codes.values())
    assert set(seen.codes) <= {-32012, -32013}
    assert seen.codes[-32012] >= 0.9 * refused > 0
    assert seen.accepted_ms[int(accepted * 0.99)] <= _DEADLINE_S * 1000 + _ON_THE_WAY_MS
    assert seen.recovered_s <= 5
