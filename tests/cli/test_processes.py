"""The installed programs as processes: signals, kills, closed pipes, and each other's data."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_trader import __version__
from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.timeframe import DAY_MS, iso8601
from tests.cli.corridor import (
    AT_MS,
    END_MS,
    POINTS,
    START_MS,
    SYMBOL,
    WARM_MS,
    Corridor,
    console_script,
    serving_process,
    until,
)
from tests.processes import Forked, run

# Many small transactions, so that a signal meets an ingestion at work.
SLOWLY = {**os.environ, "LLM_TRADER_INGEST__BATCH_DAYS": "1"}
FIVE_MINUTELY = (END_MS - DAY_MS - WARM_MS) // 300_000 + 1


def ingest_line(corridor: Corridor, index: Path, *more: str) -> list[str]:
    line = [console_script("rag-ingest"), "--symbols", SYMBOL, "--start", iso8601(START_MS)]
    return [*line, "--store", str(corridor.store), "--index", str(index), "--json", *more]


class Line:
    """A connection to a server, one question at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._replies = self._socket.makefile("rb")

    def send(self, *requests: tuple[int, str, Any]) -> None:
        for call_id, method, params in requests:
            request = {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}
            self._socket.sendall(json.dumps(request).encode() + b"\n")

    def receive(self) -> Any:
        line = self._replies.readline()
        return json.loads(line) if line else None

    def call(self, method: str, params: Any = ()) -> Any:
        self.send((1, method, params))
        return self.receive()["result"]

    def points(self) -> int:
        held = self.call("rag.stats")["index"]["symbols"]
        return next((s["points"] for s in held if s["symbol"] == SYMBOL), 0)

    def close(self) -> None:
        self._replies.close()
        self._socket.close()


@contextmanager
def line_to(port: int) -> Iterator[Line]:
    line = Line(port)
    try:
        yield line
    finally:
        line.close()


def points_in(index: EmbeddedIndex) -> int:
    return len(asyncio.run(index.timestamps(SYMBOL)))


def partly_ingested(corridor: Corridor, path: Path, until_ms: int) -> Path:
    settings = corridor.settings(index__path=path)
    ingest_from_store(Job(settings, {}, END_MS), [SYMBOL], START_MS, until_ms)
    return path


def test_a_running_server_sees_within_a_second_what_another_process_ingests(
    corridor: Corridor, tmp_path: Path
) -> None:
    day_40 = START_MS + 40 * DAY_MS
    index = partly_ingested(corridor, tmp_path / "index", day_40)
    paths = ("--store", str(corridor.store), "--index", str(index))
    query = {"symbol": SYMBOL, "timestamp": AT_MS, "query_config": {"top_k": 50}}
    query["query_config"] |= {"min_similarity": 0, "min_gap_hours": 0, "lookback_days": 14}
    with serving_process(*paths, "--min-matches", "0") as (process, port), line_to(port) as line:
        before = line.points()
        assert before == (day_40 - WARM_MS) // 900_000 + 1
        assert line.call("rag.query_patterns", query)["matches"] == []
        run(ingest_line(corridor, index)).check_returncode()
        assert until(lambda: line.points() == POINTS, seconds=1)
        matches = line.call("rag.query_patterns", query)["matches"]
        assert len(matches) == 50
        assert min(match["timestamp"] for match in matches) > day_40
        assert process.poll() is None


@pytest.mark.soak
def test_a_killed_ingestion_leaves_the_server_beside_it_answering(
    corridor: Corridor, tmp_path: Path
) -> None:
    index = partly_ingested(corridor, tmp_path / "index", WARM_MS)
    paths = ("--store", str(corridor.store), "--index", str(index))
    query = {"symbol": SYMBOL, "timestamp": AT_MS}
    with serving_process(*paths, "--min-matches", "0") as (_, port), line_to(port) as line:
        with Forked(
            ingest_line(corridor, index, "--interval", "5"), env=SLOWLY, stdout=subprocess.DEVNULL
        ) as ingestion:
            assert until(lambda: line.points() > 1, seconds=30)
            ingestion.kill()
        assert ingestion.returncode == -signal.SIGKILL
        held = line.points()
        assert 1 < held < FIVE_MINUTELY
        assert "matches" in line.call("rag.query_patterns", query)
        rerun = subprocess.run(
            ingest_line(corridor, index, "--interval", "5"), check=True, capture_output=True
        )
        assert json.loads(rerun.stdout)[0]["added"] == FIVE_MINUTELY - held
        assert until(lambda: line.points() == FIVE_MINUTELY, seconds=1)
        assert len(line.call("rag.query_patterns", query)["matches"]) == 5


