"""The parts of tables that evaluations print themselves."""

from __future__ import annotations

from rich.console import Console

from llm_trader.cli import output
from llm_trader.cli.output import minute, table

__all__ = ["heading", "minute", "table"]


def heading(console: Console, text: str) -> None:
    console.print(output.heading(text), soft_wrap=True)
