"""What the numbers of an evaluation say, in one to three plain sentences for each section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_trader.evaluation.results import (
    JUDGED,
    Arm,
    Band,
    Control,
    Curve,
    Direction,
    Histogram,
    Metrics,
    Probability,
    Probe,
    Skill,
    Slice,
    Trials,
)
from llm_trader.evaluation.significance import Interval, Verdict
from llm_trader.evaluation.units import (
    bounded,
    bounds,
    counted,
    known,
    listed,
    number,
    p_value,
    points,
    share,
    skill,
)

BAND: Final = 0.8
_LEVEL: Final = 0.05
_FEW_TRADES: Final = 30

HEADLINES: Final[dict[Verdict, str]] = {
    "better": "Better: similar past states forecast better than the base rate does",
    "worse": "Worse: similar past states forecast worse than the base rate does",
    "no evidence": "No evidence that similar past states forecast better or worse than the base "
    "rate does",
}
DISTRUST: Final = "This evaluation cannot be trusted"
_FAILURES: Final = {
    "negative": "it found skill in data that holds none",
    "positive": "it did not find the skill that was planted there",
}


def readings(metrics: Metrics, variant: str) -> list[str]:
    """What was found, most important first, for the top of the report."""
    judged = [one for one in metrics.skills if one.reference == JUDGED and one.variant == variant]
    said = []
    if metrics.command == "ab":
        said += [_of_arm(one) for one in metrics.arms if one.difference is not None]
    else:
        said += [_of_best(judged), *_of_plain(metrics.skills, variant)]
        said += [_of_variants(metrics.skills)] if metrics.command == "compare" else []
    if metrics.command == "evaluate":
        said += [of_bands(metrics.bands), of_arms(metrics.arms), of_trials(metrics.trials)]
    return said


def _of_best(judged: Sequence[Skill]) -> str:
    parts = {
        verdict: [
            f"{one.symbol} {one.horizon} ({skill(one.skill.value)})"
            for one in judged
            if one.verdict == verdict
        ]
        for verdict in ("better", "worse")
    }
    told = [f"{verdict} on {listed(of)}" for verdict, of in parts.items() if of]
    rest = sum(one.verdict == "no evidence" for one in judged)
    if rest:
        told.append(f"no evidence in {rest} of {counted(len(judged), 'case')}")
    return f"Against the base rate treated alike, and allowing for their number: {'; '.join(told)}."


def _of_plain(skills: Sequence[Skill], variant: str) -> list[str]:
    plain = [one for one in skills if one.reference == "base rate" and one.variant == variant]
    values = [f"{one.symbol} {one.horizon} {skill(one.skill.value)}" for one in plain]
    return [f"Against the plain base rate: {listed(values)}."] if values else []


def _of_variants(skills: Sequence[Skill]) -> str:
    """Variants from the best on, by the mean skill against the plain base rate."""
    found: dict[str, list[float]] = {}
    for one in skills:
        if one.reference == "base rate" and known(one.skill.value):
            found.setdefault(one.variant, []).append(one.skill.value)
    means = {name: sum(values) / len(values) for name, values in found.items()}
    ranked = sorted(means, key=lambda name: -means[name])
    told = [f"{name} {skill(means[name])}" for name in ranked]
    return f"Mean skill over the plain base rate, over symbols and horizons: {', '.join(told)}."


def _of_arm(arm: Arm) -> str:
    difference = arm.difference
    if difference is None or not bounded(difference):
        return f"{arm.name} on {arm.symbol}: too little data for a comparison."
    words = {"better": "earned more", "worse": "earned less", "no evidence": "cannot be told from"}
    said = words[arm.verdict or "no evidence"]
    return (
        f"{arm.symbol}: {arm.name} {said}{'' if arm.verdict == 'no evidence' else ' than'} the "
        f"other; a day {points(difference.value)} [{bounds(difference, points)}]."
    )


def distrust(metrics: Metrics) -> list[str]:
    """Why nothing else in the report counts; empty where nothing speaks against it."""
    controls = [
        f"The {one.kind} control “{one.name}” failed on {one.symbol} at {one.horizon}: "
        f"{_FAILURES[one.kind]} (skill {skill(one.skill.value)})."
        for one in metrics.controls
        if not one.passed
    ]
    leaks = [
        f"The leak probe “{one.name}” found a problem on {one.symbol}: {one.problem}"
        for one in metrics.probes
        if one.problem is not None
    ]
    return controls + leaks


def unchecked(metrics: Metrics) -> list[str]:
    """What was not done that would make the result believable."""
    kinds = {one.kind for one in metrics.controls}
    gaps = []
    if "negative" not in kinds:
        gaps.append("No negative control was run: nothing shows that it finds no skill in noise.")
    if "positive" not in kinds:
        gaps.append("No positive control was run: nothing shows that it would find skill.")
    if not any(one.checked for one in metrics.probes):
        gaps.append("Nothing was probed for knowledge of the future.")
    return gaps


def of_skills(found: Sequence[Skill]) -> str:
    if not found:
        return "No skill was measured."
    judged = [one for one in found if bounded(one.skill)]
    if not judged:
        return "There is too little data for intervals, so these skills are no evidence."
    better, worse = (sum(one.verdict == of for one in judged) for of in ("better", "worse"))
    firm = sum(one.p_adjusted is not None and one.p_adjusted <= _LEVEL for one in judged)
    said = (
        f"Of {counted(len(judged), 'comparison')}, {better} came out better, {worse} worse and "
        f"{len(judged) - better - worse} without evidence; {firm} with an adjusted p of at most "
        f"{_LEVEL}, which allows for their number."
    )
    return said + _blind_spot(judged) + _unbounded(len(found) - len(judged))


def _blind_spot(judged: Sequence[Skill]) -> str:
    silent = [
        one.detectable
        for one in judged
        if one.verdict == "no evidence" and one.detectable is not None and known(one.detectable)
    ]
    if not silent:
        return ""
    low, high = skill(min(silent)).lstrip("+"), skill(max(silent)).lstrip("+")
    size = low if low == high else f"{low} to {high}, depending on the comparison,"
    return f" Where there is no evidence, a skill of {size} would have been found 4 times in 5."


def _unbounded(n: int) -> str:
    return f" {counted(n, 'estimate')} rest{'s' * (n == 1)} on too little data." if n else ""


def of_probabilities(event: str, found: Sequence[Probability]) -> str:
    counted_bins = [bin_ for one in found for bin_ in one.bins if bin_.count]
    total = sum(bin_.count for bin_ in counted_bins)
    if not total:
        return f"There are no forecasts of “{event}” to judge."
    off = sum(abs(bin_.forecast - bin_.observed) * bin_.count for bin_ in counted_bins) / total
    clear = [one for one in found if bounded(one.skill) and _excludes(one.skill, 0)]
    better = sum(one.skill.low > 0 for one in clear)
    worse = len(clear) - better
    return (
        f"Forecast probabilities of “{event}” were {number(100 * off, 1, ' points')} from what "
        f"happened, on average over {counted(total, 'forecast')}. By Brier score they were "
        f"clearly better than the base rate's on {better} of {counted(len(found), 'symbol')}, "
        f"clearly worse on {worse}."
    )


def of_directions(found: Sequence[Direction]) -> str:
    judged = [one.accuracy for one in found if bounded(one.accuracy)]
    if not judged:
        return "There is too little data to say how often the direction was right."
    above, below = sum(one.low > 0.5 for one in judged), sum(one.high < 0.5 for one in judged)
    best = max(judged, key=lambda one: one.value)
    return (
        f"The forecast direction was right more often than a coin toss in {above} of "
        f"{counted(len(judged), 'case')}, less often in {below}; the highest share is "
        f"{share(best.value)}. In a market that mostly rose, always saying “up” is above 50 % too."
        + _unbounded(len(found) - len(judged))
    )


def of_bands(found: Sequence[Band]) -> str:
    judged = [one for one in found if known(one.before.value) and known(one.after.value)]
    if not judged:
        return "There is too little data to say how often outcomes fell inside the 80 % band."
    before, after = ([getattr(one, of).value for one in judged] for of in ("before", "after"))
    nearer = sum(
        abs(now - BAND) < abs(then - BAND) for then, now in zip(before, after, strict=True)
    )
    return (
        f"Of the outcomes, {_range(before)} fell inside the 80 % band before correction and "
        f"{_range(after)} after it. The correction came nearer to 80 % in {nearer} of "
        f"{counted(len(judged), 'case')}."
    )


def of_arms(found: Sequence[Arm]) -> str:
    compared = [one for one in found if one.difference is not None]
    if not compared:
        return "No way to decide was compared with a baseline."
    judged = [one for one in compared if one.difference is not None and bounded(one.difference)]
    better, worse = (sum(one.verdict == of for one in judged) for of in ("better", "worse"))
    said = (
        f"Of {counted(len(compared), 'arm')} traded beside a baseline, {better} earned more than "
        f"it, {worse} less, and {len(compared) - better - worse} cannot be told from it."
        + _unbounded(len(compared) - len(judged))
    )
    return said + _luck(found) + _few_trades(found)


def _luck(found: Sequence[Arm]) -> str:
    measured = [one for one in found if known(one.performance.deflated_sharpe)]
    if not measured:
        return ""
    best = max(measured, key=lambda one: one.performance.deflated_sharpe or 0.0)
    return (
        f" The surest Sharpe ratio, of “{best.name}” on {best.symbol}, is above what luck alone "
        f"would give the best of {counted(best.performance.trials, 'trial')} with a probability "
        f"of {share(best.performance.deflated_sharpe)}."
    )


def _few_trades(found: Sequence[Arm]) -> str:
    few = sum(one.performance.trades < _FEW_TRADES for one in found)
    return f" {counted(few, 'arm')} made fewer than {_FEW_TRADES} trades." if few else ""


def of_controls(found: Sequence[Control]) -> str:
    if not found:
        return "No controls were run, so nothing shows whether this evaluation can be believed."
    failed = [one for one in found if not one.passed]
    if not failed:
        return f"All {len(found)} passed." if len(found) > 1 else "The one that was run passed."
    return (
        f"{len(failed)} of {counted(len(found), 'control')} failed. {DISTRUST} until it is known "
        "why."
    )


def of_probes(found: Sequence[Probe]) -> str:
    if not any(one.checked for one in found):
        return "Nothing was probed for knowledge of the future."
    caught = sum(one.problem is not None for one in found)
    idle = sum(not one.checked for one in found)
    said = (
        f"{caught} of {counted(len(found), 'probe')} found knowledge of the future. {DISTRUST} "
        "until that is mended."
        if caught
        else f"{counted(len(found) - idle, 'probe')} found no knowledge of the future."
    )
    return said + (f" {counted(idle, 'probe')} had nothing to check." if idle else "")


def of_slices(found: Sequence[Slice]) -> str:
    judged = [one.skill for one in found if one.skill is not None and bounded(one.skill)]
    if not judged:
        return "There is too little data in each of these for an interval."
    clear = [one for one in judged if _excludes(one, 0)]
    better = sum(one.low > 0 for one in clear)
    return (
        f"Of {counted(len(judged), 'interval')}, {better or 'none'} above zero and "
        f"{len(clear) - better or 'none'} below it; chance alone would put about "
        f"{number(_LEVEL * len(judged), 1)} on one side or the other."
        + _unbounded(len(found) - len(judged))
    )


def of_trials(trials: Trials) -> str:
    tried = counted(trials.so_far, "configuration")
    said = f"{tried} {'has' if trials.so_far == 1 else 'have'} been tried so far on this data."
    if not known(trials.superior_p_value):
        return f"{said} Whether the best of them beats the base rate was not tested."
    p = trials.superior_p_value or 0.0
    beaten = "is hard to explain by" if p <= _LEVEL else "can be explained by"
    return (
        f"{said} That the best of this run's did as well as it did {beaten} chance, with so "
        f"many tries (Hansen's test, p {p_value(p)})."
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
            return number(low, 2)
    return ""


def of_curves(found: Sequence[Curve], scale: float, digits: int, unit: str) -> str:
    said = []
    for one in found:
        values = [scale * value for value in one.value if value is not None and known(value)]
        if values:
            low, high = (number(of, digits, unit) for of in (min(values), max(values)))
            said.append(f"{one.symbol} between {low} and {high}")
    return f"By day: {listed(said)}." if said else "Nothing is known by day."


def _excludes(interval: Interval, value: float) -> bool:
    return interval.low > value or interval.high < value


def _range(shares: Sequence[float]) -> str:
    low, high = share(min(shares)), share(max(shares))
    return low if low == high else f"{low} to {high}"
