"""What the templates show, computed from `Metrics`: groups, counts and charts.

Templates loop over it and format its numbers with the functions of `formats`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, product
from math import inf
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from llm_trader.evaluation.conformal.calibration_fit import INTERVAL_LEVEL
from llm_trader.evaluation.report import charts, formats
from llm_trader.evaluation.report.charts import Chart
from llm_trader.evaluation.results import (
    VERDICT_REFERENCE,
    Arm,
    Command,
    Configuration,
    Curve,
    Direction,
    Histogram,
    Metrics,
    Probability,
    Reference,
    RegimeSkill,
    Skill,
)
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL, Verdict
from llm_trader.evaluation.significance import verdict as interval_verdict
from llm_trader.evaluation.verdict.verdicts import verdict_skills
from llm_trader.retrieval.calibration import BAND_LEVEL
from llm_trader.retrieval.intervals import Interval

Result = TypeVar("Result")
Key = TypeVar("Key")
Case = tuple[str, str]  # symbol and horizon
NeighbourResult = TypeVar("NeighbourResult", Skill, Direction)

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
}


class Grid(NamedTuple, Generic[Result]):
    """Kinds of neighbours side by side: a row for each symbol and kind, a column for each
    horizon.
    """

    horizons: list[str]
    rows: list[tuple[str, str, list[Result | None]]]


class Tally(NamedTuple):
    """The names of cases that are better, worse, undecided, and without an interval."""

    better: list[str]
    worse: list[str]
    undecided: list[str]
    unmeasured: list[str]

    @classmethod
    def of(cls, cases: Iterable[tuple[str, Interval | None, Verdict | None]]) -> Tally:
        tally = cls([], [], [], [])
        sides = {"better": tally.better, "worse": tally.worse}
        for name, interval, verdict in cases:
            measured = sides.get(verdict or "", tally.undecided)
            (measured if formats.has_bounds(interval) else tally.unmeasured).append(name)
        return tally

    @classmethod
    def of_skills(cls, skills: Iterable[Skill]) -> Tally:
        return cls.of((f"{s.symbol} {s.horizon}", s.skill, s.verdict) for s in skills)

    @classmethod
    def of_intervals(cls, cases: Iterable[tuple[str, Interval | None]]) -> Tally:
        """A case is better where its whole interval is above zero."""
        return cls.of(
            (name, skill, interval_verdict(skill) if skill else None) for name, skill in cases
        )

    @property
    def measured(self) -> int:
        return len(self.better) + len(self.worse) + len(self.undecided)


class _Drift(NamedTuple):
    """How the daily values of one kind are shown, and where they should be."""

    axis: str
    scale: float
    form: Callable[[float | None], str]
    target: float | None = None


_DRIFTS: Final = {
    "similarity": _Drift("mean similarity", 1, formats.number),
    "effective episodes": _Drift("effective episodes", 1, lambda n: formats.number(n, 1)),
    "coverage": _Drift("coverage, %", 100, formats.share, 100 * BAND_LEVEL),
}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a section: some results that belong together, with their chart."""

    title: str
    results: Sequence[Any]
    chart: Chart | None
    tally: Tally | None = None
    facts: dict[str, str] = {}


