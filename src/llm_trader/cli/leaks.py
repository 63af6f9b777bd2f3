"""`llm-trader leak-check`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from llm_trader.cli import options


def leak_check(
    store: options.Store = None,
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    vector: options.Vector = None,
    symbols: Annotated[
        str,
        typer.Option("--symbols", help="Separated by commas; all of the index if left out."),
    ] = "",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Queries to check.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds check equal queries.")] = 0,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Prove for sampled queries that every match was known at the query's time.

    States and outcomes are computed anew from the market store as it was known then, and compared
    with what the index answered. Exits with 1 if anything came from the future.
    """
    from llm_trader.app.checks import check_index_for_leaks
    from llm_trader.cli import show

    settings = options.settings_of(
        config,
        market__store=store,
        index__path=index,
        index__qdrant__url=qdrant_url,
        retrieval__vector=vector,
        logging__level="warn",
    )
    with options.progress_bar("queries") as bar:
        line = bar.add_task("checking", total=samples)
        report = check_index_for_leaks(
            settings,
            os.environ,
            options.symbol_list(symbols),
            samples,
            seed,
            lambda: bar.advance(line),
        )
    if json:
        options.print_json(report)
    else:
        show.leak_report(options.tables(), report)
    if report.leaks:
        raise typer.Exit(1)
