"""`llm-trader data`: the commands that describe, check and prune a market store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli import options
from llm_trader.cli.data import app as app
from llm_trader.cli.data import series_name
from llm_trader.cli.options import with_job
from llm_trader.cli.output import (
    Description,
    Result,
    first_lines,
    heading,
    line,
    minute,
    table,
)
from llm_trader.cli.show_store import describe_series
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import DAY_MS, parse_time

if TYPE_CHECKING:
    from llm_trader.app.repair import StoreRepair
    from llm_trader.app.retention import Removal
    from llm_trader.market.jumps import Jump
    from llm_trader.market.store_check import StoreCheck


@app.command()
@with_job("store", quiet=False)
def info(job: Job) -> Result:
    """Show the series of a store with their ranges, gaps, sources, and the age of the newest."""
    from llm_trader.app.market_data import describe_store

    info = describe_store(job)
    return Result(info, describe_series(info))


@app.command()
@with_job("store", "index", "qdrant_url", quiet=False, unit="days", steps_per_unit=DAY_MS)
def check(
    job: Job,
    repair: Annotated[
        bool, Option("--repair", help="Correct records, and fetch what is missing or corrected.")
    ] = False,
    deep: Annotated[
        bool, Option("--deep", help="Also read every row and every page, and compare checksums.")
    ] = False,
) -> Result:
    """Verify a store: order, grid, gaps, values, and that timeframes agree with each other.

    Named are records and gap ledgers that differ from the rows; gaps and why they are there; open
    interest or funding that stopped while candles go on; zeros between positive values; jumps of
    the price by more than a factor of 3; candles that repeat one another for an hour or longer.
    Candles of one symbol in different timeframes are compared: where more than 1 % of the coarser
    ones differ, one of the two has wrong times or is of another market.

    --repair counts records anew, asks the exchange for the gaps and nothing else, fetches the files
    that Binance's archive has corrected, and names the states of the index that are out of date;
    rag-ingest makes those again. --deep finds damage: rows that differ from the checksum of their
    day, and a file that contradicts itself. Rows that an earlier version wrote have no checksum;
    --repair gives them one. Exits with 1 if anything is wrong; an outage of the exchange is not.
    """
    if not repair:
        from llm_trader.app.market_data import check_store

        report = check_store(job, deep=deep)
        return Result(report, _describe_check(report), report.failed)
    from llm_trader.app.repair import repair_store

    repaired = repair_store(job, deep=deep)
    return Result(repaired, _describe_repair(repaired), repaired.failed)


@app.command()
@with_job("keep_days", "store", "index", "qdrant_url", quiet=False, unit="")
def prune(
    job: Job,
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what would be removed.")] = False,
) -> Result:
    """Remove what is older than --keep-days from a market store and its index.

    Days are counted back from the newest data, in whole days UTC, so a store is never emptied. The
    states of the index that are newer stay as they are, even where data that they were made of is
    removed. Other processes may read and write the store meanwhile; one that writes to the index
    removes the states itself. A killed run is ended by the
    next one. The file does not shrink: its space is used for new data.
    """
    from llm_trader.app.retention import prune as remove_old

    report = remove_old(job, dry_run=dry_run)
    return Result(report, _describe_removal(report))


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


def _describe_removal(report: Removal) -> Description:
    verb = "would be removed" if report.dry_run else "removed"
    if not (report.series or report.points):
        yield line(f"nothing is older than {minute(report.cut)}")
        return
    yield heading(f"{verb.capitalize()}: what is older than {minute(report.cut)}")
    rows = (
        (s.symbol, s.database.replace("_", " "), s.rows, minute(s.first), minute(s.last))
        for s in report.series
    )
    if report.series:
        yield table("", "symbol", "series", "rows", "first", "last", rows=rows, right_from=2)
    for symbol, count in report.points.items():
        yield line(f"{symbol}: {count} states {verb} from {report.index}")
    if report.index_note is not None:
        yield line(report.index_note)


def _describe_check(check: StoreCheck) -> Description:
    yield heading(f"{check.path}, counted")
    wrong = Counter((finding.symbol, finding.series) for finding in check.wrong)
    named = [(s, f"{s.kind.replace('_', ' ')} {s.timeframe or ''}".strip()) for s in check.series]
    rows = ((s.symbol, name, s.rows, wrong[s.symbol, name]) for s, name in named)
    yield table("", "symbol", "series", "rows", "problems", rows=rows, right_from=2)
    for problem in check.file_problems:
        yield line(f"file: {problem}")
    for is_wrong in (True, False):
        found = [finding for finding in check.findings if finding.wrong == is_wrong]
        if found and not is_wrong:
            yield line("noted, and not wrong:")
        for (_, _, problem), group in groupby(found, lambda f: (f.symbol, f.series, f.problem)):
            yield from first_lines(list(map(str, group)), f"of {problem.replace('_', ' ')}")
    remedies = [finding.remedy for finding in check.wrong]
    for remedy in dict.fromkeys([check.remedy, *remedies]):
        if remedy is not None:
            yield line(remedy)


def _describe_repair(repair: StoreRepair) -> Description:
    for series in repair.fetched:
        yield line(
            f"{series_name(series)}: {series.write.added} rows added and {series.write.replaced} "
            f"replaced, from the exchange"
        )
        yield from map(line, (f"{series_name(series)}: {note}" for note in series.notes))
    for archived in repair.archive.series if repair.archive else ():
        if archived.files:
            name = f"{archived.symbol} {archived.kind} {archived.timeframe or ''}".strip()
            yield line(f"{name}: {archived.files} corrected files stored, from the archive")
    for problem in repair.archive.problems if repair.archive else ():
        yield line(f"{problem.file}: {problem.reason}")
    yield from _describe_check(repair)
    for error in repair.errors:
        yield line(f"not repaired: {error}")
    for stale in repair.outdated:
        yield line(
            f"{stale.symbol}: {stale.points} states of {repair.index} are out of date, "
            f"{minute(stale.first)} to {minute(stale.last)}; rag-ingest makes them again"
        )
    if repair.index_note is not None:
        yield line(repair.index_note)


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
