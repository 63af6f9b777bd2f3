"""A server that is killed at any time: no forecast lost that was answered, none scored twice."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.forecasts import list_journal, score_journal
from llm_trader.app.job import Job
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis
from tests.cli.corridor import AT_MS, END_MS, QUARTER_MS, SYMBOLS, Corridor, listening_port
from tests.forecasts.builders import all_lines, verify

# The clock of the server is a file, so that days pass in seconds.
SERVER = """
import os, sys
from llm_trader.cli import main, options
clock = os.open(sys.argv.pop(1), os.O_RDONLY)
options.now_ms = lambda: int(os.pread(clock, 13, 0))
main.rag_rpc_server()
"""
FIRST_MS = AT_MS - 3 * DAY_MS
_BURST = 4


class KilledServer:
    """Starts again when it is gone."""

    def __init__(self, corridor: Corridor, folder: Path, clock: Path) -> None:
        self._command = [sys.executable, "-c", SERVER, str(clock), "--port", "0", "--no-http"]
        self._command += ["--store", str(corridor.store), "--index", str(corridor.index)]
        self._command += ["--forecasts-folder", str(folder)]
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        environ = os.environ | {"LLM_TRADER_LOGGING__FORMAT": "json"}
        self.process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, env=environ
        )
        port = listening_port(self.process.stderr)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._lines = self._socket.makefile("rb")

    def ask(self, documents: list[dict[str, Any]], kill_after_s: float | None) -> list[Any]:
        """The results of those that were answered before it was killed."""
        timer = None if kill_after_s is None else threading.Timer(kill_after_s, self.process.kill)
        if timer is not None:
            timer.start()
        replies = []
        with suppress(OSError):
            self._socket.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in documents))
            while len(replies) < len(documents):
                raw = self._lines.readline()
                if not raw.endswith(b"\n"):
                    break
                replies.append(json.loads(raw))
        if timer is not None:
            timer.join()
            self.close()
            self._start()
        return [reply["result"] for reply in replies]

    def close(self) -> None:
        self.process.kill()
        self._lines.close()
        self._socket.close()
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process.wait()


def _served(corridor: Corridor, folder: Path, quarters: int, kills: int) -> list[Any]:
    """What was answered: of each quarter-hour and symbol a burst of queries of two kinds."""
    rng = random.Random(5)
    killed = set(rng.sample(range(quarters), kills))
    clock = folder.with_name("clock")
    clock.write_text(str(FIRST_MS))
    answered: list[Any] = []
    server = KilledServer(corridor, folder, clock)
    try:
        for number in range(quarters):
            as_of_ms = FIRST_MS + number * QUARTER_MS
            clock.write_text(str(as_of_ms + 20_000))
            documents = [_query(symbol, as_of_ms) for symbol in SYMBOLS]
            documents = [*documents, *documents][:_BURST]
            kill_after_s = rng.uniform(0, 0.02) if number in killed else None
            answered += server.ask(documents, kill_after_s)
    finally:
        server.close()
    assert server.starts == kills + 1
    return answered


def _query(symbol: str, as_of_ms: Millis) -> dict[str, Any]:
    params = {"symbol": symbol, "timestamp": as_of_ms + 10_000}
    return {"jsonrpc": "2.0", "id": 1, "method": "rag.query_patterns", "params": params}


def _check(corridor: Corridor, folder: Path, answered: list[Any]) -> int:
    """Returns the number of forecasts that count."""
    report = verify(folder)
    assert report.passed, report
    assert sum(chain.lost_lines for chain in report.chains) == 0
    lines = all_lines(folder)
    by_request = {line.request_id: line for line in lines}
    assert len(by_request) == len(lines)
    by_number = {line.seq: line for line in lines}  # processes one after the other are one chain
    for result in answered:
        line = by_request[result["metadata"]["request_id"]]
        numbers = line.horizons or by_number[line.same_as or 0].horizons
        for name in HORIZONS:
            named = result["evidence"]["horizons"][name]["forecast"]["quantiles"]
            assert numbers[name].forecast == [named[place] for place in (9, 24, 49, 74, 89)]
    job = Job(corridor.settings(forecasts__folder=folder), {}, END_MS)
    counted = {(line.symbol, line.as_of_ms) for line in lines}
    listed = list_journal(job, None)
    assert listed.waiting == []
    times = Counter((one.symbol, one.as_of_ms, one.horizon) for one in listed.scored)
    assert times == Counter((*key, name) for key in counted for name in HORIZONS)
    quality = score_journal(job, None, 30)
    assert [one.scored for one in quality.horizons] == [len(counted)] * len(HORIZONS)
    return len(counted)


def _change(folder: Path, line_number: int) -> None:
    (path,) = folder.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line_number] = lines[line_number].replace(b'"p_up":0.', b'"p_up":0.9', 1)
    path.write_bytes(b"".join(lines))


def test_a_killed_server_has_written_what_it_answered_and_goes_on(
    corridor: Corridor, tmp_path: Path
) -> None:
    folder = tmp_path / "forecasts"
    answered = _served(corridor, folder, quarters=6, kills=1)
    assert len(answered) >= 5 * _BURST
    assert _check(corridor, folder, answered) >= 10
    _change(folder, 1)
    (problem, *_) = verify(folder).chains[0].problems
    assert problem.line == 2


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_of_a_thousand_forecasts_under_random_kills_none_is_lost_or_scored_twice(
    corridor: Corridor, tmp_path: Path
) -> None:
    folder = tmp_path / "forecasts"
    answered = _served(corridor, folder, quarters=540, kills=30)
    assert _check(corridor, folder, answered) >= 1000
    for line_number in (1, 500, 1500):
        copy = tmp_path / f"changed-{line_number}"
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        (path,) = copy.glob("*.jsonl")
        lines = path.read_bytes().splitlines(keepends=True)
        lines[line_number] = lines[line_number].replace(b'"request_id":"', b'"request_id":"x', 1)
        path.write_bytes(b"".join(lines))
        assert line_number + 1 in [p.line for p in verify(copy).chains[0].problems]
