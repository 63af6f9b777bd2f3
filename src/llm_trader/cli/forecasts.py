"""`llm-trader forecasts`: what a server forecast about the present, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from llm_trader.app.job import Job
from llm_trader.cli.options import one_symbol, with_job
from llm_trader.cli.output import Description, Result, line, minute, number, table
from llm_trader.timeframe import iso8601

if TYPE_CHECKING:
    from rich.table import Table

    from llm_trader.app.forecasts import ListedForecasts
    from llm_trader.forecasts.quality import ForecastQuality, Skill
    from llm_trader.forecasts.scoring import Scored
    from llm_trader.retrieval.intervals import Interval

app = typer.Typer(
    no_args_is_help=True, help="The journal of forecasts of a server: score, list and verify them."
)

_Symbol = Annotated[str, Option("--symbol", help="Symbol, such as BTCUSDT; all by default.")]
_FLAGS = "store", "index", "forecasts_folder"
_MISSES_SHOWN = 10
_REFERENCES = {
    "base_rate": "base rate",
    "rescaled": "rescaled base rate",
    "volatility": "volatility model",
    "random": "random neighbours",
}


@app.command()
@with_job(*_FLAGS)
def score(
    job: Job,
    symbol: _Symbol = "",
    days: Annotated[int, Option(min=1, max=90, help="Days up to now that count.")] = 30,
) -> Result:
    """Score the served forecasts whose outcome is in the store.

    Of each symbol and quarter-hour the first forecast counts. Nothing is written: a score follows
    from a line of the journal and the store.
    """
    from llm_trader.app.forecasts import score_journal

    quality = score_journal(job, one_symbol(symbol) if symbol else None, days)
    return Result(quality, _describe_quality(quality))


@app.command("list")
@with_job(*_FLAGS)
def list_forecasts(
    job: Job,
    symbol: _Symbol = "",
    limit: Annotated[int, Option(min=1, help="Most scores to show.")] = 50,
) -> Result:
    """List served forecasts with their outcomes: misses first, then the newest."""
    from llm_trader.app.forecasts import list_journal

    listed = list_journal(job, one_symbol(symbol) if symbol else None)
    shown = listed.scored[:limit]
    value = {
        "scored": [one._asdict() | {"is_miss": one.is_miss} for one in shown],
        "waiting": [{"symbol": name, "as_of_ms": as_of_ms} for name, as_of_ms in listed.waiting],
    }
    return Result(value, _describe_list(listed, shown))


@app.command()
@with_job("index", "forecasts_folder")
def verify(
    job: Job,
    expect: Annotated[
        list[str] | None,
        Option(help="Hash of a line that must be there, kept from an earlier run; repeatable."),
    ] = None,
) -> Result:
    """Find lines of the journal that were changed, removed, moved or cut off.

    Reads all files, also while a server writes. The hash of the last line names everything up to
    it: keep it on another machine, and give it with --expect later. Exits with 1 if anything was
    found.
    """
    from llm_trader.app.forecasts import verify_journal
    from llm_trader.cli.audit import describe_chains
    from llm_trader.forecasts.journal import FORECASTS

    report = verify_journal(job, tuple(expect or ()))
    return Result(report, describe_chains(report, FORECASTS), not report.passed)


def _describe_quality(quality: ForecastQuality) -> Description:
    rows = (
        (
            *(one.horizon, f"{one.scored:,}", one.days),
            *(_share(one.coverage_50), _share(one.coverage_80), _share(one.calibrated_coverage_80)),
        )
        for one in quality.horizons
    )
    columns = (
        *("horizon", "scored", "days", "in 50 % band", "in 80 % band", "in calibrated band"),
    )
    since, until = (minute(iso8601(ms)) for ms in (quality.since, quality.until))
    yield table(f"Served forecasts from {since} to {until}", *columns, rows=rows)
    yield line(
        f"Brackets hold {quality.interval_level:.0%} intervals; a day counts as one observation. "
        f"{_waiting(quality.waiting)} for an outcome, "
        f"{quality.unscored.no_outcome + quality.unscored.memory} have none."
    )
    yield _skills(quality)
    if quality.misses:
        rows_of_misses = (
            (
                *(miss.symbol, minute(iso8601(miss.as_of)), miss.horizon),
                *(f"{value:+.2f}" for value in (miss.low, miss.high, miss.outcome)),
            )
            for miss in quality.misses[:_MISSES_SHOWN]
        )
        names = "symbol", "state", "horizon", "from %", "to %", "outcome %"
        yield table("Last outcomes outside their 80 % band", *names, rows=rows_of_misses)


def _skills(quality: ForecastQuality) -> Table:
    skills = {(one.horizon, one.reference): one for one in quality.skill}
    rows = (
        (one.horizon, *(_skill(skills[one.horizon, name], one.scored) for name in _REFERENCES))
        for one in quality.horizons
    )
    title = "Skill over the references, with the number of forecasts where not all have them"
    return table(title, "horizon", *_REFERENCES.values(), rows=rows)


def _skill(skill: Skill, scored: int) -> str:
    share = _share(skill.skill, "+.1%")
    return share if skill.scored == scored else f"{share} ({skill.scored:,})"


def _describe_list(listed: ListedForecasts, shown: list[Scored]) -> Description:
    rows = (
        (
            *(one.symbol, minute(iso8601(one.as_of_ms)), one.horizon),
            *(f"{value:+.2f}" for value in (one.low, one.high, one.outcome)),
            *(f"{one.p_up:.2f}", f"{one.crps:.3f}", "miss" if one.is_miss else ""),
        )
        for one in shown
    )
    columns = (
        *("symbol", "state", "horizon", "from %", "to %", "outcome %", "P(up)", "CRPS %", ""),
    )
    yield table("Served forecasts", *columns, rows=rows)
    if (unshown := len(listed.scored) - len(shown)) > 0:
        yield line(f"{unshown} more have an outcome; --limit shows them")
    yield line(f"{_waiting(len(listed.waiting))} for an outcome")


def _share(interval: Interval, spec: str = ".1%") -> str:
    if interval.value is None:
        return "-"
    value = format(interval.value, spec)
    if interval.low is None:
        return value
    return f"{value} [{number(interval.low, spec)}, {number(interval.high, spec)}]"


def _waiting(count: int) -> str:
    return "1 forecast waits" if count == 1 else f"{count} forecasts wait"
