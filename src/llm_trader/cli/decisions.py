"""`llm-trader decisions`: the record of decisions."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from llm_trader.app.job import Job
from llm_trader.cli.options import symbol_list, with_job
from llm_trader.cli.output import Result, line
from llm_trader.timeframe import iso8601, parse_start

if TYPE_CHECKING:
    from llm_trader.llm.record.decisions import DecisionFilter

app = typer.Typer(
    no_args_is_help=True, help="The record of decisions: list, show, statistics, export, prune."
)


@dataclass(frozen=True)
class Filters:
    """Which decisions a command is about."""

    symbol: Annotated[str | None, Option(help="Only decisions on this symbol.")] = None
    model: Annotated[str | None, Option(help="Only those of this model.")] = None
    arm: Annotated[Literal["rag", "baseline"] | None, Option(help="Only those of this arm.")] = None
    action: Annotated[
        Literal["LONG", "SHORT", "HOLD"] | None,
        Option(help="Only those with this action.", case_sensitive=False),
    ] = None
    hold: Annotated[
        Literal["model", "error", "guard"] | None,
        Option(help="Only HOLDs of this kind: chosen by the model, an error, or a guard."),
    ] = None
    origin: Annotated[str | None, Option(help="Only those of this command, such as decide.")] = None
    since: Annotated[
        str | None, Option(help="Only those made since: a number of days before now, or RFC 3339.")
    ] = None


@app.callback()
def _group() -> None:
    pass


@app.command("list")
@with_job("record")
def list_all(
    job: Job,
    filters: Filters,
    limit: Annotated[int, Option("--limit", "-n", min=1, help="Most decisions to list.")] = 20,
) -> Result:
    """List decisions, the newest first."""
    from llm_trader.app.decisions import list_decisions
    from llm_trader.cli.show_decisions import describe_list

    found = list_decisions(job, _filter(job, filters), limit)
    return Result(found, describe_list(found))


@app.command()
@with_job("record")
def show(
    number: Annotated[int, Argument(metavar="ID", help="Number of the decision.", min=1)],
    job: Job,
    verbose: Annotated[
        bool, Option("--verbose", "-v", help="Also show the prompt and the replies.")
    ] = False,
) -> Result:
    """Show a decision with its evidence, its calls, its cost and its versions."""
    from llm_trader.app.decisions import read_decision
    from llm_trader.cli.show_decisions import describe_record

    report = read_decision(job, number)
    return Result(report, describe_record(report, verbose=verbose))


@app.command()
@with_job("record", "store")
def stats(
    job: Job,
    filters: Filters,
    horizon: Annotated[
        Literal["15m", "1h", "4h", "24h"], Option(help="Time after which outcomes are compared.")
    ] = "4h",
) -> Result:
    """Sum up decisions: actions, kinds of HOLD, cost and latency, and what followed them.

    What followed comes from the candles of the store, before costs of trading, for LONG and SHORT
    decisions whose horizon has passed. Decisions whose horizons overlap count as one in the
    intervals.
    """
    from llm_trader.app.decisions import summarise_decisions
    from llm_trader.cli.show_decisions import describe_statistics

    found = summarise_decisions(job, _filter(job, filters), horizon)
    return Result(found, describe_statistics(found))


@app.command()
@with_job("record")
def export(
    job: Job,
    filters: Filters,
    out: Annotated[
        Path | None, Option("--out", "-o", help="File to write; standard output by default.")
    ] = None,
) -> Result | None:
    """Write decisions as JSON lines, each with its calls: requests, replies, tokens and cost."""
    from llm_trader.app.decisions import export_lines, write_export

    chosen = _filter(job, filters)
    if out is None:
        for text in export_lines(job, chosen):
            sys.stdout.write(text.decode())
        return None
    written = write_export(job, chosen, out)
    return Result({"decisions": written, "file": str(out)}, [line(f"{written:,} decisions: {out}")])


@app.command()
@with_job("record")
def prune(
    job: Job,
    keep_days: Annotated[
        int | None,
        Option(min=2, help="Days to keep. [setting decisions.keep_days, default 3650]"),
    ] = None,
) -> Result:
    """Remove decisions that are older than the days to keep, with their calls."""
    from llm_trader.app.decisions import prune_decisions

    days = job.settings.decisions.keep_days if keep_days is None else keep_days
    removed = prune_decisions(job, days)
    told = f"removed {removed.decisions:,} decisions and {removed.calls:,} calls from before "
    return Result(removed, [line(told + iso8601(removed.before_ms))])


def _filter(job: Job, filters: Filters) -> DecisionFilter:
    from llm_trader.llm.record.decisions import DecisionFilter

    symbols = symbol_list(filters.symbol or "")
    return DecisionFilter(
        symbol=symbols[0] if symbols else None,
        model=filters.model,
        arm=filters.arm,
        action=filters.action,
        hold_reason=filters.hold,
        origin=filters.origin,
        start_ms=None if filters.since is None else parse_start(filters.since, job.now_ms),
    )
