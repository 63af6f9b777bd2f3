from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import typer.main

from llm_trader.cli import main
from tests.cli.corridor import Corridor, serving_process

_PROGRAMS = {
    "llm-trader": main.main,
    "rag-ingest": main.rag_ingest,
    "rag-rpc-server": main.rag_rpc_server,
}


# Typer builds its commands anew at every call, a fifth of what these tests cost.
_commands_built_once = cache(typer.main.get_command)


@dataclass(frozen=True)
class Typed:
    """What a command line came to."""

    code: Any
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Typing = Callable[..., Typed]


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restored_logging: None
) -> Typing:
    """Runs a command line in this process, as its console script would."""
    # Wide enough for the paths of temporary folders.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(typer.main, "get_command", _commands_built_once)
    # As of a script: help would name the program "python -m pytest" where that runs the tests.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None, raising=False)

    def run(line: str, *more: object) -> Typed:
        program, *arguments = [*shlex.split(line), *map(str, more)]
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        capsys.readouterr()
        try:
            _PROGRAMS[program]()
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
        return Typed(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def served_port(corridor: Corridor) -> Iterator[int]:
    """Where a real `rag-rpc-server` of the corridor listens."""
    with serving_process("--store", str(corridor.store), "--index", str(corridor.index)) as found:
        process, port = found
        yield port
        process.terminate()
        process.wait(10)
