"""What single sections of a report say of their numbers, in one to three plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_trader.evaluation.report import summary
from llm_trader.evaluation.report.units import (
    bounded,
    capital,
    counted,
    known,
    listed,
    number,
    or_none,
    share,
    skill,
)
from llm_trader.evaluation.results import (
    Arm,
    Curve,
    Direction,
    Histogram,
    Probability,
    RegimeSkill,
    Skill,
)

_CHANCE: Final = 0.05


def of_variants(skills: Sequence[Skill], variant: str) -> str:
    """Variants from the best on, by the mean skill against the plain base rate."""
    found: dict[str, list[float]] = {}
    for one in skills:
        if one.reference == "base rate" and (value := one.skill.value) is not None:
            found.setdefault(one.variant, []).append(value)
    if not found:
        return "There is too little data to compare kinds of neighbours."
    means = {name: sum(values) / len(values) for name, values in found.items()}
    ranked = sorted(means, key=lambda name: -means[name])
    told = [f"“{name}” {skill(means[name])}" for name in ranked]
    said = f"Mean skill over the plain base rate, best first: {listed(told)}."
    beside = [
        f"{_ahead(means[variant] - means[name])} {what}"
        for name, what in _WITHOUT.items()
        if name in means and name != variant and variant in means
    ]
    return said + (f" So “{variant}” is {listed(beside)}." if beside else "")


_WITHOUT: Final = {
    "none": "what needs no neighbours (“none”)",
    "random": "neighbours drawn by chance (“random”)",
    "prototype": "what this program replaces (“prototype”)",
}


def _ahead(by: float) -> str:
    points = number(100 * abs(by), 2, " points")
    if points == number(0, 2, " points"):
        return "level with"
    return f"{points} {'behind' if by < 0 else 'ahead of'}"


def of_ablation(judged: Sequence[Skill]) -> str:
    """How often each kind of neighbours was better or worse than the base rate treated alike."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(one.variant for one in judged):
        own = [one for one in judged if one.variant == name and bounded(one.skill)]
        better, worse = (sum(one.verdict == of for one in own) for of in ("better", "worse"))
        apart = [f"better in {better}"] * bool(better) + [f"worse in {worse}"] * bool(worse)
        told = listed(apart or ["neither better nor worse in any"])
        if own and name != "none":
            alike.setdefault(f"{told} of {counted(len(own), 'case')}", []).append(f"“{name}”")
    if not alike:
        return "There is too little data to compare kinds of neighbours."
    said = (
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} {told}"
        for told, names in alike.items()
    )
    return f"Beside the base rate treated alike, {'; '.join(said)}."


def of_brier(found: Sequence[Probability]) -> str:
    judged = [one for one in found if bounded(one.skill)]
    if not judged:
        return "There is too little data for a comparison with the base rate."
    better = [f"{one.event} on {one.symbol}" for one in judged if one.skill.above(0)]
    worse = [f"{one.event} on {one.symbol}" for one in judged if one.skill.below(0)]
    return (
        f"By Brier score, of {counted(len(judged), 'case')} {or_none(len(better))} "
        f"{'is' if len(better) < 2 else 'are'} clearly better than the base rate"
        f"{_told(better)}, and {or_none(len(worse))} clearly worse{_told(worse)}."
    )


def _told(names: list[str]) -> str:
    return f" ({listed(names)})" if names else ""


def of_probabilities(event: str, found: Sequence[Probability]) -> str:
    counted_bins = [bin_ for one in found for bin_ in one.bins if bin_.count]
    total = sum(bin_.count for bin_ in counted_bins)
    if not total:
        return f"There are no forecasts of “{event}” to judge."
    off = sum(abs(bin_.forecast - bin_.observed) * bin_.count for bin_ in counted_bins) / total
    return (
        f"Forecast probabilities were {number(100 * off, 1, ' points')} from what happened, on "
        f"average over {counted(total, 'forecast')}."
    )


def of_directions(found: Sequence[Direction]) -> str:
    judged = [one.accuracy for one in found if bounded(one.accuracy)]
    if not judged:
        return "There is too little data to say how often the direction was right."
    above, below = sum(one.above(0.5) for one in judged), sum(one.below(0.5) for one in judged)
    best = max(judged, key=lambda one: one.value or 0.0)
    return (
        f"The forecast direction was right more often than a coin toss in {or_none(above)} of "
        f"{counted(len(judged), 'case')}, less often in {or_none(below)}; the highest share is "
        f"{share(best.value)}. In a market that mostly rose, always saying “up” is above 50 % too."
        + unbounded(len(found) - len(judged))
    )


