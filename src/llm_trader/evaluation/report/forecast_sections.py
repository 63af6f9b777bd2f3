"""Sections on forecasts: skill by reference and by kind of neighbours, probabilities, bands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from llm_trader.evaluation.conformal.calibration_fit import INTERVAL_LEVEL
from llm_trader.evaluation.report import charts, prose, remarks, units
from llm_trader.evaluation.report.beside import SAME, Case, case_of, grid_of, the_same
from llm_trader.evaluation.report.markup import (
    Markup,
    cell,
    element,
    figure,
    folded,
    grid,
    join,
    judged,
    note,
    section,
    table,
)
from llm_trader.evaluation.report.units import DASH
from llm_trader.evaluation.results import (
    VERDICT_REFERENCE,
    Direction,
    Metrics,
    Probability,
    RegimeSkill,
    Skill,
)
from llm_trader.evaluation.verdict.verdicts import verdict_variant
from llm_trader.retrieval.calibration import BAND_LEVEL
from llm_trader.retrieval.intervals import Interval

_RIGHT: Final = "How often the median forecast had the right sign"
_ESTIMATE: Final = ("skill", "95 % interval")
_SKILL: Final = (
    "Skill is the share by which the forecasts' loss (CRPS) is below the reference's: 0 is no "
    "better, below 0 worse. “Treated alike” gives the base rate the same rescaling to the "
    "volatility of the moment, so that this cannot pass for skill. ▲ and ▼ are better and worse "
    "beyond chance, with the number of comparisons allowed for."
)
_UNDIRECTED: Final = (
    " Without direction: what is left of the skill over the base rate treated alike once outcomes "
    "go up or down by the toss of a coin, so what states tell of how far prices go, not where to."
)
_WITHOUT: Final = "without direction"
_DETECTABLE: Final = (
    " Detectable, among all numbers, is the smallest skill that would be found with 80 % power."
)
_DIVISIONS: Final = {"hour": "hour of the day (UTC)", "weekday": "day of the week"}
# Of the slices' horizons these are drawn; all are in the tables.
_DRAWN: Final = ("1h", "4h")


def skills(metrics: Metrics) -> Markup:
    found = metrics.skills
    references = list(dict.fromkeys(one.reference for one in found))
    rows: dict[tuple[str, str], dict[str, Markup]] = {}
    for one in found:
        rows.setdefault((one.symbol, one.horizon), {})[one.reference] = _skill(one)
    undirected = {
        (one.symbol, one.horizon): cell(
            None, units.skill(one.skill.value), _bounds(one.skill, units.skill)
        )
        for one in metrics.undirected
    }
    shown = [
        [*case, *(of.get(name, DASH) for name in references), *_if(undirected, case)]
        for case, of in rows.items()
    ]
    head = ("symbol", "horizon", *references, *([_WITHOUT] if undirected else []))
    body = [table(head, shown, f"Skill, with {_interval(metrics)}s")]
    if found:
        caption = f"Skill against each reference, with {_interval(metrics)}s; above 0 is better"
        body += [figure(charts.skills(found), caption), _all_numbers(metrics)]
    detected = any(units.known(one.detectable) for one in found)
    about = note(_SKILL + _UNDIRECTED * bool(undirected) + _DETECTABLE * detected)
    return section("skill", "Skill", prose.of_skills(found), about, *body)


def _if(cells: Mapping[tuple[str, str], Markup], case: tuple[str, str]) -> list[str]:
    """A cell where there is a column of them."""
    return [cells.get(case, Markup(DASH))] if cells else []


def ablation(metrics: Metrics) -> Markup:
    """Kinds of neighbours beside each other, on the same queries."""
    found, variant = metrics.skills, verdict_variant(metrics)
    if not found:
        return section("ablation", "Ablation", "Nothing was compared.")
    caption = "Skill, and how often the median had the right sign, with 95 % intervals"
    plain = [one for one in found if one.reference == "base rate"]
    alike = [one for one in found if one.reference == VERDICT_REFERENCE]
    kinds = (
        "“none” takes no neighbours: it is the base rate treated alike. “random” draws them by "
        "chance. All are asked the same queries."
    )
    return section(
        "ablation",
        "Ablation: what each kind of neighbours adds",
        remarks.of_ablation(alike),
        note(f"{kinds} {_SKILL}"),
        figure(charts.ablation(found, metrics.directions), caption),
        _beside({case_of(one): _skill(one) for one in plain}, "Skill against the plain base rate"),
        _beside(
            {case_of(one): _skill(one) for one in alike}, f"Skill against the {VERDICT_REFERENCE}"
        ),
        _beside(
            {case_of(one): _sign(one) for one in metrics.directions},
            f"{_RIGHT}, with 95 % intervals",
        ),
        _all_numbers(metrics),
        element("p", f"All that follows is of “{variant}”, which the verdict is about."),
    )


def _beside(cells: Mapping[Case, Markup], caption: str) -> Markup:
    return table(*grid_of(cells), caption)


def _skill(one: Skill) -> Markup:
    if the_same(one):
        return Markup(SAME)
    return cell(one.verdict, units.skill(one.skill.value), _bounds(one.skill, units.skill))


def _sign(one: Direction) -> Markup:
    """Without a sign: these intervals do not allow for the number of comparisons."""
    return cell(None, units.share(one.accuracy.value), _bounds(one.accuracy, units.share))


def _bounds(interval: Interval, shown: Callable[[units.Number], str]) -> str:
    return units.bounds(interval, shown) if units.bounded(interval) else "too little data"


def _interval(metrics: Metrics) -> str:
    """Those of a calibration are wider: together they hold in 19 of 20."""
    level = INTERVAL_LEVEL if metrics.command == "calibrate" else 0.95
    return f"{100 * level:g} % interval"


def _all_numbers(metrics: Metrics) -> Markup:
    """A row for each skill; without the columns of which nothing is known."""
    found = metrics.skills
    columns: dict[str, list[str]] = {
        "neighbours": [one.variant for one in found],
        "symbol": [one.symbol for one in found],
        "horizon": [one.horizon for one in found],
        "reference": [one.reference for one in found],
        "verdict": [judged(one.verdict, one.skill) for one in found],
        "skill": [units.skill(one.skill.value) for one in found],
        _interval(metrics): [units.bounds(one.skill, units.skill) for one in found],
        "p adjusted": [units.p_value(one.p_adjusted) for one in found],
        "detectable": [units.skill(one.detectable).lstrip("+") for one in found],
        "queries": [f"{one.queries:,}" for one in found],
    }
    if len(set(columns["neighbours"])) == 1:
        del columns["neighbours"]
    for optional in ("p adjusted", "detectable"):
        if set(columns[optional]) == {DASH}:
            del columns[optional]
    rows = list(zip(*columns.values(), strict=True))
    return folded("All numbers", table(list(columns), rows, "Skill against each reference"))


def probabilities(metrics: Metrics) -> Markup:
    found = metrics.probabilities
    events = dict.fromkeys(one.event for one in found)
    head = ("event", "symbol", "forecasts", "Brier", "base rate's", *_ESTIMATE)
    rows = [
        (
            one.event,
            one.symbol,
            f"{sum(bin_.count for bin_ in one.bins):,}",
            units.number(one.brier, 4),
            units.number(one.base_brier, 4),
            *units.estimate(one.skill),
        )
        for one in found
    ]
    reading = (
        f"{remarks.of_brier(found)} When the forecast says 60 %, it should happen 60 % of the "
        "time: on the dotted line. Outcomes overlap, so neighbouring forecasts are not "
        "independent, and points of few forecasts say little."
        if found
        else "No probabilities were judged."
    )
    shown = [_reliability(event, [one for one in found if one.event == event]) for event in events]
    body = [table(head, rows, "Brier scores; lower is better"), grid(shown)]
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
    return element(
        "div",
        element("h3", event),
        element("p", remarks.of_probabilities(event, found), kind="reading"),
        figure(charts.reliability(found), f"Reliability of “{event}”, and counts"),
        folded("Numbers", numbers),
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
    shown = table(head, rows, _RIGHT)
    return section("direction", "Direction", remarks.of_directions(metrics.directions), shown)


def bands(metrics: Metrics) -> Markup:
    rows = [
        (
            one.symbol,
            one.horizon,
            units.share(one.before.value),
            units.bounds(one.before, units.share),
            units.share(one.after.value),
            units.bounds(one.after, units.share),
            units.share(BAND_LEVEL),
            f"{one.queries:,}",
        )
        for one in metrics.bands
    ]
    interval = _interval(metrics)
    head = ("symbol", "horizon", "before", interval, "after", interval, "target", "queries")
    shown = table(head, rows, "Outcomes inside the 80 % band, before and after correction")
    about = (
        "Each day is corrected by what the 60 days before it taught, so nothing that is counted "
        "was used for its own correction; days before which too little was known are left out."
    )
    reading = prose.of_bands(metrics.bands)
    return section("coverage", "Coverage of the 80 % band", reading, note(about), shown)


def slices(metrics: Metrics) -> Markup:
    found = metrics.slices
    horizons = list(dict.fromkeys(one.horizon for one in found))
    drawn = [one for one in horizons if one in _DRAWN] or horizons[:2]
    reading = (
        "Skill against the base rate treated alike, among the queries of one regime. With so many "
        "looks, single bars that stand out are expected; they are questions, not findings. Charts "
        f"are of {units.listed(drawn)}; the numbers of all horizons are beneath each."
        if found
        else "Skill was not divided by regime."
    )
    of = dict.fromkeys(one.by for one in found)
    body = [_regime([one for one in found if one.by == by], drawn) for by in of]
    return section("regimes", "Skill by regime", reading, *body)


def _regime(found: Sequence[RegimeSkill], drawn: Sequence[str]) -> Markup:
    by = found[0].by
    title = _DIVISIONS.get(by, by)
    rows = [
        (
            one.value,
            one.symbol,
            one.horizon,
            f"{one.queries:,}",
            *(units.estimate(one.skill) if one.skill else (DASH, DASH)),
        )
        for one in found
    ]
    head = (by, "symbol", "horizon", "queries", *_ESTIMATE)
    shown = [one for one in found if one.horizon in drawn]
    return join(
        [
            element("h3", f"By {title}"),
            element("p", remarks.of_slices(found), kind="reading"),
            figure(charts.slices(shown), f"Skill by {title}, with 95 % intervals"),
            folded("All numbers", table(head, rows, f"Skill by {title}")),
        ]
    )
