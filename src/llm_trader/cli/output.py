"""Prints JSON or tables on standard output, and progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from llm_trader.progress import Progress

T = TypeVar("T")

# Characters. Files and pipes have no width; this one fits the widest table.
_WIDTH_OF_FILES = 130


def present(value: T, json: bool, show: Callable[[Console, T], None]) -> None:
    """Prints a value as JSON, or as the tables of `show`."""
    if not json:
        console = Console()
        show(console if console.is_terminal else Console(width=_WIDTH_OF_FILES), value)
        return
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


@contextmanager
def progress_bar(unit: str, units_per_step: int = 1) -> Iterator[Progress]:
    """Shows a bar per label on standard error while at work, if that is a terminal."""
    console = Console(stderr=True)
    with RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label)
            counts: dict[str, Any] = {"completed": done // units_per_step}
            bars.update(tasks[label], total=total // units_per_step, **counts)

        yield report
