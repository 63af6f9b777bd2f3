"""What a person sees who only asks: --help, --version, and typing something wrong."""

from __future__ import annotations

import pytest

from llm_trader import __version__
from tests.cli.conftest import Typing

PATHS = "--store --index --config"
OPTIONS = {
    "llm-trader": "--version",
    "llm-trader data import": "--exchange --store --map --symbol --kind --interval --config --json",
    "llm-trader data info": "--store --config --json",
    "llm-trader data simulate": "--store --days --symbols --seed --start --config --json",
    "llm-trader ingest": f"--symbols --start --end --interval --intraday --log-level {PATHS}",
    "llm-trader serve": f"--host --port --min-matches --auth-tokens-env --log-level {PATHS}",
    "llm-trader query": "--symbol --at --state --top-k --lookback-days --min-similarity "
    "--regime-filters --no-regime-filters --host --port --config --json",
    "llm-trader leak-check": f"--symbols --samples --seed --json {PATHS}",
    "llm-trader calibrate": f"--symbols --start --end --out --json {PATHS[:7]}",
    "llm-trader evaluate": f"--symbols --start --end --step --vector --lookback-days --sweep "
    f"--embargo-hours --out --seed --jobs --json {PATHS}",
    "llm-trader evaluate compare": f"--vectors --symbols --step --out --seed --jobs --json {PATHS}",
    "llm-trader evaluate ab": f"--arm-a --arm-b --decider --out --seed --jobs --json {PATHS}",
    "llm-trader evaluate gate": "--baseline --metrics --tolerance --store --index --out --json",
    "llm-trader demo": "--keep --days --seed",
    "rag-ingest": f"-s -e -i -l --symbols --start --end --interval --json {PATHS}",
    "rag-rpc-server": f"-p -l --host --port --allow-unauthenticated-remote {PATHS}",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(typed: Typing, command: str) -> None:
    for flag in ("--help", "-h"):
        ran = typed(command, flag)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(f"Usage: {command}")
        words = set(ran.out.replace(",", " ").split())
        assert set(OPTIONS[command].split()) <= words


def test_the_commands_are_listed_with_what_they_do(typed: Typing) -> None:
    shown = typed("llm-trader --help").out
    for command in ("ingest", "serve", "query", "leak-check", "evaluate", "demo", "data"):
        (line,) = [li for li in shown.splitlines() if li.startswith(f"  {command} ")]
        assert len(line.split()) > 4


def test_version_is_the_packages(typed: Typing) -> None:
    ran = typed("llm-trader --version")
    assert (ran.code, ran.out) == (0, f"llm-trader-rag {__version__}\n")


@pytest.mark.parametrize("command", ["llm-trader", "llm-trader data"])
def test_a_command_alone_shows_its_help(typed: Typing, command: str) -> None:
    ran = typed(command)
    assert ran.code == 2
    assert "Commands:" in ran.out + ran.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("llm-trader ingets", "No such command 'ingets'"),
        ("llm-trader query", "Missing option '--symbol'"),
        ("llm-trader data import .", "Missing option '--exchange'"),
        ("rag-ingest --symbol BTCUSDT", "No such option: --symbol"),
        ("rag-rpc-server --port http", "Invalid value for '--port'"),
        ("llm-trader leak-check --samples 0", "Invalid value for '--samples'"),
        ("llm-trader demo --days 119", "Invalid value for '--days'"),
    ],
)
def test_a_mistyped_command_line_is_a_usage_error(typed: Typing, line: str, told: str) -> None:
    ran = typed(line)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "Usage: " in ran.err
