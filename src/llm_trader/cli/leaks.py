"""`llm-trader leak-check`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from llm_trader.cli import options, show
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings


@with_settings("store", "index", "qdrant_url", "vector")
def leak_check(
    settings: Settings,
    symbols: options.IndexSymbols = "",
    samples: options.Samples = 100,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Prove for sampled queries that every match was known at the query's time.

    Computes states and outcomes again from the market data known at that time, and compares them
    with the answers of the index. Exits with 1 if anything came from the future.
    """
    from llm_trader.app.index_checks import check_index_for_leaks

    with progress_bar("queries") as progress:
        names = options.symbol_list(symbols)
        report = check_index_for_leaks(settings, os.environ, names, samples, seed, progress)
    present(report, json, show.leak_report)
    if report.leaks:
        raise typer.Exit(1)
