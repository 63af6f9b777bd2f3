"""Pieces of work for tests of `workers`: what other processes import must be in a module."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.evaluation.workers import Task, run_tasks
from llm_trader.progress import Progress


def square(number: int, seconds: float, progress: Progress) -> int:
    progress(f"number {number}", 0, 1)
    time.sleep(seconds)
    progress(f"number {number}", 1, 1)
    return number**2


def fail(progress: Progress) -> None:
    raise InvalidInputError("this piece cannot be done")


def miss(progress: Progress) -> None:
    raise SymbolNotFoundError("DOGEUSDT", ["BTCUSDT"])


def leave(progress: Progress) -> None:
    """End without a word, as a process without memory does."""
    os._exit(9)


def length(data: bytes, progress: Progress) -> int:
    return len(data)


def wait(folder: str, progress: Progress) -> None:
    """Say which process this is, then do nothing for long."""
    (Path(folder) / f"{os.getpid()}.pid").touch()
    while True:
        progress("waiting", 0, 1)
        time.sleep(0.001)


def main(folder: str) -> None:
    """Two workers that never end of themselves."""
    try:
        run_tasks([Task(wait, (folder,))] * 2, 2, lambda what, done, total: None)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1])
