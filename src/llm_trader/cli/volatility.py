"""`llm-trader volatility`: models of the volatility that is expected of the coming time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, line, table
from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from llm_trader.volatility.model import VolatilityModel

app = typer.Typer(no_args_is_help=True, help="Volatility models: fit one to your own candles.")


@app.callback()
def _group() -> None:
    pass


@app.command()
@with_job("store", "intraday", "interval", unit="symbols")
def fit(
    job: Job,
    symbols: options.StoreSymbols = "",
    start: options.Start = "365",
    end: options.End = "latest",
    out: Annotated[
        Path, Option("--out", "-o", help="File to write, for the setting volatility.model.")
    ] = Path("volatility.json"),
) -> Result:
    """Fit a volatility model to your own candles, instead of the built-in one.

    One model for all the symbols, by least squares on states of at least 60 days. It says nothing
    about times before the last candle that it used: they would know what came after them. So fit
    it on the older part of your data, set volatility.model, and build the index again with:
    llm-trader index rebuild
    """
    from llm_trader.app.time_range import time_range
    from llm_trader.app.volatility import fit_from_store

    names = options.symbol_list(symbols)
    model = fit_from_store(job, names, *time_range(job, names, start, end), out)
    return Result(model, _describe(model, out))


def _describe(model: VolatilityModel, out: Path) -> Description:
    from llm_trader.volatility.model import WINDOWS

    known_by = "always" if model.known_by_ms is None else iso8601(model.known_by_ms)
    yield table(
        f"Volatility model {model.id}, for times from {known_by} on",
        *("horizon", "constant", *WINDOWS, "weekend ahead", "weekend in the last 24h"),
        rows=(
            (horizon, *(f"{term:+.3f}" for term in terms))
            for horizon, terms in model.coefficients.items()
        ),
    )
    yield line(f"Written to {out}. Use it with the setting volatility.model.")
