"""The commands of the README, run as they stand there, on a simulated market."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import typer

from llm_trader.cli.main import app
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import simulate
from llm_trader.timeframe import DAY_MS, M5, Timeframe, parse_rfc3339
from tests.cli.corridor import SYMBOLS, console_script, serving_process
from tests.llm.stub.server import TEST_KEY, StubServer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The data ends days after the time that the README asks about.
END_MS = parse_rfc3339("2026-03-25T00:00:00Z")
DAYS = 150
PROGRAMS = {"rag-ingest": "ingest", "rag-rpc-server": "serve"}


def commands(
    program: str = r"(?:llm-trader|rag-ingest|rag-rpc-server)", page: str = README
) -> list[list[str]]:
    """The command lines in the blocks of a page, in their order, as words."""
    blocks = re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [
        shlex.split(line, comments=True) for line in lines if re.match(rf"{program}(?= )", line)
    ]


def command_starting(words: str) -> list[str]:
    (command,) = [line for line in commands() if " ".join(line).startswith(words)][:1]
    return command


PAGES = [README, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]


@cache
def commands_of_program() -> Any:
    return typer.main.get_command(app)


@pytest.mark.parametrize(
    "command", [command for page in PAGES for command in commands(page=page)], ids=" ".join
)
def test_every_command_of_the_documents_has_the_flags_that_it_names(command: list[str]) -> None:
    node = commands_of_program()
    for word in [PROGRAMS[command[0]]] if command[0] in PROGRAMS else command[1:]:
        node = getattr(node, "commands", {}).get(word, node)
    known = {flag for option in node.params for flag in option.opts}
    flags = {word for word in command if word.startswith("-")}
    assert flags <= known


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with my-data/, the files of an exchange."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my-data").mkdir()
    for symbol in SYMBOLS:
        start_ms = END_MS - DAYS * DAY_MS
        write_files(simulate(symbol, start_ms=start_ms, days=DAYS, seed=7, timeframe=M5), folder)
    return folder


def write_files(history: MarketHistory, folder: Path) -> None:
    candles, funding, interest = history.intraday, history.funding, history.open_interest
    tables = {
        "candles_5m": {"timestamp_ms": candles.open_time_ms, **dict(candles.columns())},
        "funding_8h": {
            "timestamp_ms": funding.time_ms,
            "funding_rate": funding.rate,
            "interval_hours": funding.interval_hours,
        },
        f"open_interest_{Timeframe(history.open_interest_interval_ms)}": {
            "timestamp_ms": interest.time_ms,
            "open_interest": interest.open_interest,
        },
    }
    for kind, columns in tables.items():
        path = folder / "my-data" / f"bybit_linear_{history.symbol}_{kind}.parquet"
        pl.DataFrame(columns).write_parquet(path)


def run(folder: Path, command: list[str], **variables: str) -> str:
    """The output of a command in the folder; fails if the command does."""
    line = [console_script(command[0]), *command[1:]]
    env = {**os.environ, "COLUMNS": "80", **variables}
    ran = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def ingested(folder: Path) -> Path:
    """The folder after the first commands of the README."""
    for start in ("llm-trader data import", "llm-trader data info", "rag-ingest --symbols"):
        run(folder, command_starting(start))
    return folder


@pytest.fixture
def port(ingested: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where the server of the README listens."""
    monkeypatch.chdir(ingested)
    with serving_process(*command_starting("rag-rpc-server")[1:]) as (process, port):
        yield port
        process.terminate()
        process.wait(20)


@pytest.mark.soak
def test_the_first_hour_works_as_it_is_written(ingested: Path, port: int) -> None:
    query = command_starting("llm-trader query")
    answer = run(ingested, query, LLM_TRADER_SERVING__PORT=str(port))
    assert answer.startswith("Verdict: ")
    assert "BTCUSDT at 2026-03-20T12:00:00Z" in answer
    assert "no leak" in run(ingested, command_starting("llm-trader leak-check"))
    match = re.search(r"^echo '(.*)' \| nc ", README, re.MULTILINE)
    assert match is not None
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(match[1].encode() + b"\n")
        reply = json.loads(connection.makefile().readline())
    assert len(reply["result"]["matches"]) == 5
    run(ingested, command_starting("llm-trader backup create"))
    listed = run(ingested, command_starting("llm-trader backup list"))
    (name,) = re.findall(r"^(20\S+) ", listed, re.MULTILINE)
    verify = command_starting("llm-trader backup verify")
    assert "whole: " in run(ingested, [name if word == "NAME" else word for word in verify])


@pytest.mark.soak
def test_the_commands_of_decisions_work_as_they_are_written(ingested: Path) -> None:
    with StubServer() as stub:
        variables = {"ANTHROPIC_API_KEY": TEST_KEY, "LLM_TRADER_LLM__BASE_URL": stub.url}
        for command in commands("llm-trader (?:decide|prompt|decisions|replay)"):
            run(ingested, command, **variables)
        assert len(stub.requests) == 2


def test_the_sample_answer_is_what_the_demo_prints() -> None:
    maker = sample_maker()
    assert maker.shown_in(README) == maker.sample()


def sample_maker() -> ModuleType:
    path = ROOT / "scripts" / "readme_sample.py"
    spec = importlib.util.spec_from_file_location("readme_sample", path)
    if spec is None or spec.loader is None:
        pytest.fail(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_commands_of_the_evaluation_work_as_they_are_written(ingested: Path) -> None:
    """Minutes: each command evaluates two symbols."""
    (ingested / "my-forecasts.csv").write_text(
        "symbol,time,horizon,q10,q50,q90\n"
        + "".join(
            f"{symbol},2026-03-{day:02}T{hour:02}:00:00Z,1h,-0.5,0.0,0.5\n"
            for symbol in SYMBOLS
            for day in range(1, 21)
            for hour in range(24)
        )
    )
    for command in commands("llm-trader (?:evaluate|calibrate)"):
        if "llm" not in command:  # those ask a model, which costs money
            run(ingested, command)
    calibrated = command_starting(
        "rag-rpc-server --store var/bybit --index var/index --calibration"
    )
    assert (ingested / calibrated[-1]).is_file()
