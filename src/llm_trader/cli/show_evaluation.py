"""Evaluations and gates as readable tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from llm_trader.cli import show
from llm_trader.evaluation import prose, units
from llm_trader.evaluation.results import JUDGED

if TYPE_CHECKING:
    from llm_trader.evaluation.gate import GateReport
    from llm_trader.evaluation.results import Arm, Metrics, Skill
    from llm_trader.evaluation.significance import Interval

_SHOWN = {"base rate": "base rate", JUDGED: "treated alike", "random neighbours": "random"}


def study(console: Console, metrics: Metrics, out: Path) -> None:
    """The verdict, what it rests on, and where the rest is."""
    origin = metrics.origin
    span = f"{show.minute(origin.start)} to {show.minute(origin.end)}"
    show.heading(console, f"{', '.join(origin.symbols)}, {span}")
    console.print()
    if metrics.skills:
        console.print(_skills(metrics.skills))
        console.print()
    if metrics.arms:
        console.print(_arms(metrics.arms))
        console.print()
    _verdict(console, metrics)
    show.heading(console, f"Report: {out / 'report.html'}")
    console.print(f"  {metrics.seconds:.0f} s; metrics.json, steps.csv and trades.csv beside it")


def _skills(skills: list[Skill]) -> object:
    found = show.table(
        "Skill: by how many % the loss (CRPS) is below that of each reference, 95 % intervals",
        *("neighbours", "symbol", "over", "queries"),
        *_SHOWN.values(),
        "verdict",
        right_from=3,
    )
    rows = {
        (one.variant, one.symbol, one.horizon): one for one in skills if one.reference == JUDGED
    }
    for key, judged in rows.items():
        cells = [
            _estimate(one.skill, 100, 2)
            for one in skills
            if (one.variant, one.symbol, one.horizon) == key
        ]
        found.add_row(*key, f"{judged.queries:,}", *cells, judged.verdict)
    found.columns[-1].justify = "left"
    return found


def _estimate(interval: Interval, scale: float, digits: int) -> str:
    """Value and bounds without their unit, which the title says once."""
    value, low, high = (
        units.number(scale * bound, digits, sign=True)
        for bound in (interval.value, interval.low, interval.high)
    )
    return f"{value} [{low}, {high}]"


def _arms(arms: list[Arm]) -> object:
    found = show.table(
        "Decisions, traded with fees, slippage and funding",
        *("symbol", "arm", "return", "Sharpe", "deflated", "drawdown", "trades", "wins"),
        *("% points a day beyond", "verdict"),
        right_from=2,
    )
    for one in arms:
        of, difference = one.performance, one.difference
        apart = "baseline"
        if difference is not None:
            apart = _estimate(difference, 1, 3)
        found.add_row(
            one.symbol,
            one.name,
            units.number(of.total_return_pct, 1, " %", sign=True),
            units.number(of.sharpe, 2),
            units.share(of.deflated_sharpe),
            units.number(of.max_drawdown_pct, 1, " %"),
            f"{of.trades:,}",
            units.share(of.win_rate),
            apart,
            one.verdict or "",
        )
    found.columns[-1].justify = "left"
    return found


def _verdict(console: Console, metrics: Metrics) -> None:
    passed = sum(one.passed for one in metrics.controls)
    quiet = sum(one.problem is None for one in metrics.probes)
    console.print(
        f"  controls: {passed} of {len(metrics.controls)} as they should be; leak probes: {quiet} "
        f"of {len(metrics.probes)} quiet; configurations tried so far: {metrics.trials.so_far}",
        highlight=False,
    )
    why = prose.distrust(metrics)
    if why:
        console.print(f"[bold red]{prose.DISTRUST}[/]", highlight=False)
        for reason in why:
            console.print(f"  {reason}", highlight=False)
        return
    console.print(f"[bold]Verdict: {metrics.verdict}[/]", highlight=False)
    for reading in metrics.readings:
        console.print(f"  {reading}", highlight=False)


def gate_report(console: Console, report: GateReport) -> None:
    found = show.table(
        "Skill against the base rate treated alike",
        *("symbol", "over", "baseline", "now", ""),
        right_from=2,
    )
    for one in report.changes:
        told = "worse" if one.regressed else ""
        found.add_row(one.symbol, one.horizon, units.skill(one.before), units.skill(one.now), told)
    console.print(found)
    for note in report.notes:
        console.print(f"  note: {note}", highlight=False)
    for problem in report.problems:
        console.print(f"  {problem}", highlight=False)
    console.print(f"[bold]{'Passed' if report.passed else 'Stopped'}[/]", highlight=False)
