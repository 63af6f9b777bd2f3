"""Describes evaluations and gates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_trader.cli.output import Description, heading, minute, table
from llm_trader.evaluation.report import formats, wording
from llm_trader.evaluation.report.formats import has_bounds
from llm_trader.evaluation.report.view_model import (
    Grid,
    NeighbourResult,
    grid,
    skill_grids,
)
from llm_trader.evaluation.results import VERDICT_REFERENCE, Direction, Reference, Skill
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval

if TYPE_CHECKING:
    from llm_trader.evaluation.results import Arm, Metrics
    from llm_trader.evaluation.verdict.gate import GateReport

# The folder of earlier runs beside a report.
EARLIER: Final = "earlier"

# The page has the rescaled base rate, too; here it would not fit.
_COLUMNS: Final[dict[Reference, str]] = {
    "base rate": "base rate",
    VERDICT_REFERENCE: VERDICT_REFERENCE,
    "random neighbours": "random",
}
_SIGNS: Final[dict[Verdict, str]] = {"better": "▲", "worse": "▼", "no evidence": " "}
_ALARM: Final = "bold white on red"
_SAME: Final = "the same"
_FEW: Final = f"({wording.TOO_LITTLE_DATA})"


def describe_study(metrics: Metrics, out: Path) -> Description:
    """The failures, else the verdict; then its numbers, and the location of the files."""
    origin = metrics.origin
    span = f"{minute(origin.start)} to {minute(origin.end)}"
    yield heading(f"{', '.join(origin.symbols)}, {span}")
    if failures := wording.distrust(metrics):
        yield Text(f" ✗ {wording.DISTRUST.upper()} ", _ALARM)
        yield from _paragraphs(failures, "red")
    else:
        yield from _paragraphs([f"{wording.headline(metrics)}."], "bold", indent=0)
        for question in wording.questions(metrics):
            yield from _paragraphs([f"{question.title} ({question.verdict}): {question.answer}"])
        yield from _paragraphs(metrics.readings)
        yield from _paragraphs(wording.unchecked(metrics), "yellow")
    for numbers in _tables(metrics):
        yield from ("", numbers)
    yield ""
    yield from _paragraphs([_checks(metrics)])
    yield heading(f"Report: {out / 'report.html'}")
    yield f"  {metrics.seconds:.0f} s; metrics.json, steps.csv and trades.csv beside it"
    if (earlier := out / EARLIER).is_dir():
        yield Text(f"  Earlier runs are kept in {earlier}")


def _tables(metrics: Metrics) -> list[Table]:
    if metrics.command == "compare":
        return _ablation(metrics)
    tables = [_skills(metrics)] if metrics.skills else []
    tables += [_arms(metrics.arms)] if metrics.arms else []
    return tables[::-1] if metrics.command == "ab" else tables


def _skills(metrics: Metrics) -> Table:
    undirected = {(r.symbol, r.horizon): _skill_interval(r.skill) for r in metrics.undirected}
    skills = {(s.symbol, s.horizon, s.reference): _skill_interval(s.skill) for s in metrics.skills}
    rows = table(
        "Skill: by how many % the loss (CRPS) is below that of each reference, 95 % intervals",
        *("symbol", "over", "queries"),
        *_COLUMNS.values(),
        *(["random direction"] if undirected else []),
        "verdict",
        right_from=2,
    )
    for skill in metrics.skills:
        if skill.reference == VERDICT_REFERENCE:
            case = skill.symbol, skill.horizon
            cells = [skills.get((*case, reference), formats.DASH) for reference in _COLUMNS]
            cells += [undirected.get(case, formats.DASH)] if undirected else []
            verdict = _verdict_or_too_little(skill.verdict, skill.skill)
            verdict = _SAME if wording.is_same(skill) else verdict
            rows.add_row(*case, f"{skill.queries:,}", *cells, verdict)
    rows.columns[-1].justify = "left"
    return rows


def _ablation(metrics: Metrics) -> list[Table]:
    """A row per kind of neighbours, so that a horizon can be compared down its column."""
    plain, over_model = skill_grids(metrics.skills)
    legend = "95 % intervals; ▲ better, ▼ worse than chance explains"
    signs = "Right signs of the median forecast in %, 95 % intervals"
    return [
        _grid(plain, f"Skill in % over the plain base rate, {legend}", _skill),
        _grid(over_model, f"Skill in % over the {VERDICT_REFERENCE}, {legend}", _skill),
        _grid(grid(metrics.directions), signs, _right_signs),
    ]


def _grid(
    results: Grid[NeighbourResult], title: str, form: Callable[[NeighbourResult], str]
) -> Table:
    rows = table(title, "symbol", "neighbours", *results.horizons, right_from=2)
    for symbol, variant, row in results.rows:
        cells = (formats.DASH if result is None else form(result) for result in row)
        rows.add_row(symbol, variant, *cells)
    return rows


def _skill(skill: Skill) -> str:
    if wording.is_same(skill):
        return f"{_SAME}  "
    sign = _SIGNS[skill.verdict]
    return f"{_skill_interval(skill.skill)} {sign if has_bounds(skill.skill) else _FEW}"


def _right_signs(hits: Direction) -> str:
    text = _interval(hits.accuracy, partial(formats.number, digits=1, factor=100))
    return text if has_bounds(hits.accuracy) else f"{text} {_FEW}"


def _skill_interval(interval: Interval) -> str:
    return _interval(interval, formats.bare_skill)


def _interval(interval: Interval, form: Callable[[float | None], str]) -> str:
    """Value and bounds without their unit, which the title names."""
    value, low, high = (form(n) for n in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]" if has_bounds(interval) else value


def _verdict_or_too_little(verdict: Verdict | None, interval: Interval) -> str:
    return verdict or "" if has_bounds(interval) else wording.TOO_LITTLE_DATA


def _arms(arms: Iterable[Arm]) -> Table:
    rows = table(
        "Decisions, traded with fees, slippage and funding; points are percentage points",
        *("symbol", "arm", "return", "Sharpe", "deflated", "drawdown", "trades", "wins"),
        *("points a day over baseline", "verdict"),
        right_from=2,
    )
    for arm in arms:
        performance, difference = arm.performance, arm.difference
        rows.add_row(
            arm.symbol,
            arm.name,
            formats.number(performance.total_return_pct, 1, " %", sign=True),
            formats.number(performance.sharpe, 2),
            formats.share(performance.deflated_sharpe),
            formats.number(performance.max_drawdown_pct, 1, " %"),
            f"{performance.trades:,}",
            formats.share(performance.win_rate),
            _interval(difference, formats.daily_points) if difference else "baseline",
            _verdict_or_too_little(arm.verdict, difference) if difference else "",
        )
    rows.columns[-1].justify = "left"
    return rows


def _checks(metrics: Metrics) -> str:
    controls = [control.passed for control in metrics.controls if has_bounds(control.wide)]
    probes = [probe.problem is None for probe in metrics.probes if probe.checked]
    idle_controls = _idle(len(metrics.controls) - len(controls), "too little data")
    idle_probes = _idle(len(metrics.probes) - len(probes), "nothing to check")
    return (
        f"controls: {sum(controls)} of {len(controls)} passed{idle_controls}; "
        f"leak probes: {sum(probes)} of {len(probes)} found nothing{idle_probes}; "
        f"configurations tried so far: {metrics.trials.so_far}"
    )


def _idle(n: int, reason: str) -> str:
    return f", {n} had {reason}" if n else ""


def describe_gate(report: GateReport) -> Description:
    """The reasons that stop the gate, if any; then each skill then and now."""
    if report.passed:
        yield Text("✓ Passed: nothing got worse", "bold green")
    else:
        yield Text(f" ✗ STOPPED: {formats.count(len(report.problems), 'reason')} ", _ALARM)
    yield from _paragraphs(report.problems, "red")
    yield from _paragraphs((f"note: {note}" for note in report.notes), "yellow")
    if not report.changes:
        return
    columns = "symbol", "over", "baseline", "now", "change", ""
    rows = table(f"Skill against the {VERDICT_REFERENCE}", *columns, right_from=2)
    for change in report.changes:
        mark = ("missing" if change.now is None else "worse") if change.regressed else ""
        baseline, current = change.before, change.now
        difference = None if baseline is None or current is None else current - baseline
        skills = map(formats.skill, (baseline, current, difference))
        rows.add_row(change.symbol, change.horizon, *skills, mark)
    yield ""
    yield rows


def _paragraphs(texts: Iterable[str], style: str = "", indent: int = 2) -> Description:
    """A plain Text is never wrapped; these paragraphs are, between words."""
    for text in texts:
        yield Padding(Text(text, style), (0, 0, 0, indent), expand=False)
