"""What a person sees who only asks: --help, --version, and typing something wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from llm_trader import __version__
from llm_trader.cli.main import app
from llm_trader.cli.options import SETTING_FLAGS
from llm_trader.settings.tree import SETTINGS
from tests.cli.conftest import Typing

PATHS = "--store --index --config"
OPTIONS = {
    "llm-trader": "--version",
    "llm-trader data import": "--exchange --store --map --symbol --kind --interval --config --json",
    "llm-trader data info": "--store --config --json",
    "llm-trader data prune": "--keep-days --dry-run --store --index --config --json",
    "llm-trader data simulate": "--store --days --symbols --seed --start --config --json",
    "llm-trader ingest": f"--symbols --start --end --interval --intraday --log-level {PATHS}",
    "llm-trader serve": f"--host --port --min-matches --auth-tokens-env --log-level {PATHS}",
    "llm-trader query": "--symbol --at --state --top-k --lookback-days --min-similarity "
    "--regime-filters --no-regime-filters --host --port --config --json",
    "llm-trader decide": f"--symbol --at --provider --model --arm --masked --ask-again --record "
    f"--json {PATHS}",
    "llm-trader replay": "--record --config --json",
    "llm-trader prompt show": f"--symbol --at --arm --masked --json {PATHS}",
    "llm-trader decisions list": "--symbol --model --arm --action --hold --origin --since --limit",
    "llm-trader decisions stats": "--horizon --store --record --config --json",
    "llm-trader leak-check": f"--symbols --samples --seed --json {PATHS}",
    "llm-trader calibrate": f"--symbols --start --end --out --json {PATHS[:7]}",
    "llm-trader evaluate": f"--plan --symbols --start --end --step --vector --lookback-days "
    f"--sweep --embargo-hours --out --seed --jobs --json {PATHS}",
    "llm-trader evaluate compare": f"--plan --vectors --symbols --seed --jobs --json {PATHS}",
    "llm-trader evaluate ab": f"--plan --arm-a --arm-b --decider --seed --jobs --json {PATHS}",
    "llm-trader evaluate gate": f"--baseline --metrics --tolerance --out --json {PATHS}",
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


# The demo has settings of its own, as a simulated market belongs in no real index; the other two
# take files as arguments.
_WITHOUT_CONFIG = ("llm-trader demo", "llm-trader config check", "llm-trader config diff")


def _command_names() -> Iterator[str]:
    commands: list[tuple[str, Any]] = [("llm-trader", typer.main.get_command(app))]
    while commands:
        name, command = commands.pop()
        children = getattr(command, "commands", {})
        commands += [(f"{name} {child}", children[child]) for child in children]
        if name.startswith("llm-trader evaluate") or not (children or name in _WITHOUT_CONFIG):
            yield name


@pytest.mark.parametrize("name", list(_command_names()))
def test_every_command_takes_the_settings_file_as_config(typed: Typing, name: str) -> None:
    (option,) = [li for li in typed(name, "--help").out.splitlines() if " --config " in li]
    assert "TOML file of the settings" in option


@pytest.mark.parametrize("flag", SETTING_FLAGS)
def test_a_flag_of_a_setting_names_it_and_its_default(flag: str) -> None:
    described = SETTING_FLAGS[flag]
    default = SETTINGS[described.key].default
    if isinstance(default, Path):
        default = default.as_posix()
    assert described.default == (str(default) if default not in (None, False) else None)


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
        ("rag-ingest --simbol BTCUSDT", "No such option: --simbol"),
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


@pytest.mark.parametrize(("columns", "longest"), [(60, 60), (80, 80), (110, 110), (300, 120)])
def test_help_uses_the_width_of_the_terminal(
    typed: Typing, monkeypatch: pytest.MonkeyPatch, columns: int, longest: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in ("llm-trader query", "llm-trader data import", "rag-ingest"):
        widths = [len(line) for line in typed(command, "--help").out.splitlines()]
        assert longest - 20 < max(widths) <= longest
