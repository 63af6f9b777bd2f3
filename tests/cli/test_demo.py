"""`llm-trader demo` from end to end: what it shows, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from psutil import Process

from llm_trader.timeframe import DAY_MS
from tests.cli.conftest import Typing
from tests.cli.corridor import START_MS, console_script, until

DAYS = 120
STEPS = (
    "1. A simulated market of 120 days, written to an LMDB store",
    "2. A snapshot of every quarter-hour",
    "3. The JSON-RPC server answers on 127.0.0.1:",
    "4. A query over the socket: BTCUSDT at 2025-05-01T00:00:00Z",
    "Verdict: ",
    "What to expect, beside what is usual",
    "Similar past states, nearest first",
    "5. The server has stopped.",
    "Done in ",
)


def demo(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The demo with `folder` as the place of temporary files and as the working folder."""
    return subprocess.run(
        [console_script("llm-trader"), "demo", "--days", str(DAYS), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), **variables},
    )


def processes_about(folder: Path) -> list[Process]:
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if any(str(folder) in word for word in p.info["cmdline"] or ())]


@pytest.mark.soak
def test_the_demo_shows_every_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ran = demo(tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    places = [ran.stdout.find(step) for step in STEPS]
    assert -1 not in places
    assert places == sorted(places)
    assert list(tmp_path.iterdir()) == []
    assert processes_about(tmp_path) == []


@pytest.mark.soak
def test_the_demo_keeps_its_folder_when_told_whatever_the_settings_around_it(
    typed: Typing, tmp_path: Path
) -> None:
    around = {
        "LLM_TRADER_LOGGING__LEVEL": "error",
        "LLM_TRADER_SERVING__AUTH_TOKENS_ENV": "MY_TOKENS",
        "MY_TOKENS": "secret",
        "LLM_TRADER_SERVING__HOST": "192.0.2.1",
        "LLM_TRADER_INDEX__QDRANT__URL": "http://127.0.0.1:9",
        "LLM_TRADER_RETRIEVAL__VECTOR": "text",
    }
    ran = demo(tmp_path, "--keep", "kept", "--seed", "8", **around)
    assert ran.returncode == 0, ran.stderr
    assert "rag-rpc-server --store kept/market --index kept/index" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert processes_about(tmp_path) == []
    described = typed("llm-trader data info --json --store", tmp_path / "kept" / "market").json
    assert {series["symbol"] for series in described["series"]} == {"BTCUSDT", "ETHUSDT"}
    assert described["series"][0]["provenance"][0]["source"] == "simulation, seed 8"
    line = "rag-ingest --start 2025-01-01T00:00:00Z --end 2025-04-30T00:00:00Z --json"
    line += f" --store {tmp_path / 'kept' / 'market'} --index {tmp_path / 'kept' / 'index'}"
    for report in typed(line).json:
        assert report["added"] == 0
        warm_ms = START_MS + 20 * DAY_MS
        last_ms = START_MS + (DAYS - 1) * DAY_MS
        assert report["already_there"] == (last_ms - warm_ms) // 900_000 + 1


@pytest.mark.soak
def test_a_demo_that_is_told_to_stop_takes_its_server_and_its_folder_along(tmp_path: Path) -> None:
    with subprocess.Popen(
        [console_script("llm-trader"), "demo", "--days", str(DAYS)],
        stdout=subprocess.DEVNULL,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as running:
        assert until(lambda: len(processes_about(tmp_path)) > 0, seconds=60)
        running.terminate()
    assert running.returncode == 128 + signal.SIGTERM
    assert until(lambda: processes_about(tmp_path) == [], seconds=10)
    assert list(tmp_path.iterdir()) == []