class ReportView(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics, and what the page derives from them. Each section is a template of its name."""

    metrics: Metrics
    sections: tuple[str, ...]
    interval_level: str
    references: list[Reference]
    skills_by_case: dict[Case, dict[Reference, Skill]]
    undirected_by_case: dict[Case, Interval]
    skill_tally: Tally
    significant: int | None
    detectable: str
    skill_chart: Chart
    variant_tallies: dict[str, Tally]
    plain_grid: Grid[Skill]
    rescaled_grid: Grid[Skill]
    sign_grid: Grid[Direction]
    ablation_chart: Chart
    brier_tally: Tally
    events: list[Part]
    arms_tally: Tally
    best_sharpe: Arm | None
    symbols: list[Part]
    control_counts: dict[str, int]
    false_alarm_share: float
    chart_horizons: list[str]
    regimes: list[Part]
    trial_cases: list[Case]
    trial_rows: list[tuple[str, list[Interval | None]]]
    medians: dict[str, float]
    similarity_chart: Chart
    drifts: list[Part]


def report_view(metrics: Metrics) -> ReportView:
    skills, trials = metrics.skills, metrics.trials.configurations
    measured = [skill for skill in skills if formats.has_bounds(skill.skill)]
    p_values = [skill.p_adjusted for skill in measured if formats.is_known(skill.p_adjusted)]
    controls = [control for control in metrics.controls if formats.has_bounds(control.wide)]
    sharpes = [arm for arm in metrics.arms if formats.is_known(arm.performance.deflated_sharpe)]
    # A calibration's intervals are wider, so that all of them together hold in 19 of 20 runs.
    level = INTERVAL_LEVEL if metrics.command == "calibrate" else 0.95
    chart_horizons = _pick_chart_horizons(metrics.slices)
    trial_cases = list(dict.fromkeys((trial.symbol, trial.horizon) for trial in trials))
    return ReportView(
        metrics=metrics,
        sections=_SECTIONS[metrics.command],
        interval_level=f"{100 * level:g} %",
        references=list(dict.fromkeys(skill.reference for skill in skills)),
        skills_by_case={
            case: {skill.reference: skill for skill in group}
            for case, group in _grouped(skills, lambda skill: (skill.symbol, skill.horizon))
        },
        undirected_by_case={(r.symbol, r.horizon): r.skill for r in metrics.undirected},
        skill_tally=Tally.of_skills(skills),
        significant=sum(p <= SIGNIFICANCE_LEVEL for p in p_values) if p_values else None,
        detectable=formats.value_range(
            (skill.detectable for skill in measured if skill.verdict == "no evidence"),
            formats.unsigned_skill,
        ),
        skill_chart=charts.skill_chart(skills),
        variant_tallies={
            variant: Tally.of_skills(verdict_skills(skills, variant))
            for variant in dict.fromkeys(skill.variant for skill in skills)
        },
        plain_grid=grid([skill for skill in skills if skill.reference == "base rate"]),
        rescaled_grid=grid([skill for skill in skills if skill.reference == VERDICT_REFERENCE]),
        sign_grid=grid(metrics.directions),
        ablation_chart=charts.ablation_chart(skills, metrics.directions),
        brier_tally=Tally.of_intervals(
            (f"{result.event} on {result.symbol}", result.skill) for result in metrics.probabilities
        ),
        events=[_event(*group) for group in _grouped(metrics.probabilities, lambda p: p.event)],
        arms_tally=Tally.of(
            (arm.name, arm.difference, arm.verdict) for arm in metrics.arms if arm.difference
        ),
        best_sharpe=max(
            sharpes, key=lambda arm: arm.performance.deflated_sharpe or 0.0, default=None
        ),
        symbols=_symbols(metrics),
        control_counts={
            "negative": sum(control.kind == "negative" for control in controls),
            "positive": sum(control.kind == "positive" for control in controls),
            "harmful": sum(c.kind == "negative" and c.wide.below(0) for c in controls),
            "idle": len(metrics.controls) - len(controls),
        },
        false_alarm_share=1 - 0.95 ** sum(c.kind == "negative" for c in metrics.controls),
        chart_horizons=chart_horizons,
        regimes=[
            _regime(*group, chart_horizons) for group in _grouped(metrics.slices, lambda r: r.by)
        ],
        trial_cases=trial_cases,
        trial_rows=_trial_rows(trials, trial_cases),
        medians={
            histogram.symbol: median
            for histogram in metrics.histograms
            if (median := _median(histogram)) is not None
        },
        similarity_chart=charts.similarity_chart(metrics.histograms),
        drifts=[
            _drift(kind, curves)
            for kind, curves in _grouped(metrics.curves, lambda curve: curve.kind)
            if kind in _DRIFTS
        ],
    )


def grid(results: Sequence[NeighbourResult]) -> Grid[NeighbourResult]:
    cells = {(r.symbol, r.variant, r.horizon): r for r in results}
    symbols, variants, horizons = (list(dict.fromkeys(c[i] for c in cells)) for i in range(3))
    return Grid(
        horizons,
        [
            (symbol, variant, [cells.get((symbol, variant, horizon)) for horizon in horizons])
            for symbol, variant in product(symbols, variants)
        ],
    )


def is_same(skill: Skill) -> bool:
    """Exactly zero is no chance: the forecasts are those of the reference."""
    return skill.skill == Interval(0, 0, 0)


def _grouped(
    results: Iterable[Result], key: Callable[[Result], Key]
) -> Iterable[tuple[Key, list[Result]]]:
    groups: dict[Key, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups.items()


def _event(event: str, probabilities: Sequence[Probability]) -> Part:
    bins = [bin_ for result in probabilities for bin_ in result.bins if bin_.count]
    total = sum(bin_.count for bin_ in bins)
    errors = sum(abs(bin_.forecast - bin_.observed) * bin_.count for bin_ in bins)
    return Part(
        title=event,
        results=probabilities,
        chart=charts.reliability_chart(probabilities),
        facts={
            "forecasts": formats.count(total, "forecast"),
            "error": formats.number(100 * errors / total if total else None, 1),
        },
    )


def _symbols(metrics: Metrics) -> list[Part]:
    arms = dict(_grouped(metrics.arms, lambda arm: arm.symbol))
    equity = (curve for curve in metrics.curves if curve.kind == "equity")
    curves = dict(_grouped(equity, lambda curve: curve.symbol))
    return [
        Part(
            title=symbol,
            results=arms.get(symbol, []),
            chart=charts.equity_chart(curves[symbol]) if symbol in curves else None,
        )
        for symbol in dict.fromkeys([*arms, *curves])
    ]


def _pick_chart_horizons(regimes: Sequence[RegimeSkill]) -> list[str]:
    horizons = list(dict.fromkeys(regime.horizon for regime in regimes))
    return [horizon for horizon in horizons if horizon in _DRAWN_HORIZONS] or horizons[:2]


def _regime(division: str, regimes: Sequence[RegimeSkill], chart_horizons: Sequence[str]) -> Part:
    tally = Tally.of_intervals((regime.value, regime.skill) for regime in regimes)
    return Part(
        title=division,
        results=regimes,
        chart=charts.regime_chart(
            [regime for regime in regimes if regime.horizon in chart_horizons]
        ),
        tally=tally,
        facts={"by_chance": formats.number(SIGNIFICANCE_LEVEL * tally.measured, 1)},
    )


def _trial_rows(
    configurations: Sequence[Configuration], cases: Sequence[tuple[str, str]]
) -> list[tuple[str, list[Interval | None]]]:
    """A row for each configuration, the best on average first."""
    rows = []
    for label, trials in _grouped(configurations, lambda trial: trial.label):
        skills = {(trial.symbol, trial.horizon): trial.skill for trial in trials}
        rows.append((label, [skills.get(case) for case in cases]))
    return sorted(rows, key=lambda row: _rank(row[1]))


def _rank(skills: Iterable[Interval | None]) -> float:
    """Lower where better on average; last where nothing is known."""
    average = formats.mean([s.value for s in skills if s and s.value is not None])
    return inf if average is None else -average


def _median(histogram: Histogram) -> float | None:
    """The lower edge of the median's bin: a histogram knows no more."""
    half = sum(histogram.counts) / 2
    bins = zip(histogram.edges, accumulate(histogram.counts), strict=False)
    return next((low for low, reached in bins if half and reached >= half), None)


def _drift(kind: str, curves: Sequence[Curve]) -> Part:
    """With the range of each name over all symbols, or of each symbol where there is one name."""
    drift, names = _DRIFTS[kind], list(dict.fromkeys(curve.name for curve in curves))
    groups = _grouped(curves, lambda curve: curve.name if len(names) > 1 else curve.symbol)
    return Part(
        title=kind,
        results=names,
        chart=charts.daily_chart(curves, drift.axis, drift.scale, drift.target),
        facts={
            name: formats.value_range((v for curve in group for v in curve.value), drift.form)
            for name, group in groups
        },
    )
