"""Prints results as JSON or as tables on standard output, and progress on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.progress import Progress

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

# The tables, lines and paragraphs that describe a result to a person, from top to bottom.
Description: TypeAlias = Iterator[RenderableType]

# Characters. Files and pipes have no width; this one fits the widest table.
_WIDTH_OF_FILES: Final = 130


def present(
    value: object,
    json: bool,
    description: Iterable[RenderableType] | Callable[[Console, Any], None],
    *,
    failed: bool = False,
) -> None:
    """Prints a value as JSON or as its description; exits with 1 if the command `failed`."""
    if json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")
    else:
        console = Console()
        if not console.is_terminal:
            console = Console(width=_WIDTH_OF_FILES)
        if callable(description):
            description(console, value)
            return
        for part in description:
            # Paths and commands stand in Text. Unbroken, they can be copied.
            console.print(part, highlight=False, soft_wrap=isinstance(part, Text))
    if failed:
        raise typer.Exit(1)


def heading(text: str) -> Text:
    return Text(text, "bold")


def line(text: str) -> Text:
    return Text(f"  {text}")


def table(
    title: str, *columns: str, rows: Iterable[Iterable[object]] = (), right_from: int = 1
) -> Table:
    """The columns from the position `right_from` on are aligned to the right."""
    cells = Table(
        title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0)
    )
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if position >= right_from else "left"
        cells.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        cells.add_row(*map(str, row))
    return cells


def minute(iso8601: str) -> str:
    return iso8601.replace("T", " ").removesuffix(":00Z")


def number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


@contextmanager
def job(settings: Settings, unit: str, units_per_step: int = 1) -> Iterator[Job]:
    """A job of now, with the secrets of the environment, that shows its progress."""
    with progress_bar(unit, units_per_step) as progress:
        yield Job(settings, os.environ, options.now_ms(), progress)


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
