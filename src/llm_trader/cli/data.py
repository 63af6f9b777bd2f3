"""`llm-trader data`: market data into a store, and what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_trader.cli import options
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import parse_rfc3339

app = typer.Typer(
    no_args_is_help=True, help="Market data: import files, simulate a market, see what is there."
)

_DEFAULT_START = "2025-01-01T00:00:00Z"


@app.command("import")
def import_files(
    path: Annotated[
        Path, typer.Argument(help="A folder, or one file, of candles, funding, open interest.")
    ],
    exchange: Annotated[
        str, typer.Option("--exchange", help="Whose data it is, such as bybit or binance.")
    ],
    store: options.Store = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="OURS=THEIRS, a column's name in the file; repeatable."),
    ] = None,
    symbol: Annotated[
        str | None,
        typer.Option("--symbol", help="For one file whose name does not say it."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="candles, funding or open_interest; with --symbol."),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option("--interval", help="Such as 5m or 8h; with --symbol."),
    ] = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Import Parquet or CSV files into a market store.

    A file's name says what it holds: <exchange>_<market>_<SYMBOL>_<kind>_<interval>.parquet, such
    as bybit_linear_BTCUSDT_candles_5m.parquet. Bad rows are refused with a count and a reason,
    never repaired. Importing again changes nothing. 3m candles are built from 1m, and 4h from the
    finest there are where a folder has none.
    """
    from llm_trader.cli import show
    from llm_trader.market.file_import import import_folder
    from llm_trader.market.store import MarketStore

    settings = options.settings_of(config, market__store=store)
    with (
        options.progress_bar("files") as bar,
        MarketStore.open(settings.market.store, write=True, exchange=exchange) as opened,
    ):
        line = bar.add_task("importing", total=None)
        report = import_folder(
            path,
            opened,
            exchange=exchange,
            written_at_ms=options.now_ms(),
            mapping=_mapping(column or []),
            progress=lambda _, done, total: bar.update(line, completed=done, total=total),
            symbol=symbol,
            kind=kind,
            interval=interval,
        )
    if json:
        options.print_json(report)
    else:
        show.import_report(options.tables(), report, settings.market.store)


@app.command()
def info(
    store: options.Store = None, config: options.Config = None, json: options.Json = False
) -> None:
    """Show the series of a store: ranges, gaps, where they came from."""
    from llm_trader.cli import show
    from llm_trader.market.store import MarketStore

    settings = options.settings_of(config, market__store=store)
    with MarketStore.open(settings.market.store) as opened:
        described = opened.describe()
    if json:
        options.print_json(described)
    else:
        show.store_info(options.tables(), described)


@app.command()
def check(
    store: options.Store = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Count anew the records and ledgers that differ.")
    ] = False,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Count all rows of a store and compare its records and gap ledgers with the count.

    Exits with 1 if any of them differs.
    """
    from llm_trader.cli import show
    from llm_trader.market.store import MarketStore

    settings = options.settings_of(config, market__store=store)
    with MarketStore.open(settings.market.store, write=repair) as opened:
        report = opened.check(repair=repair)
    if json:
        options.print_json(report)
    else:
        show.store_check(options.tables(), report)
    if report.problems:
        raise typer.Exit(1)


@app.command()
def simulate(
    store: options.Store = None,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Length in days.")] = 150,
    symbols: options.Symbols = "BTCUSDT,ETHUSDT",
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds make equal markets.")] = 7,
    start: Annotated[str, typer.Option("--start", help="RFC 3339 time.")] = _DEFAULT_START,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Write a simulated market (3m and 4h candles, funding, open interest) into a store.

    It is a market to try things on, never evidence: its exchange is called `simulated`, so that
    it cannot be mixed with a real one.
    """
    from llm_trader.cli import show
    from llm_trader.market.simulation import simulate as simulated
    from llm_trader.market.store import MarketStore

    settings = options.settings_of(config, market__store=store)
    source = f"simulation, seed {seed}"
    written_at_ms = options.now_ms()
    wanted = options.symbol_list(symbols)
    if not wanted:
        raise InvalidInputError("--symbols names no symbol")
    with (
        options.progress_bar("symbols") as bar,
        MarketStore.open(settings.market.store, write=True, exchange="simulated") as opened,
    ):
        for symbol in bar.track(wanted, description="simulating"):
            made = simulated(symbol, start_ms=parse_rfc3339(start), days=days, seed=seed)
            for candles in (made.intraday, made.four_hour):
                opened.write_candles(symbol, candles, source, written_at_ms=written_at_ms)
            opened.write_funding(symbol, made.funding, source, written_at_ms=written_at_ms)
            opened.write_open_interest(
                symbol,
                made.open_interest,
                source,
                written_at_ms=written_at_ms,
                interval_ms=made.open_interest_interval_ms,
            )
        described = opened.describe()
    if json:
        options.print_json(described)
    else:
        show.store_info(options.tables(), described)


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise InvalidInputError(f"--map {pair!r} is not like timestamp_ms=ts")
        mapping[ours] = theirs
    return mapping
