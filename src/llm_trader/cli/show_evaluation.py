"""Evaluations and gates as readable tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_trader.cli import show
from llm_trader.evaluation.report import prose, units
from llm_trader.evaluation.report.beside import SAME, Case, case_of, grid_of, the_same
from llm_trader.evaluation.results import VERDICT_REFERENCE, Direction, Skill, UndirectedSkill
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval

if TYPE_CHECKING:
    from llm_trader.evaluation.results import Arm, Metrics
    from llm_trader.evaluation.verdict.gate import GateReport

_SHOWN = {
    "base rate": "base rate",
    VERDICT_REFERENCE: "treated alike",
    "random neighbours": "random",
}
_SIGNS: Final[dict[Verdict, str]] = {"better": "▲", "worse": "▼", "no evidence": " "}
_ALARM = "bold white on red"
_FEW = "(too little data)"


def study(console: Console, metrics: Metrics, out: Path) -> None:
    """What failed, or else the verdict; then what it rests on, and where the rest is."""
    origin = metrics.origin
    span = f"{show.minute(origin.start)} to {show.minute(origin.end)}"
    show.heading(console, f"{', '.join(origin.symbols)}, {span}")
    _verdict(console, metrics)
    for found in _tables(metrics):
        console.print()
        console.print(found)
    console.print()
    _checks(console, metrics)
    show.heading(console, f"Report: {out / 'report.html'}")
    console.print(f"  {metrics.seconds:.0f} s; metrics.json, steps.csv and trades.csv beside it")


def _verdict(console: Console, metrics: Metrics) -> None:
    why = prose.distrust(metrics)
    if why:
        _say(console, f" ✗ {prose.DISTRUST.upper()} ", _ALARM)
        _listed(console, why, "red")
        return
    _say(console, f"{prose.headline(metrics)}.", "bold")
    _listed(console, metrics.readings)
    _listed(console, prose.unchecked(metrics), "yellow")


def _tables(metrics: Metrics) -> list[Table]:
    found = []
    if metrics.command == "compare":
        found += _ablation(metrics)
    elif metrics.skills:
        found.append(_skills(metrics.skills, metrics.undirected))
    arms = [_arms(metrics.arms)] if metrics.arms else []
    return [*arms, *found] if metrics.command == "ab" else [*found, *arms]


def _skills(skills: Sequence[Skill], undirected: Sequence[UndirectedSkill]) -> Table:
    found = show.table(
        "Skill: by how many % the loss (CRPS) is below that of each reference, 95 % intervals",
        *("symbol", "over", "queries"),
        *_SHOWN.values(),
        *(["no direction"] if undirected else []),
        "verdict",
        right_from=2,
    )
    left = {(one.symbol, one.horizon): _estimate(one.skill, 100, 2) for one in undirected}
    for judged in skills:
        if judged.reference != VERDICT_REFERENCE:
            continue
        of = {
            one.reference: _estimate(one.skill, 100, 2)
            for one in skills
            if (one.symbol, one.horizon) == (judged.symbol, judged.horizon)
        }
        cells = [of.get(reference, units.DASH) for reference in _SHOWN]
        if undirected:
            cells.append(left.get((judged.symbol, judged.horizon), units.DASH))
        told = judged.verdict if units.bounded(judged.skill) else "too little data"
        found.add_row(judged.symbol, judged.horizon, f"{judged.queries:,}", *cells, told)
    found.columns[-1].justify = "left"
    return found


def _ablation(metrics: Metrics) -> list[Table]:
    """Kinds of neighbours one below the other, so that a horizon can be read down its column."""
    plain, alike = (
        [one for one in metrics.skills if one.reference == reference]
        for reference in ("base rate", VERDICT_REFERENCE)
    )
    beyond = "95 % intervals; ▲ better, ▼ worse beyond chance"
    signs = {case_of(one): _sign(one) for one in metrics.directions}
    return [
        _beside(
            {case_of(one): _skill(one) for one in plain},
            f"Skill in % over the plain base rate, {beyond}",
        ),
        _beside(
            {case_of(one): _skill(one) for one in alike},
            f"Skill in % over the base rate treated alike, {beyond}",
        ),
        _beside(signs, "Right signs of the median in %, 95 % intervals"),
    ]


def _beside(cells: Mapping[Case, str], title: str) -> Table:
    head, rows = grid_of(cells)
    made = show.table(title, *head, right_from=2)
    for row in rows:
        made.add_row(*row)
    return made


def _skill(one: Skill) -> str:
    if the_same(one):
        return f"{SAME}  "
    shown = _estimate(one.skill, 100, 2)
    return f"{shown} {_SIGNS[one.verdict] if units.bounded(one.skill) else _FEW}"


def _sign(one: Direction) -> str:
    shown = _estimate(one.accuracy, 100, 1, sign=False)
    return shown if units.bounded(one.accuracy) else f"{shown} {_FEW}"


def _estimate(interval: Interval, scale: float, digits: int, *, sign: bool = True) -> str:
    """Value and bounds without their unit, which the title says once."""
    value, low, high = (
        units.number(None if bound is None else scale * bound, digits, sign=sign)
        for bound in (interval.value, interval.low, interval.high)
    )
    return f"{value} [{low}, {high}]" if units.bounded(interval) else value


def _arms(arms: Sequence[Arm]) -> Table:
    found = show.table(
        "Decisions, traded with fees, slippage and funding",
        *("symbol", "arm", "return", "Sharpe", "deflated", "drawdown", "trades", "wins"),
        *("% points a day beyond", "verdict"),
        right_from=2,
    )
    for one in arms:
        of, apart = one.performance, one.difference
        sure = apart is not None and units.bounded(apart)
        found.add_row(
            one.symbol,
            one.name,
            units.number(of.total_return_pct, 1, " %", sign=True),
            units.number(of.sharpe, 2),
            units.share(of.deflated_sharpe),
            units.number(of.max_drawdown_pct, 1, " %"),
            f"{of.trades:,}",
            units.share(of.win_rate),
            _estimate(apart, 1, 3) if apart is not None else "baseline",
            (one.verdict if sure else "too little data" if apart else "") or "",
        )
    found.columns[-1].justify = "left"
    return found


def _checks(console: Console, metrics: Metrics) -> None:
    judged = [one for one in metrics.controls if units.bounded(one.wide)]
    probed = [one for one in metrics.probes if one.checked]
    passed, quiet = sum(one.passed for one in judged), sum(one.problem is None for one in probed)
    idle = len(metrics.controls) - len(judged), len(metrics.probes) - len(probed)
    told = (
        f"controls: {passed} of {len(judged)} as they should be{_idle(idle[0], 'too little data')};"
        f" leak probes: {quiet} of {len(probed)} quiet{_idle(idle[1], 'nothing to check')};"
        f" configurations tried so far: {metrics.trials.so_far}"
    )
    _listed(console, [told])


def _idle(n: int, had: str) -> str:
    return f", {n} had {had}" if n else ""


def gate_report(console: Console, report: GateReport) -> None:
    """What stops the gate, or that nothing does; then each skill, then and now."""
    if report.passed:
        _say(console, "✓ Passed: nothing got worse", "bold green")
    else:
        _say(console, f" ✗ STOPPED: {units.counted(len(report.problems), 'reason')} ", _ALARM)
    _listed(console, report.problems, "red")
    _listed(console, [f"note: {note}" for note in report.notes], "yellow")
    if not report.changes:
        return
    found = show.table(
        "Skill against the base rate treated alike",
        *("symbol", "over", "baseline", "now", "change", ""),
        right_from=2,
    )
    for one in report.changes:
        told = ("missing" if one.now is None else "worse") if one.regressed else ""
        change = None if one.now is None or one.before is None else one.now - one.before
        before, now = units.skill(one.before), units.skill(one.now)
        found.add_row(one.symbol, one.horizon, before, now, units.skill(change), told)
    console.print()
    console.print(found)


def _say(console: Console, text: str, style: str) -> None:
    console.print(Text(text, style))


def _listed(console: Console, lines: Sequence[str], style: str = "") -> None:
    """Each as a paragraph of its own, set in."""
    for line in lines:
        console.print(Padding(Text(line, style), (0, 0, 0, 2), expand=False))
