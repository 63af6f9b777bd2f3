"""`llm-trader demo --page`: the page on a simulated market that goes on with the clock."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.browser import open_in_browser
from llm_trader.cli.demo_server import demo_server
from llm_trader.cli.output import progress_bar
from llm_trader.timeframe import HOUR_MS, M3, MINUTE_MS, Millis

if TYPE_CHECKING:
    from llm_trader.app.demo_market import GrowingMarket

_SYMBOLS: Final = ("BTCUSDT", "ETHUSDT")
_QUARTER_MS: Final = 15 * MINUTE_MS
# So that the view of decisions has something to show: each is one of the aggregator.
_DECISIONS: Final = 12
_DECIDED_EVERY_MS: Final = 2 * HOUR_MS
# An exchange, too, takes a moment to publish a candle.
_AFTER_CLOSE_S: Final = 1.0


def show_page(folder: Path, *, days: int, seed: int, http_port: int) -> None:
    """Serves until Ctrl-C."""
    from llm_trader.app.demo_market import GrowingMarket
    from llm_trader.index.config import IndexConfig
    from llm_trader.llm.record.config import DecisionsConfig
    from llm_trader.logs import configure_logging
    from llm_trader.market.config import MarketConfig
    from llm_trader.settings.tree import Settings

    settings = Settings(
        market=MarketConfig(store=folder / "market"),
        index=IndexConfig(path=folder / "index"),
        decisions=DecisionsConfig(record=folder / "decisions"),
    )
    configure_logging("warn", settings.logging.format)
    now_ms = options.now_ms()
    typer.echo(f"1. A simulated market of {days} days, up to now, and an index of its states")
    with progress_bar("steps") as progress:
        job = Job(settings, {}, now_ms, progress)
        market = GrowingMarket(job, _SYMBOLS, now_ms=now_ms, days=days, seed=seed)
        market.grow(now_ms)
        market.index(now_ms)
    typer.echo(f"2. {_DECISIONS} decisions by fixed rules, for the view of decisions")
    _decide(job, now_ms)
    flags = ["--http-port", str(http_port)]
    record = str((folder / "decisions").absolute())
    with demo_server(
        *(settings.market.store, settings.index.path, flags),
        LLM_TRADER_DECISIONS__RECORD=record,
        LLM_TRADER_SERVING__REPORTS=str((folder / "reports").absolute()),
    ) as (_, port):
        address = f"http://127.0.0.1:{port}/"
        typer.echo(f"3. The page: {address}\n   Its data are simulated. It stays until Ctrl-C.")
        open_in_browser(address)
        try:
            _go_on(market, now_ms)
        except KeyboardInterrupt:
            typer.echo("\n4. Stopping.")


def _decide(job: Job, now_ms: Millis) -> None:
    from llm_trader.app.decisions import decide
    from llm_trader.app.llm_deciders import DeciderChoice

    newest_ms = now_ms // _QUARTER_MS * _QUARTER_MS
    for back in reversed(range(_DECISIONS)):
        at_ms = newest_ms - back * _DECIDED_EVERY_MS
        then = job._replace(now_ms=at_ms)
        decide(then, _SYMBOLS[0], at_ms, DeciderChoice("aggregator"), partial(int, at_ms))


def _go_on(market: GrowingMarket, written_ms: Millis) -> None:
    while True:
        now_ms = options.now_ms()
        time.sleep((M3.ms - now_ms % M3.ms) / 1000 + _AFTER_CLOSE_S)
        now_ms = options.now_ms()
        market.grow(now_ms)
        if now_ms // _QUARTER_MS > written_ms // _QUARTER_MS:
            market.index(now_ms)
        written_ms = now_ms
