"""`llm-trader ingest`, also called `rag-ingest`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from llm_trader.cli import options, show
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings
from llm_trader.timeframe import parse_end, parse_start

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings


@with_settings(
    "interval", "store", "index", "qdrant_url", "text", "intraday", "log_level", quiet=False
)
def ingest(
    settings: Settings,
    symbols: options.StoreSymbols = "",
    start: options.Start = "90",
    end: options.End = "now",
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Also compute states again that the index already holds."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Turn stored market data into labelled, searchable states.

    Every quarter-hour becomes a snapshot of the data known at that time, with its outcomes over the
    next 24 hours. An interrupted run resumes at the next one, and a repeated run adds only new
    states. Use --rebuild after market data was corrected or older data was imported. A running
    server sees new states at once.
    """
    from llm_trader.app.indexes import location_of
    from llm_trader.app.ingestion import ingest_from_store

    now_ms = options.now_ms()
    with progress_bar("snapshots") as progress:
        reports = ingest_from_store(
            settings,
            os.environ,
            options.symbol_list(symbols),
            parse_start(start, now_ms),
            parse_end(end, now_ms),
            now_ms,
            progress,
            rebuild=rebuild,
        )
    place = location_of(settings)
    present(reports, json, lambda console, value: show.ingest_reports(console, value, place))
