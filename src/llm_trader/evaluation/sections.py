"""The report's sections, each a heading, a reading, and the tables and charts it is read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from llm_trader.evaluation import charts, prose, units
from llm_trader.evaluation.markup import Markup, badge, element, figure, folded, join, passed, table
from llm_trader.evaluation.performance import Performance
from llm_trader.evaluation.results import Arm, Curve, Metrics, Probability
from llm_trader.evaluation.significance import Interval, Verdict
from llm_trader.evaluation.units import DASH, Number

_CURVES: Final = {
    "similarity": ("mean similarity", 1.0, 2, ""),
    "effective episodes": ("effective episodes", 1.0, 1, ""),
    "coverage": ("coverage, %", 100.0, 1, " %"),
}
_SKILL: Final = ("skill", "95 % interval")
_DIVISIONS: Final = {"hour": "hour of the day (UTC)", "weekday": "day of the week"}


class _OfSymbol(Protocol):
    @property
    def symbol(self) -> str: ...


_Found = TypeVar("_Found", bound=_OfSymbol)


def section(key: str, title: str, reading: str, *body: Markup) -> Markup:
    heading, said = element("h2", title), element("p", reading, kind="reading")
    return element("section", heading, said, *body, key=key)


def origin(metrics: Metrics) -> Markup:
    of, plan, search = metrics.origin, metrics.origin.plan, metrics.origin.plan.search
    filters = "like regimes only" if search.include_regime_filters else "all regimes"
    rules = "; ".join(
        f"{horizon}: neighbours {units.share(rule.neighbour_share)}, rescaling {rule.rescale:g}"
        for horizon, rule in plan.rules.items()
    )
    facts = {
        "Exchange": of.exchange or DASH,
        "Neighbours": f"{search.episodes} by {search.vector}, of {search.lookback_days} days, "
        f"{search.min_gap_hours:g} hours apart, {filters}, embargo {search.embargo_hours:g} hours",
        "Forecast rules": rules or DASH,
        "State space": f"{of.state_space_id} (features {of.feature_version})",
        "Text space": of.text_space_id or DASH,
        "Settings digest": of.settings_digest,
        "Data digest": of.data_digest,
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


def skills(metrics: Metrics) -> Markup:
    found = metrics.skills
    head = ("symbol", "horizon", "reference", "verdict", *_SKILL, "p adjusted", "detectable")
    rows = [
        (
            one.symbol,
            one.horizon,
            one.reference,
            _judged(one.verdict, one.skill),
            *_estimate(one.skill),
            units.p_value(one.p_adjusted),
            units.skill(one.detectable).lstrip("+"),
            f"{one.queries:,}",
        )
        for one in found
    ]
    note = (
        "Skill is the share by which the forecasts' loss (CRPS) is below the reference's: 0 is no "
        "better, below 0 worse. “Treated alike” gives the base rate the same rescaling, so that "
        "what is left is the neighbours' own. Detectable is the smallest skill that would be "
        "found with 80 % power."
    )
    body = [table((*head, "queries"), rows, "Skill against each reference")]
    if found:
        body.append(
            figure(
                charts.skills(found),
                "Skill against each reference, with 95 % intervals; above 0 is better",
            )
        )
    return section("skill", "Skill", prose.of_skills(found), _note(note), *body)


def probabilities(metrics: Metrics) -> Markup:
    found = metrics.probabilities
    events = dict.fromkeys(one.event for one in found)
    head = ("event", "symbol", "forecasts", "Brier", "base rate's", *_SKILL)
    rows = [
        (
            one.event,
            one.symbol,
            f"{sum(bin_.count for bin_ in one.bins):,}",
            units.number(one.brier, 4),
            units.number(one.base_brier, 4),
            *_estimate(one.skill),
        )
        for one in found
    ]
    reading = (
        "When the forecast says 60 %, it should happen 60 % of the time: on the dotted line. "
        "Outcomes overlap, so neighbouring forecasts are not independent, and points of few "
        "forecasts say little."
        if found
        else "No probabilities were judged."
    )
    body = [table(head, rows, "Brier scores; lower is better")]
    body += [_reliability(event, [one for one in found if one.event == event]) for event in events]
    return section("reliability", "Reliability of probabilities", reading, *body)


def _reliability(event: str, found: list[Probability]) -> Markup:
    rows = [
        (
            one.symbol,
            units.share(bin_.forecast if bin_.count else None),
            units.share(bin_.observed if bin_.count else None),
            f"{bin_.count:,}",
        )
        for one in found
        for bin_ in one.bins
    ]
    numbers = table(("symbol", "forecast", "happened", "forecasts"), rows, event)
    return join(
        [
            element("h3", event),
            element("p", prose.of_probabilities(event, found), kind="reading"),
            figure(charts.reliability(found), f"Reliability of “{event}”, and counts"),
            folded("Numbers", numbers),
        ]
    )


def directions(metrics: Metrics) -> Markup:
    rows = [
        (
            one.symbol,
            one.horizon,
            units.share(one.accuracy.value),
            units.bounds(one.accuracy, units.share),
        )
        for one in metrics.directions
    ]
    head = ("symbol", "horizon", "accuracy", "95 % interval")
    shown = table(head, rows, "How often the median forecast had the right sign")
    return section("direction", "Direction", prose.of_directions(metrics.directions), shown)


def bands(metrics: Metrics) -> Markup:
    rows = [
        (
            one.symbol,
            one.horizon,
            units.share(one.before.value),
            units.share(one.after.value),
            units.bounds(one.after, units.share),
            units.share(prose.BAND),
            f"{one.queries:,}",
        )
        for one in metrics.bands
    ]
    head = ("symbol", "horizon", "before", "after", "95 % interval", "target", "queries")
    shown = table(head, rows, "Outcomes inside the 80 % band, before and after correction")
    note = (
        "Each day is corrected by what the 60 days before it taught, so nothing that is counted "
        "was used for its own correction; days before which too little was known are left out."
    )
    reading = prose.of_bands(metrics.bands)
    return section("coverage", "Coverage of the 80 % band", reading, _note(note), shown)


def decisions(metrics: Metrics) -> Markup:
    curves = [one for one in metrics.curves if one.kind == "equity"]
    body: list[Markup] = []
    traded = [*(one.symbol for one in metrics.arms), *(one.symbol for one in curves)]
    for symbol in dict.fromkeys(traded):
        body += [element("h3", symbol), _arms(_of(symbol, metrics.arms))]
        if own := _of(symbol, curves):
            caption = f"{symbol}: equity, from 1 at the start, and how far it is below its peak"
            body.append(figure(charts.equity(own), caption))
    note = (
        "Each arm decides by itself over the whole time. The difference is of mean daily returns "
        "against the baseline's, in % points. The deflated Sharpe ratio is the probability of "
        "being above what the luckiest of all trials would show without skill."
    )
    return section("decisions", "Decisions", prose.of_arms(metrics.arms), _note(note), *body)


def _arms(arms: Sequence[Arm]) -> Markup:
    """An arm a column: there are more measures than arms."""
    of = [one.performance for one in arms]
    rows: list[tuple[str, list[str]]] = [
        *((name, [shown(one) for one in of]) for name, shown in _MEASURES.items()),
        ("difference a day", [_difference(one, lambda d: units.points(d.value)) for one in arms]),
        (
            "95 % interval",
            [_difference(one, lambda d: units.bounds(d, units.points)) for one in arms],
        ),
        ("verdict", [_judged(one.verdict, one.difference) for one in arms]),
    ]
    head = ["", *(one.name for one in arms)]
    return table(head, [[name, *cells] for name, cells in rows] if arms else [], "Performance")


def _difference(arm: Arm, shown: Callable[[Interval], str]) -> str:
    return "baseline" if arm.difference is None else shown(arm.difference)


def _pct(value: Number) -> str:
    return units.number(value, 2, " %", sign=True)


_MEASURES: Final[dict[str, Callable[[Performance], str]]] = {
    "total return": lambda of: _pct(of.total_return_pct),
    "maximum drawdown": lambda of: _pct(of.max_drawdown_pct),
    "Sharpe ratio, a year": lambda of: units.number(of.sharpe, 2),
    "P(Sharpe above 0)": lambda of: units.share(of.probabilistic_sharpe),
    "deflated Sharpe": lambda of: units.share(of.deflated_sharpe),
    "trials allowed for": lambda of: f"{of.trials:,}",
    "daily returns": lambda of: f"{of.daily_returns:,}",
    "trades": lambda of: f"{of.trades:,}",
    "win rate": lambda of: units.share(of.win_rate),
    "mean net a trade": lambda of: units.number(of.mean_net_pct, 3, " %", sign=True),
    "time in a position": lambda of: units.share(of.exposure),
    "turnover a day": lambda of: units.number(of.turnover_per_day, 2, " × equity"),
}


def controls(metrics: Metrics) -> Markup:
    rows = [
        (
            one.name,
            one.kind,
            one.symbol,
            one.horizon,
            *_estimate(one.skill),
            passed(one.passed, "passed" if one.passed else "failed"),
        )
        for one in metrics.controls
    ]
    head = ("control", "kind", "symbol", "horizon", *_SKILL, "result")
    note = (
        "Data of which the answer is known goes through the same evaluation. A negative control "
        "holds nothing to find: one that fails sees skill in noise. A positive control has a "
        "pattern planted into it: one that fails would miss skill that is there."
    )
    shown = table(head, rows, "Controls")
    reading = prose.of_controls(metrics.controls)
    return section("controls", "Controls", reading, _note(note), shown)


def probes(metrics: Metrics) -> Markup:
    rows = [
        (one.name, one.symbol, f"{one.checked:,}", _probed(one.checked, one.problem))
        for one in metrics.probes
    ]
    note = (
        "Each probe looks for a trace of the future in what a query was given: what is not known "
        "yet must not change an answer."
    )
    shown = table(("probe", "symbol", "checked", "found"), rows, "Leak probes")
    return section("probes", "Leak probes", prose.of_probes(metrics.probes), _note(note), shown)


def _probed(checked: int, problem: str | None) -> Markup:
    if problem is not None:
        return passed(False, problem)
    return passed(True, "nothing") if checked else Markup("not checked")


def slices(metrics: Metrics) -> Markup:
    body: list[Markup] = []
    for by in dict.fromkeys(one.by for one in metrics.slices):
        own = [one for one in metrics.slices if one.by == by]
        title = _DIVISIONS.get(by, by)
        rows = [
            (
                one.value,
                one.symbol,
                one.horizon,
                f"{one.queries:,}",
                *(_estimate(one.skill) if one.skill else (DASH, DASH)),
            )
            for one in own
        ]
        head = (by, "symbol", "horizon", "queries", *_SKILL)
        body += [
            element("h3", f"By {title}"),
            element("p", prose.of_slices(own), kind="reading"),
            figure(charts.slices(own), f"Skill by {title}, with 95 % intervals"),
            folded("Numbers", table(head, rows, f"Skill by {title}")),
        ]
    reading = (
        "Skill against the base rate treated alike, among the queries of one regime. With so many "
        "looks, single bars that stand out are expected; they are questions, not findings."
        if body
        else "Skill was not divided by regime."
    )
    return section("regimes", "Skill by regime", reading, *body)


def trials(metrics: Metrics) -> Markup:
    tried = sorted(metrics.trials.configurations, key=lambda one: _rank(one.skill.value))
    rows = [(one.label, one.symbol, one.horizon, *_estimate(one.skill)) for one in tried]
    head = ("configuration", "symbol", "horizon", *_SKILL)
    shown = table(head, rows, "Configurations of this run, best first")
    note = (
        "Among many configurations the best looks good by luck. Its interval allows for itself "
        "only; Hansen's test for superior predictive ability allows for all of this run's."
    )
    reading = prose.of_trials(metrics.trials)
    return section("trials", "Trials", reading, _note(note), *([shown] if rows else []))


def _rank(value: float) -> float:
    return -value if units.known(value) else float("inf")


def similarity(metrics: Metrics) -> Markup:
    found = metrics.histograms
    rows = [
        (one.symbol, f"{units.number(low, 2)} to {units.number(high, 2)}", f"{count:,}")
        for one in found
        for low, high, count in zip(one.edges, one.edges[1:], one.counts, strict=False)
    ]
    body = []
    if found:
        caption = "Queries by the mean similarity of their neighbours"
        numbers = table(("symbol", "mean similarity", "queries"), rows, caption)
        body = [figure(charts.similarity(found), caption), folded("Numbers", numbers)]
    reading = prose.of_histograms(found)
    return section("similarity", "How alike the neighbours are", reading, *body)


def over_time(metrics: Metrics) -> Markup:
    body: list[Markup] = []
    for kind, (title, scale, digits, unit) in _CURVES.items():
        own: list[Curve] = [one for one in metrics.curves if one.kind == kind]
        if own:
            said = prose.of_curves(own, scale, digits, unit)
            body += [
                element("h3", kind.capitalize()),
                element("p", said, kind="reading"),
                figure(charts.over_time(own, title, scale), f"{kind.capitalize()}, by day"),
            ]
    reading = (
        "Where these drift, the time is not of one kind, and one number for all of it hides that."
        if body
        else "Nothing was recorded by day."
    )
    return section("time", "Over time", reading, *body)


def _estimate(interval: Interval) -> tuple[str, str]:
    return units.skill(interval.value), units.bounds(interval, units.skill)


def _judged(verdict: Verdict | None, interval: Interval | None) -> str:
    """Where there is no interval, "no evidence" would sound like a result."""
    if interval is not None and not units.bounded(interval):
        return "too little data"
    return badge(verdict)


def _note(text: str) -> Markup:
    return element("p", text, kind="note")


def _of(symbol: str, found: Sequence[_Found]) -> list[_Found]:
    return [one for one in found if one.symbol == symbol]