def of_arms(found: Sequence[Arm]) -> str:
    compared = [one for one in found if one.difference is not None]
    if not compared:
        return "No way to decide was compared with a baseline."
    if len({one.name for one in compared}) == 1:
        said = " ".join(summary.of_pairs(found, compared[0].name))
        return said + _luck(found) + _few_trades(found)
    judged = [one for one in compared if one.difference is not None and bounded(one.difference)]
    better, worse = ([one for one in judged if one.verdict == of] for of in ("better", "worse"))
    alike = len(judged) - len(better) - len(worse)
    told = [
        f"{or_none(len(better))} earned more than it{_named(better)}",
        f"{or_none(len(worse))} earned less{_named(worse)}",
        *([f"{alike:,} cannot be told from it"] if alike else []),
    ]
    said = f"Of {counted(len(compared), 'arm')} traded beside a baseline, {listed(told)}."
    said += unbounded(len(compared) - len(judged))
    if not judged:
        said = "There is too little data to compare what was earned with what a baseline earned."
    return said + _luck(found) + _few_trades(found)


def _named(arms: Sequence[Arm]) -> str:
    names = list(dict.fromkeys(one.name for one in arms))
    return f" ({listed(names)})" if names else ""


def _luck(found: Sequence[Arm]) -> str:
    measured = [one for one in found if known(one.performance.deflated_sharpe)]
    if not measured:
        return ""
    best = max(measured, key=lambda one: one.performance.deflated_sharpe or 0.0)
    return (
        f" The surest Sharpe ratio, of “{best.name}” on {best.symbol}, is with a probability of "
        f"{share(best.performance.deflated_sharpe)} above what luck alone would give the best of "
        f"{counted(best.performance.trials, 'trial')}."
    )


def _few_trades(found: Sequence[Arm]) -> str:
    few = sum(one.performance.trades < summary.FEW_TRADES for one in found)
    return f" {counted(few, 'arm')} made fewer than {summary.FEW_TRADES} trades." if few else ""


def of_slices(found: Sequence[RegimeSkill]) -> str:
    judged = [one.skill for one in found if one.skill is not None and bounded(one.skill)]
    if not judged:
        return "There is too little data in each of these for an interval."
    better, worse = sum(one.above(0) for one in judged), sum(one.below(0) for one in judged)
    return (
        f"Of {counted(len(judged), 'interval')}, {or_none(better)} above zero and "
        f"{or_none(worse)} below it; chance alone would put about "
        f"{number(_CHANCE * len(judged), 1)} on one side or the other."
        + unbounded(len(found) - len(judged))
    )


def of_histograms(found: Sequence[Histogram]) -> str:
    said = [f"{share_of} for {one.symbol}" for one in found if (share_of := _middle(one))]
    if not said:
        return "No query found neighbours."
    return f"Half of the queries had neighbours of a mean similarity of at least {listed(said)}."


def _middle(histogram: Histogram) -> str:
    """The lower edge of the bin of the median, as that is what a histogram can tell."""
    reached, total = 0, sum(histogram.counts)
    for low, count in zip(histogram.edges, histogram.counts, strict=False):
        reached += count
        if total and 2 * reached >= total:
            return number(low, 3)
    return ""


def of_curves(found: Sequence[Curve], scale: float, digits: int, unit: str) -> str:
    """Of each name the range over all symbols, or of each symbol where there is one name."""
    names = list(dict.fromkeys(one.name for one in found))
    values: dict[str, list[float]] = {}
    for one in found:
        key = one.name if len(names) > 1 else one.symbol
        values.setdefault(key, []).extend(
            scale * value for value in one.value if value is not None and known(value)
        )
    said = [f"{key} {_range(of, digits, unit)}" for key, of in values.items() if of]
    return f"{capital('; '.join(said))}." if said else "Nothing is known by day."


def _range(values: Sequence[float], digits: int, unit: str) -> str:
    low, high = (number(end, digits, unit) for end in (min(values), max(values)))
    return f"{high} throughout" if low == high else f"between {low} and {high}"


def unbounded(n: int) -> str:
    return f" {counted(n, 'estimate')} rest{'s' * (n == 1)} on too little data." if n else ""
