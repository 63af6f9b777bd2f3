"""What the templates show, computed from `Metrics`: groups, counts and charts.

Templates loop over it and format its numbers with the functions of `formats`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, product
from math import inf
from operator import attrgetter, itemgetter
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from llm_trader.evaluation.conformal.calibration_fit import INTERVAL_LEVEL
from llm_trader.evaluation.report import charts, formats
from llm_trader.evaluation.report.charts import Chart
from llm_trader.evaluation.report.formats import grouped, has_bounds, is_known, unique
from llm_trader.evaluation.report.wording import is_same
from llm_trader.evaluation.results import (
    VERDICT_REFERENCE,
    Command,
    Configuration,
    Control,
    Curve,
    Direction,
    Histogram,
    Metrics,
    Probability,
    RegimeSkill,
    Skill,
)
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL, Verdict, verdict
from llm_trader.evaluation.verdict.verdicts import verdict_skills
from llm_trader.retrieval.calibration import BAND_LEVEL
from llm_trader.retrieval.intervals import Interval

NeighbourResult = TypeVar("NeighbourResult", Skill, Direction)

_CASE: Final = attrgetter("symbol", "horizon")

# The page draws these two horizons of the regimes; the tables have all.
_DRAWN_HORIZONS: Final = ("1h", "4h")
_FORECASTS: Final = ("skill", "reliability", "direction", "coverage")
_CHECKS: Final = ("controls", "probes")
_CLOSING: Final = ("regimes", "trials", "similarity", "time")
# What a command asked comes first, and what it did not do is left out.
_SECTIONS: Final[dict[Command, tuple[str, ...]]] = {
    "evaluate": ("origin", *_FORECASTS, "decisions", *_CHECKS, *_CLOSING),
    "compare": ("origin", "ablation", *_CHECKS, "reliability", "coverage", *_CLOSING),
    "ab": ("origin", "decisions", *_CHECKS, *_FORECASTS, *_CLOSING),
    "calibrate": ("origin", "coverage", "skill"),
    "judge": ("origin", "skill", "direction", "coverage", "controls", "regimes", "trials"),
}


class Grid(NamedTuple, Generic[NeighbourResult]):
    """Kinds of neighbours side by side: a row for each symbol and kind, a column for each
    horizon.
    """

    horizons: list[str]
    rows: list[tuple[str, str, list[NeighbourResult | None]]]


class Tally(NamedTuple):
    """The names of cases that are better, worse, undecided, and without an interval."""

    better: list[str]
    worse: list[str]
    undecided: list[str]
    unmeasured: list[str]

    @classmethod
    def of(cls, cases: Iterable[tuple[str, Interval | None, Verdict | None]]) -> Tally:
        groups: dict[Verdict | None, list[str]]
        groups = {"better": [], "worse": [], "no evidence": [], None: []}
        for name, interval, decision in cases:
            groups[(decision or "no evidence") if has_bounds(interval) else None].append(name)
        return cls(*groups.values())

    @property
    def measured(self) -> int:
        return len(self.better) + len(self.worse) + len(self.undecided)


# How the daily values of each kind are shown: axis, scale, form, and where they should be.
_DRIFTS: Final[dict[str, tuple[str, float, Callable[[float | None], str], float | None]]] = {
    "similarity": ("mean similarity", 1, formats.number, None),
    "effective episodes": ("effective episodes", 1, partial(formats.number, digits=1), None),
    "coverage": ("coverage, %", 100, formats.share, 100 * BAND_LEVEL),
}


class Part(msgspec.Struct, frozen=True):
    """One part of a section: some results that belong together, with their chart."""

    title: str
    results: Sequence[Any]
    chart: Chart | None
    facts: dict[str, str] = {}
    tally: Tally | None = None


class ReportView:
    """What the page derives from the metrics. Each section is a template of its name."""

    def __init__(self, metrics: Metrics) -> None:
        self.sections = _SECTIONS[metrics.command]
        # A calibration's intervals are wider, so that all of them together hold in 19 of 20 runs.
        level = INTERVAL_LEVEL if metrics.command == "calibrate" else 0.95
        self.interval_level = f"{100 * level:g} %"
        self._add_skills(metrics)
        self.brier_tally = Tally.of(
            (f"{result.event} on {result.symbol}", result.skill, verdict(result.skill))
            for result in metrics.probabilities
        )
        events = grouped(metrics.probabilities, lambda result: result.event)
        self.events = [_event(event, probabilities) for event, probabilities in events.items()]
        self._add_arms(metrics)
        self._add_controls(metrics.controls)
        self.band_cells = grouped(metrics.band_cells, lambda cell: cell.by)
        horizons = unique(regime.horizon for regime in metrics.slices)
        self.chart_horizons = [h for h in horizons if h in _DRAWN_HORIZONS] or horizons[:2]
        divisions = grouped(metrics.slices, lambda regime: regime.by)
        self.regimes = [
            _regime(division, regimes, self.chart_horizons)
            for division, regimes in divisions.items()
        ]
        self.trial_cases = unique(map(_CASE, metrics.trials.configurations))
        self.trial_rows = _trial_rows(metrics.trials.configurations, self.trial_cases)
        medians = {histogram.symbol: _median(histogram) for histogram in metrics.histograms}
        self.medians = {symbol: m for symbol, m in medians.items() if m is not None}
        self.similarity_chart = charts.similarity_chart(metrics.histograms)
        kinds = grouped(metrics.curves, lambda curve: curve.kind)
        self.drifts = [_drift(kind, curves) for kind, curves in kinds.items() if kind in _DRIFTS]

    def _add_skills(self, metrics: Metrics) -> None:
        skills = metrics.skills
        measured = [s for s in skills if has_bounds(s.skill) and not is_same(s)]
        p_values = [skill.p_adjusted for skill in measured if is_known(skill.p_adjusted)]
        self.references = unique(skill.reference for skill in skills)
        self.skills_by_case = {
            case: {skill.reference: skill for skill in group}
            for case, group in grouped(skills, _CASE).items()
        }
        self.undirected_by_case = {_CASE(result): result.skill for result in metrics.undirected}
        self.skill_tally = _tally(skills)
        self.significant = sum(p <= SIGNIFICANCE_LEVEL for p in p_values) if p_values else None
        self.detectable = formats.value_range(
            (skill.detectable for skill in measured if skill.verdict == "no evidence"),
            formats.unsigned_skill,
        )
        self.skill_chart = charts.skill_chart(skills)
        self.variant_tallies = {
            variant: _tally(verdict_skills(skills, variant))
            for variant in unique(skill.variant for skill in skills)
        }
        self.plain_grid, self.model_grid = skill_grids(skills)
        self.sign_grid = grid(metrics.directions)
        self.ablation_chart = charts.ablation_chart(skills, metrics.directions)

    def _add_arms(self, metrics: Metrics) -> None:
        self.arms_tally = Tally.of(
            (arm.name, arm.difference, arm.verdict) for arm in metrics.arms if arm.difference
        )
        sharpes = [arm for arm in metrics.arms if is_known(arm.performance.deflated_sharpe)]
        self.best_sharpe = max(
            sharpes, key=lambda arm: arm.performance.deflated_sharpe or 0.0, default=None
        )
        arms = grouped(metrics.arms, lambda arm: arm.symbol)
        equity = [curve for curve in metrics.curves if curve.kind == "equity"]
        curves = grouped(equity, lambda curve: curve.symbol)
        self.symbols = [
            Part(
                symbol,
                arms.get(symbol, []),
                charts.equity_chart(curves[symbol]) if symbol in curves else None,
            )
            for symbol in unique([*arms, *curves])
        ]

    def _add_controls(self, controls: Sequence[Control]) -> None:
        measured = [control for control in controls if has_bounds(control.wide)]
        self.control_counts: Counter[str] = Counter(control.kind for control in measured)
        self.control_counts.update(
            harmful=sum(c.kind == "negative" and c.wide.below(0) for c in measured),
            idle=len(controls) - len(measured),
            repeated=sum(c.passed and c.attempts > 1 for c in measured),
        )
        self.false_alarm_share = 1 - 0.95 ** sum(c.kind == "negative" for c in controls)


def skill_grids(skills: Iterable[Skill]) -> tuple[Grid[Skill], Grid[Skill]]:
    """Against the plain base rate and against the volatility model."""
    by_reference = grouped(skills, lambda skill: skill.reference)
    return grid(by_reference.get("base rate", [])), grid(by_reference.get(VERDICT_REFERENCE, []))


def grid(results: Sequence[NeighbourResult]) -> Grid[NeighbourResult]:
    cells = {(r.symbol, r.variant, r.horizon): r for r in results}
    symbols, variants, horizons = (unique(case[i] for case in cells) for i in range(3))
    return Grid(
        horizons,
        [
            (symbol, variant, [cells.get((symbol, variant, horizon)) for horizon in horizons])
            for symbol, variant in product(symbols, variants)
        ],
    )


def _tally(skills: Iterable[Skill]) -> Tally:
    return Tally.of((s.symbol, s.skill, s.verdict) for s in skills if not is_same(s))


def _event(event: str, probabilities: Sequence[Probability]) -> Part:
    bins = [bin_ for result in probabilities for bin_ in result.bins if bin_.count]
    total = sum(bin_.count for bin_ in bins)
    errors = sum(abs(bin_.forecast - bin_.observed) * bin_.count for bin_ in bins)
    facts = {
        "forecasts": formats.count(total, "forecast"),
        "error": formats.number(100 * errors / total if total else None, 1),
    }
    return Part(event, probabilities, charts.reliability_chart(probabilities), facts)


def _regime(division: str, regimes: Sequence[RegimeSkill], chart_horizons: Sequence[str]) -> Part:
    chart = charts.regime_chart([r for r in regimes if r.horizon in chart_horizons])
    different = [r for r in regimes if not is_same(r)]
    tally = Tally.of((r.value, r.skill, verdict(r.skill) if r.skill else None) for r in different)
    by_chance = formats.number(SIGNIFICANCE_LEVEL * tally.measured, 1)
    return Part(division, regimes, chart, {"by_chance": by_chance}, tally)


def _trial_rows(
    configurations: Sequence[Configuration], cases: Sequence[tuple[str, str]]
) -> list[tuple[str, list[Interval | None]]]:
    """A row for each configuration: the best on average first, without a known skill last."""
    rows = []
    for label, trials in grouped(configurations, lambda trial: trial.label).items():
        skills = {_CASE(trial): trial.skill for trial in trials}
        average = formats.mean([s.value for s in skills.values() if s.value is not None])
        row = [skills.get(case) for case in cases]
        rows.append((inf if average is None else -average, label, row))
    return [(label, row) for _, label, row in sorted(rows, key=itemgetter(0))]


def _median(histogram: Histogram) -> float | None:
    """The lower edge of the median's bin: a histogram knows no more."""
    half = sum(histogram.counts) / 2
    bins = zip(histogram.edges, accumulate(histogram.counts), strict=False)
    return next((low for low, reached in bins if half and reached >= half), None)


def _drift(kind: str, curves: Sequence[Curve]) -> Part:
    """With the range of each name over all symbols, or of each symbol where there is one name."""
    axis, scale, form, target = _DRIFTS[kind]
    names = unique(curve.name for curve in curves)
    groups = grouped(curves, lambda curve: curve.name if len(names) > 1 else curve.symbol)
    ranges = {
        name: formats.value_range((v for curve in group for v in curve.value), form)
        for name, group in groups.items()
    }
    return Part(kind, names, charts.daily_chart(curves, axis, scale, target), ranges)
