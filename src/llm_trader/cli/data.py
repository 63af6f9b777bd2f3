"""`llm-trader data`: fills market stores, describes and checks them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_trader.cli import options, show
from llm_trader.cli.output import present, progress_bar
from llm_trader.cli.setting_flags import with_settings
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import parse_rfc3339

if TYPE_CHECKING:
    from llm_trader.settings.tree import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Market data: import files, simulate a market, describe and check a store.",
)


@app.command("import")
@with_settings("store", quiet=False)
def import_files(
    path: Annotated[
        Path,
        typer.Argument(help="A folder or one file with candles, funding or open interest."),
    ],
    exchange: Annotated[
        str, typer.Option("--exchange", help="Exchange of the data, such as bybit or binance.")
    ],
    settings: Settings,
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="OURS=THEIRS: name of a column in the file; repeatable."),
    ] = None,
    symbol: Annotated[
        str | None,
        typer.Option("--symbol", help="Symbol of one file whose name does not say it."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="candles, funding or open_interest; with --symbol."),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option("--interval", help="Interval of the rows, such as 5m or 8h; with --symbol."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Import Parquet or CSV files into a market store.

    The name of a file says what it holds: <exchange>_<market>_<SYMBOL>_<kind>_<interval>.parquet,
    such as bybit_linear_BTCUSDT_candles_5m.parquet. Bad rows are refused with a count and a reason,
    never repaired. Importing again changes nothing. Missing 3m candles are built from 1m candles,
    and missing 4h candles from the finest available ones.
    """
    from llm_trader.app.market_data import import_market_data

    with progress_bar("files") as progress:
        report = import_market_data(
            settings,
            path,
            exchange,
            options.now_ms(),
            progress,
            mapping=_mapping(column or []),
            symbol=symbol,
            kind=kind,
            interval=interval,
        )
    store = settings.market.store
    present(report, json, lambda console, value: show.import_report(console, value, store))


@app.command()
@with_settings("store", quiet=False)
def info(settings: Settings, json: options.Json = False) -> None:
    """Show the series of a store with their ranges, gaps and sources."""
    from llm_trader.app.market_data import describe_store

    present(describe_store(settings), json, show.store_info)


@app.command()
@with_settings("store", quiet=False)
def check(
    settings: Settings,
    repair: Annotated[
        bool, typer.Option("--repair", help="Correct the records and ledgers that differ.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Count all rows of a store and compare its records and gap ledgers with the count.

    Exits with 1 if any of them differs.
    """
    from llm_trader.app.market_data import check_store

    report = check_store(settings, repair=repair)
    present(report, json, show.store_check)
    if report.problems:
        raise typer.Exit(1)


@app.command()
@with_settings("store", quiet=False)
def simulate(
    settings: Settings,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Length in days.")] = 150,
    symbols: Annotated[
        str, typer.Option("--symbols", help="Symbols, separated by commas.")
    ] = "BTCUSDT,ETHUSDT",
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds make equal markets.")] = 7,
    start: Annotated[
        str, typer.Option("--start", help="Time of the first candle, RFC 3339.")
    ] = "2025-01-01T00:00:00Z",
    json: options.Json = False,
) -> None:
    """Write a simulated market (3m and 4h candles, funding, open interest) into a store.

    Use it to try things out, never as evidence. Its exchange is called `simulated`, so it cannot
    be mixed with a real one.
    """
    from llm_trader.app.market_data import simulate_market

    with progress_bar("symbols") as progress:
        described = simulate_market(
            settings,
            options.symbol_list(symbols),
            parse_rfc3339(start),
            options.now_ms(),
            progress,
            days=days,
            seed=seed,
        )
    present(described, json, show.store_info)


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if not (name and column):
            raise InvalidInputError(f"--map {pair!r} is not like timestamp_ms=ts")
        mapping[name] = column
    return mapping
