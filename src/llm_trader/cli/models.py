"""`llm-trader models`: lists text models, fetches one, and tries it."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument

from llm_trader.app.job import Job
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Result, table

app = typer.Typer(no_args_is_help=True, help="Text models: list them, fetch one, try it.")


@app.command()
@with_job("cache_dir", quiet=False)
def pull(
    job: Job,
    model: Annotated[
        str | None,
        Argument(
            help="A model of `llm-trader models list`; by default the setting embedding.text.model."
        ),
    ] = None,
) -> None:
    """Fetch a text model from its hub. No other command downloads anything.

    Without a network, copy a folder with the model to this machine and set
    embedding.text.model_path; docs/text.md lists the files that it needs.
    """
    from llm_trader.app.text_models import fetch_model

    encoder = fetch_model(job.settings.embedding.text, model)
    typer.echo(f"{encoder.name}: {encoder.dimension} dimensions, version {encoder.version}")


@app.command("list")
@with_job("cache_dir", quiet=False)
def list_models(job: Job) -> Result:
    """List the models that can be fetched, and which of them are on this machine."""
    from llm_trader.app.text_models import fetchable_models

    models = fetchable_models(job.settings.embedding.text)
    rows = ((m.model, m.dimension, m.size_mb, "yes" if m.here else "") for m in models)
    return Result(models, [table("", "model", "dimension", "MB", "here", rows=rows)])


@app.command()
@with_job("model", "model_path", "cache_dir", quiet=False)
def check(job: Job) -> Result:
    """Load the model of the settings and measure how fast it encodes sentences."""
    from llm_trader.app.text_models import check_model

    checked = check_model(job.settings.embedding.text)
    names = checked.__struct_fields__
    return Result(checked, (f"{n.replace('_', ' '):25}{getattr(checked, n)}" for n in names))
