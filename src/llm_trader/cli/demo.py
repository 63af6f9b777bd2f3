"""`llm-trader demo`: the main job from end to end, on a simulated market."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from llm_trader.cli import options
from llm_trader.errors import ConfigurationError

_SYMBOL = "BTCUSDT"
_SERVER = "import sys; from llm_trader.cli.main import rag_rpc_server; sys.exit(rag_rpc_server())"


def demo(
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="Folder for the store and the index; else they are deleted."),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=120, help="Length of the market.")] = 150,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds make equal markets.")] = 7,
) -> None:
    """Show the main job: market, snapshots with outcomes, index, server, one real query.

    The market is simulated; nothing is fetched, no key is needed, and what it says about similar
    states is no evidence about any real market.
    """
    started = time.monotonic()
    # An exit like any other, so that the server is stopped and the folder deleted.
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    if keep:
        _run(keep, days, seed)
    else:
        with tempfile.TemporaryDirectory(prefix="llm-trader-demo-") as folder:
            _run(Path(folder), days, seed)
    typer.echo(f"\nDone in {time.monotonic() - started:.1f} s.")
    if keep:
        typer.echo(
            f"Kept in {keep}. Serve it with:\n  rag-rpc-server --store {keep}/market "
            f"--index {keep}/index"
        )


def _run(folder: Path, days: int, seed: int) -> None:
    from llm_trader.app.ingestion import ingest_from_store
    from llm_trader.cli import data, show
    from llm_trader.cli.query import ask
    from llm_trader.index.config import IndexConfig
    from llm_trader.logs import configure_logging
    from llm_trader.market.config import MarketConfig
    from llm_trader.market.store import MarketStore
    from llm_trader.settings.tree import Settings
    from llm_trader.timeframe import M3, iso8601

    store, index = folder / "market", folder / "index"
    typer.echo(f"1. A simulated market of {days} days, written to an LMDB store")
    data.simulate(store=store, days=days, symbols="BTCUSDT,ETHUSDT", seed=seed)
    with MarketStore.open(store) as opened:
        first, last = opened.first_and_last_ms(_SYMBOL, M3) or (0, 0)
    end = last + M3.ms

    typer.echo("\n2. A snapshot of every quarter-hour with what followed, as vectors in an index")
    # Not those around it: what is simulated has no place in a Qdrant that is set.
    settings = Settings(market=MarketConfig(store=store), index=IndexConfig(path=index))
    configure_logging("warn", settings.logging.format)
    with options.progress_bar("snapshots") as bar:
        now = options.now_ms()
        reports = ingest_from_store(settings, {}, [], first, end, now, options.PerSymbol(bar))
    show.ingest_reports(options.tables(), reports, str(index))

    with _server(store, index) as port:
        typer.echo(f"\n3. The JSON-RPC server answers on 127.0.0.1:{port}")
        typer.echo(f"\n4. A query over the socket: {_SYMBOL} at {iso8601(end)}")
        params = {"symbol": _SYMBOL, "timestamp": end}
        answer, snapshot = asyncio.run(ask("127.0.0.1", port, params))
        show.answer(options.tables(), _SYMBOL, snapshot, answer)
    typer.echo("\n5. The server has stopped.")


@contextmanager
def _server(store: Path, index: Path) -> Iterator[int]:
    """A server process on a free port, stopped as an operator would: with SIGTERM.

    It shall not heed the settings around it, such as tokens or a quieter log.
    """
    from llm_trader.settings.tree import ENV_PREFIX

    command = [sys.executable, "-c", _SERVER, "--port", "0", "--min-matches", "1"]
    command += ["--store", str(store.absolute()), "--index", str(index.absolute())]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    process = subprocess.Popen(  # noqa: S603  our own
        command, stderr=subprocess.PIPE, text=True, cwd=index, env=environ
    )
    try:
        yield _port(process)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    if process.returncode:
        raise ConfigurationError(f"the server ended with {process.returncode}: {said}")


def _port(process: subprocess.Popen[str]) -> int:
    said = []
    for line in process.stderr or ():
        said.append(line)
        if line.startswith("{"):
            event = json.loads(line)
            if event["event"] == "rpc_listening":
                return int(event["port"])
    raise ConfigurationError("the server did not start: " + "".join(said[-5:]))
