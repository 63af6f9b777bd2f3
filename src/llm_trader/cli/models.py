"""`llm-trader models`: lists text models, fetches one, and tries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llm_trader.cli import options
from llm_trader.cli.output import present, table
from llm_trader.cli.setting_flags import with_settings

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

app = typer.Typer(no_args_is_help=True, help="Text models: list them, fetch one, try it.")


@app.command()
@with_settings("cache_dir", quiet=False)
def pull(
    settings: Settings,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model of `llm-trader models list`; by default the setting embedding.text.model."
        ),
    ] = None,
) -> None:
    """Fetch a text model from its hub. No other command downloads anything.

    Without a network, copy a folder with the model to this machine and set
    embedding.text.model_path; docs/text.md lists the files that it needs.
    """
    from llm_trader.app.text_models import fetch_model

    encoder = fetch_model(settings.embedding.text, model)
    typer.echo(f"{encoder.name}: {encoder.dimension} dimensions, version {encoder.version}")


@app.command("list")
@with_settings("cache_dir", quiet=False)
def list_models(settings: Settings, json: options.Json = False) -> None:
    """List the models that can be fetched, and which of them are on this machine."""
    from llm_trader.app.text_models import fetchable_models

    models = fetchable_models(settings.embedding.text)
    rows = ((m.model, m.dimension, m.size_mb, "yes" if m.here else "") for m in models)
    present(models, json, [table("", "model", "dimension", "MB", "here", rows=rows)])


@app.command()
@with_settings("model", "model_path", "cache_dir", quiet=False)
def check(settings: Settings, json: options.Json = False) -> None:
    """Load the model of the settings and measure how fast it encodes sentences."""
    from llm_trader.app.text_models import check_model

    checked = check_model(settings.embedding.text)
    names = checked.__struct_fields__
    present(checked, json, (f"{n.replace('_', ' '):25}{getattr(checked, n)}" for n in names))