@pytest.mark.soak
def test_ctrl_c_says_that_nothing_is_lost_and_a_rerun_completes(
    corridor: Corridor, tmp_path: Path
) -> None:
    path = partly_ingested(corridor, tmp_path / "index", WARM_MS)
    command = ingest_line(corridor, path, "--interval", "5")
    with EmbeddedIndex.open(path) as index:
        with Forked(
            command, env=SLOWLY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as ingestion:
            assert until(lambda: points_in(index) > 1, seconds=30)
            ingestion.send_signal(signal.SIGINT)
            out, err = ingestion.communicate(timeout=30)
        assert (ingestion.returncode, out) == (130, "")
        assert err == "interrupted; finished work is kept, run the command again\n"
        held = points_in(index)
        assert 1 < held < FIVE_MINUTELY
        rerun = subprocess.run(command, check=True, capture_output=True)
        report = json.loads(rerun.stdout)[0]
        assert (report["already_there"], report["added"]) == (held, FIVE_MINUTELY - held)
        assert points_in(index) == FIVE_MINUTELY


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)]
)
def test_a_server_that_is_told_to_stop_answers_first_and_exits_with_zero(
    corridor: Corridor, signum: signal.Signals
) -> None:
    paths = ("--store", str(corridor.store), "--index", str(corridor.index))
    with serving_process(*paths) as (process, port), line_to(port) as line:
        params = {"symbol": SYMBOL, "timestamp": AT_MS}
        line.send(*((n, "rag.query_patterns", params) for n in range(10)))
        replies = [line.receive()]
        process.send_signal(signum)
        while reply := line.receive():
            replies.append(reply)
        assert sorted(reply["id"] for reply in replies) == list(range(10))
        assert len(replies[0]["result"]["matches"]) == 5
        refused = [reply["error"] for reply in replies if "error" in reply]
        assert all("draining" in error["message"] for error in refused)
        assert process.stderr is not None
        log = [json.loads(event) for event in process.stderr]
        assert process.wait(20) == 0
    assert log[-1]["event"] == "rpc_stopped"
    assert log[-1]["unfinished_answers"] == 0


@pytest.mark.soak
def test_a_log_level_given_on_the_command_line_is_heeded(corridor: Corridor) -> None:
    paths = ("--store", str(corridor.store), "--index", str(corridor.index))
    with serving_process(*paths, "--log-level", "debug") as (process, port):
        with line_to(port) as line:
            line.call("rpc.ping")
        process.terminate()
        _, log = process.communicate(timeout=20)
    events = [json.loads(event) for event in log.splitlines()]
    (request,) = [event for event in events if event["event"] == "rpc_request"]
    assert (request["method"], request["level"]) == ("rpc.ping", "debug")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("data info --store {store}", marks=pytest.mark.soak),
        pytest.param("--help", marks=pytest.mark.soak),
        *("data info --json --store {store}", "--version"),
    ],
)
def test_an_output_that_nobody_reads_is_no_traceback(corridor: Corridor, command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = command.format(store=corridor.store).split()
    try:
        ran = subprocess.run(
            [console_script("llm-trader"), *line], stdout=writing, stderr=subprocess.PIPE
        )
    finally:
        os.close(writing)
    # As if the signal had ended it: neither fine nor, as 1 would say for leak-check, leaking.
    assert (ran.returncode, ran.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("rag-ingest", ["--store", "none"]),
        # The others start the same way.
        pytest.param("rag-rpc-server", ["--index", "none"], marks=pytest.mark.soak),
        pytest.param("llm-trader", ["leak-check", "--store", "none"], marks=pytest.mark.soak),
    ],
)
def test_the_installed_programs_start_and_report_errors_on_standard_error(
    program: str, arguments: list[str], tmp_path: Path
) -> None:
    ran = subprocess.run(
        [console_script(program), *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "beginning"),
    [
        ("llm-trader --version", f"llm-trader-rag {__version__}\n"),
        ("rag-rpc-server --help", "Usage: rag-rpc-server "),
    ],
)
def test_the_installed_programs_tell_their_version_and_options(line: str, beginning: str) -> None:
    program, flag = line.split()
    ran = subprocess.run([console_script(program), flag], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(beginning)


def test_asking_for_help_loads_no_heavy_library() -> None:
    code = "import sys; sys.argv = ['llm-trader', '--help']\n"
    code += "from llm_trader.cli.main import main\n"
    code += "try:\n    main()\nfinally:\n    print(sorted({'numpy', 'polars', 'lmdb', 'talib',"
    code += " 'anthropic', 'openai'} & set(sys.modules)))"
    ran = subprocess.run(
        [console_script("python"), "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "[]"
