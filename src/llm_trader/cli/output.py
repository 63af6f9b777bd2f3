"""Prints results as JSON or as tables on standard output, and progress on standard error.

Output fits the width of the terminal, or of COLUMNS. A table that is too wide is printed in parts
below each other, so that no number is cut.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import floor, log10
from typing import Final, Literal, NamedTuple, TypeAlias

import typer
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column, Table
from rich.text import Text

from llm_trader.errors import printable
from llm_trader.progress import Progress, no_progress

# The tables, lines and paragraphs that describe a result to a person, from top to bottom.
Description: TypeAlias = Iterator[RenderableType]

# Characters between two columns.
# Data with more gaps or jumps are needed again, not a longer list.
_SHOWN: Final = 5
_GAP: Final = 2
# Of a price; prices of 0.00001 and of 100,000 are told to the same precision.
_DIGITS: Final = 6
# The first column, such as a path, is folded to at least so many characters beside the others.
_LEAST_FOLDED: Final = 24
# A command to copy, at the end of a sentence or alone on a line.
_COMMAND: Final = re.compile(r"(?:^\s*|(?<=: ))(?:llm-trader|rag-ingest|rag-rpc-server) .*$")


class Result(NamedTuple):
    """A value for `--json`, its description for a person, and whether the command `failed`."""

    value: object
    description: Iterable[RenderableType]
    failed: bool = False


class Results(NamedTuple):
    """Results that come one after another: `run` calls its argument with each until it ends."""

    run: Callable[[Callable[[Result], None]], None]


def present(result: Result | Results, *, json: bool) -> None:
    """Prints a result, or results as they come; exits with 1 if the command failed."""
    if isinstance(result, Results):
        result.run(lambda part: _present_part(part, json=json))
        return
    if json:
        import msgspec

        document = msgspec.json.format(msgspec.json.encode(result.value)).decode()
        sys.stdout.write(f"{document}\n")
    else:
        describe(result.description)
    if result.failed:
        raise typer.Exit(1)


def _present_part(result: Result, *, json: bool) -> None:
    """As one line of JSON, or in words, for whoever reads them while the command goes on."""
    if json:
        import msgspec

        sys.stdout.write(f"{msgspec.json.encode(result.value).decode()}\n")
    else:
        describe(result.description)
    sys.stdout.flush()


def describe(description: Iterable[RenderableType]) -> None:
    console = Console()
    for part in description:
        if isinstance(part, Text):
            console.print(_wrapped(part, console.width), highlight=False, soft_wrap=True)
        elif isinstance(part, Table):
            for fitting in _fit(part, console.width):
                console.print(fitting, highlight=False, soft_wrap=isinstance(fitting, Text))
        else:
            console.print(part, highlight=False)


def heading(text: str) -> Text:
    return Text(printable(text), "bold")


def line(text: str) -> Text:
    return Text(f"  {printable(text)}")


def table(
    title: str, *columns: str, rows: Iterable[Iterable[object]] = (), right_from: int = 1
) -> Table:
    """The columns from the position `right_from` on are aligned to the right."""
    cells = _empty_table()
    cells.title, cells.title_style = title, "bold"
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if position >= right_from else "left"
        cells.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        cells.add_row(*(printable(str(cell)) for cell in row))
    return cells


def _empty_table() -> Table:
    return Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)


def _wrapped(text: Text, width: int) -> Text:
    """Breaks lines between words only, and never in a command, so that it can be copied."""
    lines: list[str] = []
    for sentence in text.plain.splitlines():
        indent = sentence[: len(sentence) - len(sentence.lstrip())]
        command = _COMMAND.search(sentence)
        if cell_len(sentence) <= width or (command and not command.start()):
            lines.append(sentence)
            continue
        prose = sentence[: command.start()] if command else sentence
        lines += textwrap.wrap(
            prose, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        lines += [indent + command[0]] if command else []
    return Text("\n".join(lines), text.style)


def _fit(whole: Table, width: int) -> Iterator[RenderableType]:
    """The table if it fits; else parts of it, each with the first columns, or a list of records."""
    if whole.title:
        yield _wrapped(Text(str(whole.title), whole.title_style or ""), width)
    columns, widths = whole.columns, [_width(column) for column in whole.columns]
    least = min(widths[0], _LEAST_FOLDED) + sum(widths[1:]) + _GAP * (len(widths) - 1)
    if least <= width:
        yield _part(whole, range(len(columns)), width)
    else:
        keys = _keys(columns)
        room = width - sum(widths[:keys]) - _GAP * keys
        # Narrower than half, a part would be mostly its first columns.
        if room < width // 2:
            yield from _records(whole, width)
        else:
            groups = _groups(widths[keys:], room)
            for number, group in enumerate(groups):
                yield from ("",) if number else ()
                yield _part(whole, [*range(keys), *(keys + position for position in group)], room)
    if whole.caption:
        yield _wrapped(Text(str(whole.caption)), width)


def _width(column: Column) -> int:
    return max(cell_len(str(cell)) for cell in (column.header, *column.cells))


def _keys(columns: Sequence[Column]) -> int:
    """The number of first columns that say what a row is about."""
    left = [column.justify == "left" for column in columns]
    return max(1, min(left.index(False) if False in left else 1, len(columns) - 1))


def _groups(widths: Sequence[int], room: int) -> list[list[int]]:
    """Positions of columns that fit beside each other; a wider one is alone and is folded."""
    groups: list[list[int]] = []
    used = room + 1
    for position, column in enumerate(widths):
        if used + _GAP + column > room:
            groups.append([])
            used = -_GAP
        groups[-1].append(position)
        used += _GAP + column
    return groups


def _part(whole: Table, positions: Iterable[int], room: int) -> Table:
    """Some of a table's columns; the first one and those wider than `room` may be folded."""
    part = _empty_table()
    cells = []
    for position in positions:
        column = whole.columns[position]
        # Rich narrows only these to make a table fit.
        is_text = not position or _width(column) > room
        part.add_column(column.header, justify=column.justify, overflow="fold", no_wrap=not is_text)
        cells.append(list(column.cells))
    for row, values in zip(whole.rows, zip(*cells, strict=True), strict=True):
        part.add_row(*values, style=row.style)
    return part


def _records(whole: Table, width: int) -> Iterator[Text]:
    """A block per row, where the terminal is too narrow for columns."""
    for number, values in enumerate(zip(*(column.cells for column in whole.columns), strict=True)):
        lines = (
            f"{column.header}: {value}" if column.header else str(value)
            for column, value in zip(whole.columns, values, strict=True)
            if value
        )
        yield _wrapped(Text(("\n" if number else "") + "\n".join(lines)), width)


def minute(iso8601: str) -> str:
    return iso8601.replace("T", " ").removesuffix(":00Z")


def number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def price_text(price: float) -> str:
    """A price with some six digits, such as 34,810.2."""
    decimals = _DIGITS - 1 - floor(log10(abs(price))) if price else 0
    return f"{price:,.{max(decimals, 0)}f}"


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


def first_lines(lines: Sequence[str], kind: str) -> Description:
    """The first of what is found of a series or file, and how many there are more."""
    yield from map(line, lines[:_SHOWN])
    if (unshown := len(lines) - _SHOWN) > 0:
        yield line(f"and {unshown} more {kind}; all are in --json")
