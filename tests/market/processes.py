"""Programs that tests run as processes of their own, beside the test's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Forked

_REPOSITORY = Path(__file__).resolve().parents[2]

_PRELUDE = """
import sys
from pathlib import Path
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M3
from tests.market.builders import START_MS, run_of_candles

path = Path(sys.argv[1])

def say(*words):
    print(*words, flush=True)

def wait():
    return sys.stdin.readline()
"""


@contextmanager
def running(program: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python program that talks over its standard streams; killed at the end."""
    with Forked(
        [sys.executable, "-c", _PRELUDE + program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_REPOSITORY,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    """Let it go on."""
    if process.stdin is None:
        raise RuntimeError("the process has no input")
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """Its next line."""
    if process.stdout is None:
        raise RuntimeError("the process has no output")
    return process.stdout.readline().strip()
