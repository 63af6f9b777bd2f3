"""Tables of text models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from llm_trader.cli.show import table

if TYPE_CHECKING:
    from llm_trader.app.text_models import FetchableModel, ModelCheck


def fetchable(console: Console, models: list[FetchableModel]) -> None:
    rows = table("", "model", "dimension", "MB", "here")
    for model in models:
        here = "yes" if model.here else ""
        rows.add_row(model.model, str(model.dimension), str(model.size_mb), here)
    console.print(rows)


def checked(console: Console, check: ModelCheck) -> None:
    for name in check.__struct_fields__:
        console.print(f"{name.replace('_', ' '):25}{getattr(check, name)}", highlight=False)
