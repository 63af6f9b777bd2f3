"""`llm-trader demo`: the main job from start to end, on a simulated market."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.demo_page import show_page
from llm_trader.cli.demo_server import demo_server
from llm_trader.cli.output import describe, progress_bar
from llm_trader.cli.pipeline import describe_ingestion
from llm_trader.cli.show_answer import describe_reply
from llm_trader.cli.show_store import describe_series
from llm_trader.timeframe import DAY_MS, iso8601, parse_rfc3339

SYMBOLS = ("BTCUSDT", "ETHUSDT")
_START_MS = parse_rfc3339("2025-01-01T00:00:00Z")


def demo(
    keep: Annotated[
        Path | None,
        Option(help="Folder to keep the store and the index in; by default they are deleted."),
    ] = None,
    days: Annotated[int, Option(min=120, help="Length of the market in days.")] = 150,
    seed: Annotated[int, Option(help="Equal seeds make equal markets.")] = 7,
    page: Annotated[
        bool, Option("--page", help="Show the page in a browser, and go on until Ctrl-C.")
    ] = False,
    http_port: Annotated[
        int, Option(min=0, max=65535, help="Port of the page; 0 takes any free.")
    ] = 7880,
) -> None:
    """Show the main job: market, snapshots with outcomes, index, server, one real query.

    The market is simulated, so its answers are no evidence about any real market. The demo needs
    neither a network nor a key. With --page the market goes on with the clock.
    """
    started_s = time.monotonic()
    # A normal exit, so that the server is stopped and the folder deleted.
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    kept = nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="llm-trader-demo-")
    with kept as folder:
        if page:
            show_page(Path(folder), days=days, seed=seed, http_port=http_port)
        else:
            _run(Path(folder), days, seed)
    typer.echo(f"\nDone in {time.monotonic() - started_s:.1f} s.")
    if keep:
        typer.echo(
            f"Kept in {keep}. Serve it with:\n  rag-rpc-server --store {keep}/market "
            f"--index {keep}/index"
        )


def _run(folder: Path, days: int, seed: int) -> None:
    from msgspec import structs

    from llm_trader.app.ingestion import ingest_from_store
    from llm_trader.app.market_data import simulate_market
    from llm_trader.app.queries import query_server
    from llm_trader.index.config import IndexConfig
    from llm_trader.logs import configure_logging
    from llm_trader.market.config import MarketConfig
    from llm_trader.settings.tree import Settings

    # Settings of the environment are ignored: a simulated market does not belong in a real Qdrant.
    store, index = MarketConfig(store=folder / "market"), IndexConfig(path=folder / "index")
    settings = Settings(market=store, index=index)
    configure_logging("warn", settings.logging.format)
    end_ms = _START_MS + days * DAY_MS

    typer.echo(f"1. A simulated market of {days} days, written to an LMDB store")
    with progress_bar("symbols") as progress:
        job = Job(settings, {}, options.now_ms(), progress)
        stored = simulate_market(job, SYMBOLS, _START_MS, days=days, seed=seed)
    describe(describe_series(stored))

    typer.echo("\n2. A snapshot of every quarter-hour with what followed, as vectors in an index")
    with progress_bar("snapshots") as progress:
        reports = ingest_from_store(job._replace(progress=progress), [], _START_MS, end_ms)
    describe(describe_ingestion(reports, str(index.path)))

    with demo_server(store.store, index.path) as (port, _):
        typer.echo(f"\n3. The JSON-RPC server answers on 127.0.0.1:{port}")
        typer.echo(f"\n4. A query over the socket: {SYMBOLS[0]} at {iso8601(end_ms)}")
        at_port = structs.replace(settings, serving=structs.replace(settings.serving, port=port))
        reply = query_server(
            job._replace(settings=at_port), SYMBOLS[0], end_ms, {}, with_series=True
        )
        describe(describe_reply(reply))
    typer.echo("\n5. The server has stopped.")
