"""`llm-trader demo`: the main job from start to end, on a simulated market."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.output import describe, progress_bar
from llm_trader.cli.pipeline import describe_ingestion
from llm_trader.cli.show_answer import describe_reply
from llm_trader.cli.show_store import describe_series
from llm_trader.errors import ConfigurationError
from llm_trader.timeframe import DAY_MS, iso8601, parse_rfc3339

_SYMBOLS = ("BTCUSDT", "ETHUSDT")
_START_MS = parse_rfc3339("2025-01-01T00:00:00Z")
_SERVER = "import sys; from llm_trader.cli.main import rag_rpc_server; sys.exit(rag_rpc_server())"


def demo(
    keep: Annotated[
        Path | None,
        Option(help="Folder to keep the store and the index in; by default they are deleted."),
    ] = None,
    days: Annotated[int, Option(min=120, help="Length of the market in days.")] = 150,
    seed: Annotated[int, Option(help="Equal seeds make equal markets.")] = 7,
) -> None:
    """Show the main job: market, snapshots with outcomes, index, server, one real query.

    The market is simulated, so its answers are no evidence about any real market. The demo needs
    neither a network nor a key.
    """
    started_s = time.monotonic()
    # A normal exit, so that the server is stopped and the folder deleted.
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    kept = nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="llm-trader-demo-")
    with kept as folder:
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
        stored = simulate_market(job, _SYMBOLS, _START_MS, days=days, seed=seed)
    describe(describe_series(stored))

    typer.echo("\n2. A snapshot of every quarter-hour with what followed, as vectors in an index")
    with progress_bar("snapshots") as progress:
        reports = ingest_from_store(job._replace(progress=progress), [], _START_MS, end_ms)
    describe(describe_ingestion(reports, str(index.path)))

    with _server(store.store, index.path) as port:
        typer.echo(f"\n3. The JSON-RPC server answers on 127.0.0.1:{port}")
        typer.echo(f"\n4. A query over the socket: {_SYMBOLS[0]} at {iso8601(end_ms)}")
        at_port = structs.replace(settings, serving=structs.replace(settings.serving, port=port))
        reply = query_server(job._replace(settings=at_port), _SYMBOLS[0], end_ms, {})
        describe(describe_reply(reply))
    typer.echo("\n5. The server has stopped.")


@contextmanager
def _server(store: Path, index: Path) -> Iterator[int]:
    """Runs a server process, yields its port, and stops it with SIGTERM.

    The process does not see the settings of the environment, such as tokens or a log level.
    """
    from llm_trader.settings.tree import ENV_PREFIX

    # Any free port, so that a demo does not meet a running server.
    command = [sys.executable, "-c", _SERVER, "--port", "0", "--min-matches", "1"]
    command += ["--store", str(store.absolute()), "--index", str(index.absolute())]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    # In a folder where no settings file lies, because a server would read one.
    process = subprocess.Popen(  # noqa: S603  our own
        command, stderr=subprocess.PIPE, text=True, cwd=index, env=environ
    )
    try:
        yield _port(process)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=30)
    if process.returncode:
        raise ConfigurationError(f"the server ended with exit code {process.returncode}: {log}")


def _port(process: subprocess.Popen[str]) -> int:
    lines = []
    for line in process.stderr or ():
        lines.append(line)
        if "rpc_listening" in line:
            return int(json.loads(line)["port"])
    raise ConfigurationError("the server did not start: " + "".join(lines[-5:]))
