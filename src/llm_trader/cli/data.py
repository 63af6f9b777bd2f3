"""`llm-trader data`: fills market stores, describes and checks them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, heading, line, minute, table
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import DAY_MS, Timeframe, parse_shift, parse_time

if TYPE_CHECKING:
    from llm_trader.market.fetching import FetchReport, SeriesFetch
    from llm_trader.market.file_import import ImportReport
    from llm_trader.market.frozen import FrozenStretch
    from llm_trader.market.hole_costs import HoleReport
    from llm_trader.market.jumps import Jump
    from llm_trader.market.store_check import StoreCheck
    from llm_trader.market.store_info import StoreInfo

app = typer.Typer(
    no_args_is_help=True,
    help="Market data: fetch it, import files, simulate a market, describe and check a store.",
)

# Of each series or file; data with more gaps or jumps are needed again, not a longer list.
_SHOWN: Final = 5


@app.command("import")
@with_job("store", quiet=False, unit="")  # of which there are several: files, and rows of a file
def import_files(
    path: Annotated[
        Path, Argument(help="A folder or one file with candles, funding or open interest.")
    ],
    exchange: Annotated[str, Option(help="Exchange of the data, such as bybit or binance.")],
    job: Job,
    column: Annotated[
        list[str] | None,
        Option(
            "--map",
            help="OURS=THEIRS: name of a column, or its number without a header; repeatable.",
        ),
    ] = None,
    symbol: Annotated[
        str | None,
        Option("--symbol", "--symbols", help="Symbol of one file whose name does not say it."),
    ] = None,
    kind: Annotated[
        str | None, Option(help="candles, funding or open_interest; with --symbol.")
    ] = None,
    interval: Annotated[
        str | None, Option(help="Interval of the rows, such as 5m or 8h; with --symbol.")
    ] = None,
    no_header: Annotated[
        bool, Option("--no-header", help="The first line is data; say which with --map.")
    ] = False,
    stamp: Annotated[
        Literal["open", "close"] | None, Option(help="Which time of a candle the file has.")
    ] = None,
    shift: Annotated[
        str | None, Option(help="Added to all times, such as -8h; kept with the data.")
    ] = None,
    percent: Annotated[
        bool, Option("--percent", help="Funding rates are in percent, 0.01 being 0.01 %.")
    ] = False,
) -> Result:
    """Import Parquet, Feather or CSV files, also .gz and .zip, into a market store.

    The name of a file says what it holds: <exchange>_<market>_<SYMBOL>_<kind>_<interval>.parquet,
    such as bybit_linear_BTCUSDT_candles_5m.parquet. Folders in a folder are searched, too. Bad rows
    are refused with a count, a place and a reason, never repaired, and so are candles that differ
    from the stored ones of another timeframe. Candles that have not closed yet, identical rows and
    rows without values are left out and counted. Importing again changes nothing.

    Missing 3m candles are built from 1m candles, and missing 4h candles from the finest imported
    ones: where at least 90 % of a 4h candle is there, its first and last part among it; its range
    and volume are then those of what is there. Where imported 4h candles end, built ones go on with
    them if both agree where both are there.
    """
    from llm_trader.app.market_data import FileMeaning, import_market_data
    from llm_trader.market.file_rows import FileReading

    meaning = FileMeaning(symbol=symbol, kind=kind, interval=interval)
    reading = FileReading(
        mapping=_mapping(column or []),
        no_header=no_header,
        stamp=stamp,
        shift_ms=parse_shift(shift) if shift else 0,
        in_percent=percent,
    )
    report = import_market_data(job, path, exchange, reading, meaning)
    return Result(report, _describe_import(report, job.settings.market.store))


@app.command()
@with_job("store", unit="days", steps_per_unit=DAY_MS)
def fetch(
    exchange: Annotated[str, Option(help="Exchange to ask: binance or bybit.")],
    symbols: Annotated[
        str,
        Option(
            "--symbols",
            "--symbol",
            help="Symbols, separated by commas: BTCUSDT, BTC-USDT or BTC/USDT:USDT.",
        ),
    ],
    job: Job,
    start: Annotated[
        str,
        Option("--start", "-s", help="First time: a number of days before the end, or RFC 3339."),
    ] = "400",
    end: Annotated[
        str, Option("--end", "-e", help="Last time: now (by the exchange), or RFC 3339.")
    ] = "now",
    timeframes: Annotated[str, Option(help="Candles to fetch, separated by commas.")] = "3m,4h",
) -> Result:
    """Fetch candles, funding and open interest of perpetual contracts from an exchange.

    It needs no key, and asks only for what the store lacks, the oldest first. Each page is stored
    at once: after Ctrl-C or a failure the next run goes on from there. What the exchange has
    nothing of is noted and not asked for again. Rows are checked as at import: bad ones are refused
    and counted, and candles in progress are left out.

    Needs the extra `exchange`: pip install 'llm-trader-rag[exchange]'. Exits with 1 if a series
    failed; the others are fetched.
    """
    from llm_trader.app.market_data import fetch_market_data

    names = options.symbol_list(symbols)
    wanted = [Timeframe.parse(name) for name in timeframes.replace(" ", "").split(",") if name]
    report = fetch_market_data(job, exchange.lower(), names, start, end, wanted)
    return Result(report, _describe_fetch(report, job.settings.market.store), report.failed)


@app.command()
@with_job("store", quiet=False)
def info(job: Job) -> Result:
    """Show the series of a store with their ranges, gaps and sources."""
    from llm_trader.app.market_data import describe_store

    info = describe_store(job.settings)
    return Result(info, describe_series(info))


@app.command()
@with_job("store", quiet=False)
def check(
    job: Job,
    repair: Annotated[
        bool, Option("--repair", help="Correct the records and ledgers that differ.")
    ] = False,
    deep: Annotated[
        bool, Option("--deep", help="Also read every row and every page, and compare checksums.")
    ] = False,
) -> Result:
    """Compare the records and gap ledgers of a store with a count of its rows.

    It also names jumps of the price by more than a factor of 3, and candles that repeat one another
    for an hour or longer. Candles of one symbol in different timeframes are compared: where more
    than 1 % of the coarser ones differ, one of the two has wrong times or is of another market.

    --deep finds damage: rows that differ from the checksum of their day, and a file that
    contradicts itself. Rows that an earlier version wrote have no checksum; --repair gives them
    one. Exits with 1 if anything differs, or a jump is not accepted.
    """
    from llm_trader.app.market_data import check_store

    report = check_store(job.settings, repair=repair, deep=deep)
    failed = bool(report.problems or report.unaccepted_jumps)
    return Result(report, _describe_check(report), failed)


@app.command("accept-jump")
@with_job("store", quiet=False)
def accept_jump(
    job: Job,
    symbol: Annotated[
        str | None, Option("--symbol", "--symbols", help="Symbol, such as BTCUSDT.")
    ] = None,
    at: Annotated[
        str | None, Option(help="A time within the candle at which the jump arrives, RFC 3339.")
    ] = None,
    list_jumps: Annotated[
        bool, Option("--list", help="Only list the jumps, of one symbol or all.")
    ] = False,
    withdraw: Annotated[
        bool, Option("--withdraw", help="Take the acceptance of this jump back.")
    ] = False,
) -> Result:
    """Say that a jump of the price is real, or list the jumps of a store.

    A price that differs by more than a factor of 3 from one candle to the next, or a high or low
    that far from its own candle, is a redenomination, a split or a bad tick. States and outcomes
    that cross it are left out until it is accepted; then ingest again. It is accepted in the
    candles of all timeframes.
    """
    from llm_trader.app import market_data

    if list_jumps:
        if at is not None:
            raise InvalidInputError("give either --list or --at")
        jumps = market_data.list_jumps(job.settings, options.symbol_list(symbol or ""))
        return Result(jumps, _describe_jumps(jumps))
    if symbol is None or at is None:
        raise InvalidInputError("say which jump with --symbol and --at, or see all with --list")
    name, time_ms = options.one_symbol(symbol), parse_time(at)
    jumps = market_data.accept_jump(job.settings, name, time_ms, withdraw=withdraw)
    return Result(jumps, _describe_acceptance(jumps, withdrawn=withdraw))


@app.command()
@with_job("store", quiet=False, unit="symbols")
def simulate(
    job: Job,
    days: Annotated[int, Option(min=1, max=3650, help="Length in days.")] = 150,
    symbols: Annotated[
        str, Option("--symbols", "--symbol", help="Symbols, separated by commas.")
    ] = "BTCUSDT,ETHUSDT",
    seed: Annotated[int, Option(help="Equal seeds make equal markets.")] = 7,
    start: Annotated[
        str, Option(help="Time of the first candle, RFC 3339 or a date.")
    ] = "2025-01-01T00:00:00Z",
) -> Result:
    """Write a simulated market: 3m and 4h candles, funding, open interest.

    Use it to try things out, never as evidence. Its exchange is called `simulated`, so it cannot
    be mixed with a real one.
    """
    from llm_trader.app.market_data import simulate_market

    names, start_ms = options.symbol_list(symbols), parse_time(start)
    info = simulate_market(job, names, start_ms, days=days, seed=seed)
    return Result(info, describe_series(info))


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if not (name and column):
            raise InvalidInputError(f"--map {pair!r} is not like timestamp_ms=ts")
        mapping[name] = column
    return mapping


def describe_series(info: StoreInfo) -> Description:
    yield heading(f"{info.path}, exchange {info.exchange or 'unknown'}")
    rows = []
    for series in info.series:
        sources = list(dict.fromkeys(source.source for source in series.provenance))
        rows.append(
            (
                series.symbol,
                f"{series.kind} {series.timeframe or ''}".strip(),
                series.rows,
                minute(series.first),
                minute(series.last),
                series.missing if series.kind == "candles" else "-",
                _first_of(sources),
            )
        )
    columns = ("symbol", "series", "rows", "first", "last", "missing", "from")
    shown = table("", *columns, rows=rows, right_from=2)
    shown.columns[-1].justify = "left"
    yield shown
    for series in info.series:
        name = f"{series.symbol} {series.timeframe}"
        gaps = [
            f"gap in {name}: {gap.missing} candles from {gap.start}"
            + (", of which the exchange has none" if gap.absent else "")
            for gap in series.gaps
        ]
        yield from _first_lines(gaps, "gaps")
        if series.incomplete:
            yield line(
                f"{name}: {len(series.incomplete)} candles are built from a part of their finer "
                f"ones, the first at {series.incomplete[0]}"
            )
        yield from _first_lines(_frozen_lines(name, series.frozen), "frozen stretches")


def _frozen_lines(name: str, stretches: Sequence[FrozenStretch] | None) -> list[str]:
    return [
        f"frozen in {name}: {stretch.candles} candles repeat the one before, from {stretch.start} "
        f"to {stretch.end}"
        for stretch in stretches or ()
    ]


def _first_lines(lines: Sequence[str], kind: str) -> Description:
    yield from map(line, lines[:_SHOWN])
    if (unshown := len(lines) - _SHOWN) > 0:
        yield line(f"and {unshown} more {kind}; all are in --json")


def _first_of(sources: Sequence[str]) -> str:
    if not sources:
        return "-"
    return sources[0] + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")


def _describe_check(check: StoreCheck) -> Description:
    yield heading(f"{check.path}, counted")
    named = [(f"{s.kind} {s.timeframe or ''}".strip(), s) for s in check.series]
    rows = ((s.symbol, name, s.rows, len(s.problems)) for name, s in named)
    yield table("", "symbol", "series", "rows", "problems", rows=rows, right_from=2)
    for problem in check.file_problems:
        yield line(f"file: {problem}")
    for name, series in named:
        if series.incomplete:
            yield line(
                f"{series.symbol} {name}: {series.incomplete} built from a part of their finer "
                "candles"
            )
        for problem in series.problems:
            yield line(f"{series.symbol} {name}: {problem}")
        jumps = [str(jump) for jump in series.jumps or () if not jump.accepted]
        yield from _first_lines(jumps, "jumps")
        stretches = _frozen_lines(f"{series.symbol} {series.timeframe}", series.frozen)
        yield from _first_lines(stretches, "frozen stretches")
    if check.remedy is not None:
        yield line(check.remedy)


def _describe_import(report: ImportReport, store: Path) -> Description:
    yield heading(f"Imported into {store}")
    written = [(file.file, file.rows, file.write) for file in report.files]
    for derived in report.derived:
        name = f"{derived.symbol} {derived.timeframe}, {derived.source}"
        written.append((name, derived.rows, derived.write))
    rows = ((name, n, write.added, write.replaced, write.unchanged) for name, n, write in written)
    yield table("", "file", "rows", "added", "replaced", "unchanged", rows=rows)
    for file in report.files:
        for warning in file.warnings:
            yield line(f"warning: {file.file}: {warning}")
        jumps = [f"warning: {file.file}: {jump}" for jump in file.jumps]
        yield from _first_lines(jumps, "jumps")
        for note in file.notes:
            yield line(f"{file.file}: {note}")
        for reason, count in file.left_out.items():
            yield line(f"{file.file}: {count} left out: {reason}")
    for derived in report.derived:
        for warning in derived.warnings:
            yield line(f"warning: {warning}")
        if derived.incomplete:
            yield line(
                f"{derived.symbol} {derived.timeframe}: {derived.incomplete} of {derived.rows} "
                "candles are built from a part of their finer ones"
            )
    for holes in report.holes:
        yield line(f"warning: {_describe_holes(holes)}")
    for skipped in report.skipped:
        yield line(f"skipped {skipped.file}: {skipped.reason}")
    if any(write.replaced for _, _, write in written):
        yield line("rows were replaced; rag-ingest makes the states again that read them")
    if unaccepted := [jump for file in report.files for jump in file.jumps]:
        from llm_trader.market.jumps import jump_remedy

        yield line(jump_remedy(unaccepted, str(store)))


def _describe_fetch(report: FetchReport, store: Path) -> Description:
    yield heading(f"Fetched from {report.exchange} into {store}, {report.start} to {report.end}")
    rows = (
        (
            _series_name(series),
            series.rows,
            series.write.added,
            series.write.replaced,
            series.missing if series.kind == "candles" else "-",
            sum(series.refused.values()),
            "failed" if series.error else "done",
        )
        for series in report.series
    )
    columns = ("series", "rows", "added", "replaced", "missing", "refused", "state")
    yield table("", *columns, rows=rows)
    for series in report.series:
        name = _series_name(series)
        if series.error:
            yield line(f"failed: {name}: {series.error}")
        for note in series.notes:
            yield line(f"{name}: {note}")
        gaps = [f"{name}: {report.exchange} has nothing from {a} to {b}" for a, b in series.absent]
        yield from _first_lines(gaps if series.kind == "candles" else [], "gaps")
        for reason, count in series.refused.items():
            yield line(f"warning: {name}: {count} refused, and asked for again: {reason}")
        for reason, count in series.left_out.items():
            yield line(f"{name}: {count} left out: {reason}")
        jumps = [f"warning: {name}: {jump}" for jump in series.jumps]
        yield from _first_lines(jumps, "jumps")
    if report.failed:
        yield line("what was fetched is kept; run the command again to go on")
    if any(series.write.replaced for series in report.series):
        yield line("rows were replaced; rag-ingest makes the states again that read them")
    if unaccepted := [jump for series in report.series for jump in series.jumps]:
        from llm_trader.market.jumps import jump_remedy

        yield line(jump_remedy(unaccepted, str(store)))


def _series_name(series: SeriesFetch) -> str:
    return f"{series.symbol} {series.timeframe or series.kind.replace('_', ' ')}"


def _describe_jumps(jumps: Sequence[Jump]) -> Description:
    if not jumps:
        yield line("no jumps")
    for jump in jumps:
        yield line(f"{jump}, {'accepted' if jump.accepted else 'not accepted'}")


def _describe_acceptance(jumps: Sequence[Jump], *, withdrawn: bool) -> Description:
    for jump in jumps:
        yield line(f"{'no longer accepted' if withdrawn else 'accepted'}: {jump}")
    change = "loses the states that cross it" if withdrawn else "gets the states beside it"
    yield line(f"an index of this store {change} with the next rag-ingest")


def _describe_holes(holes: HoleReport) -> str:
    text = (
        f"{holes.symbol} {holes.timeframe}: {holes.missing} candles missing in {holes.holes} "
        f"holes, the longest of {holes.longest}"
    )
    if holes.silenced is None:
        return text
    return (
        f"{text}; of {holes.quarter_hours} quarter-hours about {holes.silenced} are lost "
        f"({holes.without_state} without a state, {holes.without_outcome} without an outcome)"
    )
