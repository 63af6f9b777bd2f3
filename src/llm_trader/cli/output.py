"""Prints results as JSON or as tables on standard output, and progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, NamedTuple, TypeAlias

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from llm_trader.errors import printable
from llm_trader.progress import Progress, no_progress

# The tables, lines and paragraphs that describe a result to a person, from top to bottom.
Description: TypeAlias = Iterator[RenderableType]

# Characters. Files and pipes have no width; this one fits the widest table.
_WIDTH_OF_FILES: Final = 130


class Result(NamedTuple):
    """A value for `--json`, its description for a person, and whether the command `failed`."""

    value: object
    description: Iterable[RenderableType]
    failed: bool = False


def present(result: Result, *, json: bool) -> None:
    """Prints a result; exits with 1 if the command failed."""
    if json:
        import msgspec

        document = msgspec.json.format(msgspec.json.encode(result.value)).decode()
        sys.stdout.write(f"{document}\n")
    else:
        describe(result.description)
    if result.failed:
        raise typer.Exit(1)


def describe(description: Iterable[RenderableType]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_FILES)
    for part in description:
        # Paths and commands stand in Text. Unbroken, they can be copied.
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def heading(text: str) -> Text:
    return Text(printable(text), "bold")


def line(text: str) -> Text:
    return Text(f"  {printable(text)}")


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
        cells.add_row(*(printable(str(cell)) for cell in row))
    return cells


def minute(iso8601: str) -> str:
    return iso8601.replace("T", " ").removesuffix(":00Z")


def number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


@contextmanager
def progress_bar(unit: str | None, steps_per_unit: int = 1) -> Iterator[Progress]:
    """Shows a bar per label on standard error while at work, if that is a terminal."""
    console = Console(stderr=True)
    # A live display would mix with the log of a command that has no progress.
    if unit is None or not console.is_terminal:
        yield no_progress
        return
    counts = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    label_column = TextColumn("{task.description}")
    with RichProgress(label_column, *counts, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label)
            bars.update(
                tasks[label], total=total // steps_per_unit, completed=done // steps_per_unit
            )

        yield report
