"""`llm-trader data`: fills market stores, and writes them to files.

`data_store.py` has the commands about a store itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.options import with_job
from llm_trader.cli.output import Description, Result, Results, first_lines, heading, line, table
from llm_trader.cli.show_store import describe_series
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import (
    DAY_MS,
    Timeframe,
    parse_end,
    parse_shift,
    parse_start,
    parse_time,
)

if TYPE_CHECKING:
    from llm_trader.market.archive.filling import ArchiveReport
    from llm_trader.market.fetching import FetchReport, SeriesFetch
    from llm_trader.market.file_export import ExportReport
    from llm_trader.market.file_import import ImportReport
    from llm_trader.market.hole_costs import HoleReport

app = typer.Typer(
    no_args_is_help=True,
    help="Market data: fetch it, import files, simulate a market, describe and check a store.",
)


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

    named = options.one_symbol(symbol) if symbol else None
    meaning = FileMeaning(symbol=named, kind=kind, interval=interval)
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

    names = options.written_symbols(symbols)
    wanted = _timeframes(timeframes)
    report = fetch_market_data(job, exchange.lower(), names, start, end, wanted)
    return Result(report, _describe_fetch(report, job.settings.market.store), report.failed)


@app.command()
@with_job("store", "interval", "keep_days", "log_level", quiet=False, unit="symbols")
def collect(
    exchange: Annotated[str, Option(help="Exchange to collect from: binance or bybit.")],
    symbols: Annotated[
        str,
        Option(
            "--symbols",
            "--symbol",
            help="Symbols, separated by commas: BTCUSDT, BTC-USDT or BTC/USDT:USDT.",
        ),
    ],
    job: Job,
    index: Annotated[
        Path | None,
        Option(help="Folder of an embedded index to keep up to date, too. [setting index.path]"),
    ] = None,
    start: Annotated[
        str,
        Option(
            "--start",
            "-s",
            help="First time of symbols that are new to the store: days before now, or RFC 3339.",
        ),
    ] = "150",
    timeframes: Annotated[str, Option(help="Candles to collect, separated by commas.")] = "3m,4h",
) -> Results:
    """Collect candles, funding and open interest as they come, until SIGTERM or Ctrl-C.

    First it fetches what the store lacks: of symbols that are new 150 days, 60 that a state reads
    and 90 that are searched. Then it streams candles over WebSockets and stores those that have
    closed; what a lost connection has missed, and candles of which the stream does not show the
    end, are fetched. Funding and open interest are polled. A symbol that fails leaves the others.

    At each boundary of the grid of snapshots it prints a line (a document with --json), and sends
    the state of each symbol to the addresses of delivery.intakes. With --index, or with a Qdrant
    server in the settings, states are indexed as their outcomes become known. Data older than
    market.keep_days is removed once a day.

    A second collector of the same store is refused. A killed one loses the candles in progress,
    which the next start fetches. It needs the extra `exchange`:
    pip install 'llm-trader-rag[exchange]'.
    """
    from llm_trader.app.collection import CollectionPlan, collect_market
    from llm_trader.app.indexes import backend_of
    from llm_trader.cli.show_collection import describe_event
    from llm_trader.clock import WallClock

    if index is not None:
        job = options.with_index(job, index)
    plan = CollectionPlan(
        exchange=exchange.lower(),
        symbols=tuple(options.written_symbols(symbols)),
        timeframes=tuple(_timeframes(timeframes)),
        start=start,
        is_indexed=index is not None or backend_of(job.settings) != "embedded",
    )

    def run(present: Callable[[Result], None]) -> None:
        collect_market(
            job,
            plan,
            WallClock(options.now_ms),
            lambda event: present(Result(event, describe_event(event))),
        )

    return Results(run)


@app.command()
@with_job("store", "archive_url", "parallel", quiet=False, unit="files")
def archive(
    job: Job,
    symbols: Annotated[
        str, Option("--symbols", "--symbol", help="Symbols, separated by commas.")
    ] = "",
    start: Annotated[
        str | None,
        Option(
            "--start",
            "-s",
            help="First time: days before the end, or RFC 3339; 365 days by default.",
        ),
    ] = None,
    end: Annotated[str, Option("--end", "-e", help="Last time: now, or RFC 3339.")] = "now",
    timeframes: Annotated[str, Option(help="Candles, separated by commas.")] = "3m,4h",
    recheck: Annotated[
        bool, Option("--recheck", help="Only ask whether stored files were corrected since.")
    ] = False,
) -> Result:
    """Download history of Binance's perpetuals: candles, funding and open interest.

    The files that Binance publishes are verified by their checksums and then checked like imported
    ones; whole months and days are stored. A file that is refused is named, and the others go on.
    Running it again asks only for what the store lacks. Days that are not published are listed;
    the month in progress has no funding there. --recheck asks of each stored file whether it was
    corrected, by default of all, and stores what was. Exits with 1 where a file was refused.
    """
    from llm_trader.app import market_data

    names = options.symbol_list(symbols)
    end_ms = parse_end(end, job.now_ms)
    if recheck:
        span_ms = (parse_start(start, end_ms) if start else 0, end_ms)
        report = market_data.recheck_store_against_archive(job, names, span_ms)
    else:
        span_ms = (parse_start(start or "365", end_ms), end_ms)
        chosen = _timeframes(timeframes)
        report = market_data.fill_store_from_archive(job, names, chosen, span_ms)
    return Result(
        report, _describe_archive(report, job.settings.market.store), bool(report.problems)
    )


@app.command()
@with_job("store", quiet=False, unit="months")
def export(
    out: Annotated[Path, Option(help="Folder to write to.")],
    job: Job,
    file_format: Annotated[
        Literal["parquet", "csv"], Option("--format", help="Kind of the files.")
    ] = "parquet",
    symbols: options.StoreSymbols = "",
    exchange: Annotated[
        str | None, Option(help="Exchange of a store that does not say it.")
    ] = None,
    force: Annotated[
        bool, Option("--force", help="Replace what the folder has of these series.")
    ] = False,
) -> Result:
    """Write a store to files, one per symbol, series and month, that `data import` reads back.

    An import into a new store makes an identical one: the same rows, the same candles known as
    built from finer ones, the same accepted jumps and sources; `series.json` beside the files says
    what rows cannot. Importing files without it treats them as any others. An export that was
    stopped goes on when it is run again. Files of other data, or of an earlier state of the store,
    are not replaced without --force.
    """
    from llm_trader.app.market_data import export_market_data

    names = options.symbol_list(symbols)
    report = export_market_data(job, out, file_format, names, exchange, force=force)
    return Result(report, _describe_export(report))


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


def _timeframes(text: str) -> list[Timeframe]:
    return [Timeframe.parse(name) for name in text.replace(" ", "").split(",") if name]


def _mapping(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        name, _, column = pair.partition("=")
        if not (name and column):
            raise InvalidInputError(f"--map {pair!r} is not like timestamp_ms=ts")
        mapping[name] = column
    return mapping


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
        yield from first_lines(jumps, "jumps")
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
            series_name(series),
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
        name = series_name(series)
        if series.error:
            yield line(f"failed: {name}: {series.error}")
        for note in series.notes:
            yield line(f"{name}: {note}")
        gaps = [f"{name}: {report.exchange} has nothing from {a} to {b}" for a, b in series.absent]
        yield from first_lines(gaps if series.kind == "candles" else [], "gaps")
        for reason, count in series.refused.items():
            yield line(f"warning: {name}: {count} refused, and asked for again: {reason}")
        for reason, count in series.left_out.items():
            yield line(f"{name}: {count} left out: {reason}")
        jumps = [f"warning: {name}: {jump}" for jump in series.jumps]
        yield from first_lines(jumps, "jumps")
        for contradiction in series.contradictions:
            yield line(f"warning: {series.symbol} {contradiction}; see: {_check(store)}")
    if report.failed:
        yield line("what was fetched is kept; run the command again to go on")
    if any(series.write.replaced for series in report.series):
        yield line("rows were replaced; rag-ingest makes the states again that read them")
    if unaccepted := [jump for series in report.series for jump in series.jumps]:
        from llm_trader.market.jumps import jump_remedy

        yield line(jump_remedy(unaccepted, str(store)))


def _check(store: Path) -> str:
    return f"llm-trader data check --store {store}"


def series_name(series: SeriesFetch) -> str:
    return f"{series.symbol} {series.timeframe or series.kind.replace('_', ' ')}"


def _describe_archive(report: ArchiveReport, store: Path) -> Description:
    yield heading(f"From {report.url} into {store}")
    if not report.series:
        yield line("no stored file is of this span")
        return
    named = [(f"{s.symbol} {s.kind} {s.timeframe or ''}".strip(), s) for s in report.series]
    rows = (
        (name, s.files, s.stored_before + s.unchanged, s.write.added, s.write.replaced)
        for name, s in named
    )
    yield table("", "series", "files", "as before", "added", "replaced", rows=rows)
    for name, series in named:
        unpublished = [f"{name}: not published from {span}" for span in series.not_published]
        yield from first_lines(unpublished, "such spans")
        for reason, count in series.left_out.items():
            yield line(f"{name}: {count} left out: {reason}")
        gaps = [f"gap in {name}: {gap.missing} candles from {gap.start}" for gap in series.gaps]
        yield from first_lines(gaps, "gaps")
    for derived in report.derived:
        for warning in derived.warnings:
            yield line(f"warning: {warning}")
        if derived.rows:
            yield line(
                f"{derived.symbol} {derived.timeframe}: {derived.rows} built from finer ones"
            )
    for problem in report.problems:
        yield line(f"{problem.file}: {problem.reason}")
    if any(s.write.replaced for s in report.series):
        yield line("rows were replaced; rag-ingest makes the states again that read them")
    if report.jumps:
        from llm_trader.market.jumps import jump_remedy

        yield from first_lines([f"warning: {jump}" for jump in report.jumps], "jumps")
        yield line(jump_remedy(report.jumps, str(store)))


def _describe_export(report: ExportReport) -> Description:
    yield heading(f"Exported to {report.folder}")
    rows = (
        (s.symbol, f"{s.kind} {s.timeframe or ''}".strip(), s.rows, s.files, s.written)
        for s in report.series
    )
    columns = ("symbol", "series", "rows", "files", "written now")
    yield table("", *columns, rows=rows, right_from=2)
    yield line("read it back with:")
    yield line(
        f"llm-trader data import {report.folder} --exchange {report.exchange} --store NEW_FOLDER"
    )


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
