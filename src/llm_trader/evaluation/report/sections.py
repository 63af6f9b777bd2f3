"""The report's other sections: what was evaluated, decisions, controls and probes, trials, drift.

Those on forecasts are in `forecast_sections`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final, NamedTuple, Protocol, TypeVar

from llm_trader.evaluation.backtest.performance import Performance
from llm_trader.evaluation.report import charts, prose, remarks, units
from llm_trader.evaluation.report.markup import (
    Markup,
    cell,
    element,
    figure,
    folded,
    note,
    passed,
    section,
    table,
)
from llm_trader.evaluation.report.units import DASH, Number
from llm_trader.evaluation.results import Arm, Configuration, Control, Curve, Metrics
from llm_trader.retrieval.calibration import BAND_LEVEL
from llm_trader.retrieval.intervals import Interval


class _Drift(NamedTuple):
    """How curves of one kind are shown: their unit, and where they should be."""

    title: str
    scale: float
    digits: int
    unit: str
    target: float | None = None


_CURVES: Final = {
    "similarity": _Drift("mean similarity", 1.0, 2, ""),
    "effective episodes": _Drift("effective episodes", 1.0, 1, ""),
    "coverage": _Drift("coverage, %", 100.0, 1, " %", 100 * BAND_LEVEL),
}


class _OfSymbol(Protocol):
    @property
    def symbol(self) -> str: ...


_Found = TypeVar("_Found", bound=_OfSymbol)


def origin(metrics: Metrics) -> Markup:
    of, plan, search = metrics.origin, metrics.origin.plan, metrics.origin.plan.search
    filters = "like regimes only" if search.include_regime_filters else "all regimes"
    rules = "; ".join(
        f"{horizon}: neighbours {units.share(rule.neighbour_share)}, rescaling {rule.rescale:g}"
        for horizon, rule in plan.rules.items()
    )
    facts = {
        "Exchange": of.exchange or DASH,
        "Neighbours": f"{search.evidence_k} by {search.vector}, of {search.lookback_days} days, "
        f"{search.min_gap_hours:g} hours apart, {filters}, embargo {search.embargo_hours:g} hours",
        "Forecast rules": rules or DASH,
        "State space": f"{of.state_space_id} (features {of.feature_version})",
        "Text space": of.text_space_id or DASH,
        "Settings digest": of.settings_digest,
        "Data digest": of.data_digest,
        "Whole lookback": units.listed(
            [f"{units.share(whole)} of {symbol}" for symbol, whole in of.whole_lookback.items()]
        )
        or DASH,
        "Seed": str(plan.seed),
        "Package": f"llm-trader-rag {of.package_version}, metrics schema {metrics.schema_version}",
        "Made": units.moment(metrics.created_at),
        "Took": units.number(metrics.seconds, 0, " seconds"),
    }
    reading = (
        f"{units.listed(of.symbols) or 'No symbol'}, asked about every {plan.step_minutes} minutes "
        f"from {units.moment(of.start)} to {units.moment(of.end)}. Each query saw only what was "
        "known at its time. Equal digests and seeds give equal numbers."
    )
    terms = [element("dt", name) + element("dd", value) for name, value in facts.items()]
    return section("origin", "What was evaluated", reading, element("dl", *map(Markup, terms)))


def decisions(metrics: Metrics) -> Markup:
    curves = [one for one in metrics.curves if one.kind == "equity"]
    body: list[Markup] = []
    traded = [*(one.symbol for one in metrics.arms), *(one.symbol for one in curves)]
    for symbol in dict.fromkeys(traded):
        body += [element("h3", symbol), _arms(_of(symbol, metrics.arms))]
        if own := _of(symbol, curves):
            caption = f"{symbol}: equity, from 1 at the start, and how far it is below its peak"
            body.append(figure(charts.equity(own), caption))
    about = (
        "Each arm decides by itself over the whole time. The difference is of mean daily returns "
        "against the baseline's, in % points; ▲ and ▼ are better and worse beyond chance. Turnover "
        "is in multiples of the equity. The deflated Sharpe ratio is the probability of being "
        "above what the luckiest of all trials (configurations and arms, on each symbol) would "
        "show without skill."
    )
    return section("decisions", "Decisions", remarks.of_arms(metrics.arms), note(about), *body)


def _arms(arms: Sequence[Arm]) -> Markup:
    """An arm a column: there are more measures than arms."""
    of = [one.performance for one in arms]
    rows: list[tuple[str, list[str]]] = [
        *((name, [shown(one) for one in of]) for name, shown in _MEASURES.items()),
        ("difference, % points a day", [_difference(one) for one in arms]),
    ]
    head = ["", *(one.name for one in arms)]
    return table(head, [[name, *cells] for name, cells in rows] if arms else [], "Performance")


def _difference(arm: Arm) -> str:
    apart = arm.difference
    if apart is None:
        return "baseline"
    sure = units.bounded(apart)
    told = units.bounds(apart, _plain) if sure else "too little data"
    return cell(arm.verdict if sure else None, _plain(apart.value), told)


def _plain(value: Number) -> str:
    return units.number(value, 3, sign=True)


_MEASURES: Final[dict[str, Callable[[Performance], str]]] = {
    "total return": lambda of: units.signed_pct(of.total_return_pct),
    "maximum drawdown": lambda of: units.signed_pct(of.max_drawdown_pct),
    "Sharpe ratio, a year": lambda of: units.number(of.sharpe, 2),
    "P(Sharpe above 0)": lambda of: units.share(of.probabilistic_sharpe),
    "deflated Sharpe": lambda of: units.share(of.deflated_sharpe),
    "trials allowed for": lambda of: f"{of.trials:,}",
    "daily returns": lambda of: f"{of.daily_returns:,}",
    "trades": lambda of: f"{of.trades:,}",
    "win rate": lambda of: units.share(of.win_rate),
    "mean net a trade": lambda of: units.number(of.mean_net_pct, 3, " %", sign=True),
    "time in a position": lambda of: units.share(of.exposure),
    "turnover a day": lambda of: units.number(of.turnover_per_day, 2, " ×"),
}


def controls(metrics: Metrics) -> Markup:
    rows = [
        (
            one.name,
            one.kind,
            one.symbol,
            one.horizon,
            *units.estimate(one.skill),
            units.bounds(one.wide, units.skill),
            _controlled(one),
        )
        for one in metrics.controls
    ]
    head = ("control", "kind", "symbol", "horizon", "skill", "95 % interval", "judged by", "result")
    about = (
        "Data of which the answer is known goes through the same evaluation, beside random "
        "neighbours. A negative control holds nothing to find: one that fails sees what is not "
        "there. A positive control has a pattern planted into it: one that fails would miss skill "
        "that is there. " + _why_wide(sum(one.kind == "negative" for one in metrics.controls))
    )
    shown = table(
        head, rows, "Skill against the base rate treated alike, and whether that is as it should be"
    )
    reading = prose.of_controls(metrics.controls)
    return section("controls", "Controls", reading, note(about), shown)


def _why_wide(negative: int) -> str:
    if negative < 2:
        return "Each is judged by the wider of its intervals."
    by_chance = units.share(1 - 0.95**negative)
    return (
        "Each is judged by the wider of its intervals, which allows for their number: by 95 % "
        f"intervals, chance alone would let one of {negative} negative controls fail in up to "
        f"{by_chance} of all runs."
    )


def _controlled(one: Control) -> Markup:
    if one.passed and not units.bounded(one.wide):
        return Markup("too little data")
    return passed(one.passed, "passed" if one.passed else "failed")


def probes(metrics: Metrics) -> Markup:
    rows = [
        (one.name, one.symbol, f"{one.checked:,}", _probed(one.checked, one.problem))
        for one in metrics.probes
    ]
    about = (
        "Each probe looks for a trace of the future in what a query was given: what is not known "
        "yet must not change an answer."
    )
    shown = table(
        ("probe", "symbol", "checked", "found"), rows, "Queries asked again with another future"
    )
    reading = prose.of_probes(metrics.probes)
    return section("probes", "Leak probes", reading, note(about), shown)


def _probed(checked: int, problem: str | None) -> Markup:
    if problem is not None:
        return passed(False, problem)
    return passed(True, "nothing") if checked else Markup("not checked")


def trials(metrics: Metrics) -> Markup:
    reading, tried = prose.of_trials(metrics.trials), metrics.trials.configurations
    if not tried:
        return section("trials", "Trials", reading)
    about = (
        "Skill is against the base rate treated alike, by queries an hour apart. Among many "
        "configurations the best looks good by luck. Its interval allows for itself only; Hansen's "
        "test for superior predictive ability allows for all that were asked these queries."
    )
    return section("trials", "Trials", reading, note(about), _swept(tried))


def _swept(tried: Sequence[Configuration]) -> Markup:
    """A row for each configuration, the best on average first."""
    of: dict[str, dict[tuple[str, str], Interval]] = {}
    for one in tried:
        of.setdefault(one.label, {})[one.symbol, one.horizon] = one.skill
    cases = list(dict.fromkeys((one.symbol, one.horizon) for one in tried))
    rows = [
        [label, *(_trial(found.get(case)) for case in cases)]
        for label, found in sorted(of.items(), key=lambda item: _rank(item[1].values()))
    ]
    head = ["configuration", *(f"{symbol} {horizon}" for symbol, horizon in cases)]
    return table(head, rows, "Skill in % of this run's sweep, best on average first")


def _trial(skill: Interval | None) -> str:
    if skill is None:
        return DASH
    return cell(None, _bare(skill.value), units.bounds(skill, _bare))


def _bare(skill: Number) -> str:
    """In %, which is said above."""
    return units.skill(skill).removesuffix(" %")


def _rank(skills: Iterable[Interval]) -> float:
    """Lower where better on average; last where nothing is known."""
    found = [value for one in skills if (value := one.value) is not None]
    return -sum(found) / len(found) if found else inf


def similarity(metrics: Metrics) -> Markup:
    found = metrics.histograms
    rows = [
        (one.symbol, f"{units.number(low, 3)} to {units.number(high, 3)}", f"{count:,}")
        for one in found
        for low, high, count in zip(one.edges, one.edges[1:], one.counts, strict=False)
    ]
    body = []
    if found:
        caption = "Queries by the mean similarity of their neighbours"
        numbers = table(("symbol", "mean similarity", "queries"), rows, caption)
        body = [figure(charts.similarity(found), caption), folded("Numbers", numbers)]
    reading = remarks.of_histograms(found)
    return section("similarity", "How alike the neighbours are", reading, *body)


def over_time(metrics: Metrics) -> Markup:
    body: list[Markup] = []
    for kind, look in _CURVES.items():
        own: list[Curve] = [one for one in metrics.curves if one.kind == kind]
        if own:
            said = remarks.of_curves(own, look.scale, look.digits, look.unit)
            chart = charts.over_time(own, look.title, look.scale, look.target)
            body += [
                element("h3", kind.capitalize()),
                element("p", said, kind="reading"),
                figure(chart, _caption(kind, own)),
            ]
    reading = (
        "Where these drift, the time is not of one kind, and one number for all of it hides that."
        if body
        else "Nothing was recorded by day."
    )
    return section("time", "Over time", reading, *body)


def _caption(kind: str, curves: Sequence[Curve]) -> str:
    names = list(dict.fromkeys(one.name for one in curves))
    named = f" {names[0]}" if len(names) == 1 and names[0].startswith("over ") else ""
    week = ", mean of the week up to each day" if kind == "coverage" else ", by day"
    return f"{kind.capitalize()}{named}{week}"


def _of(symbol: str, found: Sequence[_Found]) -> list[_Found]:
    return [one for one in found if one.symbol == symbol]
