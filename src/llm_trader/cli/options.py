"""Options that several commands share, and the settings made of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from llm_trader.timeframe import Millis

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML settings file; see config/example.toml."),
]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of the market store. [setting market.store]"),
]
Index = Annotated[
    Path | None,
    typer.Option("--index", help="Folder of the embedded index. [setting index.path]"),
]
QdrantUrl = Annotated[
    str | None,
    typer.Option(
        "--qdrant-url",
        help="A Qdrant server as the index, not the embedded one. [setting index.qdrant.url]",
    ),
]
Text = Annotated[
    bool | None,
    typer.Option(
        "--text", help="Also make text vectors; needs a model. [setting embedding.text.enabled]"
    ),
]
Vector = Annotated[
    str | None,
    typer.Option(
        "--vector", help="What is compared: state, text or hybrid. [setting retrieval.vector]"
    ),
]
LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", "-l", help="trace, debug, info, warn or error."),
]
Symbols = Annotated[
    str, typer.Option("--symbols", help="Separated by commas, such as BTCUSDT,ETHUSDT.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def settings_of(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from flags (`serving__port` for serving.port), environment, file and defaults."""
    from llm_trader.logs import configure_logging
    from llm_trader.settings.loading import load_settings

    overrides = {key.replace("__", "."): value for key, value in flags.items()}
    settings = load_settings(config, environ=os.environ, overrides=overrides)
    configure_logging(settings.logging.level, settings.logging.format)
    return settings


def symbol_list(text: str) -> list[str]:
    return [symbol.strip().upper() for symbol in text.split(",") if symbol.strip()]


def now_ms() -> Millis:
    """The one place where a command reads the clock."""
    return int(time.time() * 1000)


def print_json(value: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")


def tables() -> Console:
    """Where tables go: as wide as the terminal, and wide enough for them elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=130)


@contextmanager
def progress_bar(unit: str) -> Iterator[Progress]:
    """A bar on standard error that leaves nothing behind; silent where that is no terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


class PerSymbol:
    """Feeds a progress bar of one line per symbol."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: dict[str, Any] = {}

    def __call__(self, symbol: str, done: int, total: int) -> None:
        if symbol not in self._lines:
            self._lines[symbol] = self._progress.add_task(symbol, total=total)
        self._progress.update(self._lines[symbol], completed=done, total=total)
