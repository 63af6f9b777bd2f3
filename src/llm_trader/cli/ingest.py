"""`llm-trader ingest`, also called `rag-ingest`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from llm_trader.cli import options
from llm_trader.timeframe import parse_end, parse_start


def ingest(
    symbols: Annotated[
        str,
        typer.Option("--symbols", help="Separated by commas; all of the store if left out."),
    ] = "",
    start: Annotated[
        str, typer.Option("--start", "-s", help="Days ago, or an RFC 3339 time.")
    ] = "90",
    end: Annotated[str, typer.Option("--end", "-e", help="now, or an RFC 3339 time.")] = "now",
    interval: Annotated[
        int | None,
        typer.Option("--interval", "-i", help="Minutes between snapshots; 15 if left out."),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Also make those anew that are in the index already."),
    ] = False,
    store: options.Store = None,
    index: options.Index = None,
    qdrant_url: options.QdrantUrl = None,
    text: options.Text = None,
    intraday: Annotated[
        str | None,
        typer.Option("--intraday", help="Candles snapshots are made of: 1m, 3m, 5m or auto."),
    ] = None,
    config: options.Config = None,
    log_level: options.LogLevel = None,
    json: options.Json = False,
) -> None:
    """Turn stored market data into labelled, searchable states.

    Every quarter-hour becomes a snapshot of what was known then, with what happened in the 24
    hours after it. A run that was interrupted goes on where it stopped; one that is repeated adds
    only what is new; after market data was corrected or older data imported, --rebuild. A server
    that is running sees new states at once.
    """
    from llm_trader.app.indexes import location_of
    from llm_trader.app.ingestion import ingest_from_store
    from llm_trader.cli import show

    settings = options.settings_of(
        config,
        market__store=store,
        index__path=index,
        index__qdrant__url=qdrant_url,
        embedding__text__enabled=text,
        snapshot__interval_minutes=interval,
        snapshot__intraday=intraday,
        logging__level=log_level,
    )
    now = options.now_ms()
    with options.progress_bar("snapshots") as bar:
        reports = ingest_from_store(
            settings,
            os.environ,
            options.symbol_list(symbols),
            parse_start(start, now),
            parse_end(end, now),
            now,
            options.PerSymbol(bar),
            rebuild=rebuild,
        )
    if json:
        options.print_json(reports)
    else:
        show.ingest_reports(options.tables(), reports, location_of(settings))
