"""The top of a report in words: what was found, and whether it can be believed.

The sentences of the top are made in `summary`; what only one section says is in `remarks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_trader.evaluation.backtest.strategies import RAG
from llm_trader.evaluation.report import summary
from llm_trader.evaluation.report.remarks import of_variants, unbounded
from llm_trader.evaluation.report.units import (
    between,
    bounded,
    counted,
    known,
    listed,
    p_value,
    share,
    skill,
)
from llm_trader.evaluation.results import Arm, Band, Command, Control, Metrics, Probe, Skill, Trials
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.verdict.verdicts import LEVEL
from llm_trader.retrieval.calibration import BAND_LEVEL

DISTRUST: Final = "This evaluation cannot be trusted"

_OPENINGS: Final = {
    "better": "Better: ",
    "worse": "Worse: ",
    "no evidence": "No evidence that ",
    "too little data": "Too little data to say whether ",
}
_FORECAST: Final = "{0} forecast {1} than the base rate does"
_EARNED: Final = "{0} earned {1} than {2}"
_MORE: Final = {"better": "more", "worse": "less"}
_MIXED: Final = "Mixed: better than {0} in some cases, worse in others"
_FAILURES: Final = {
    "negative": "it found skill in data that holds none",
    "positive": "it did not find the skill that was planted there",
}


def headline(metrics: Metrics) -> str:
    """The verdict as a sentence that names what was judged."""
    word, of = verdict(metrics), _verdicts(metrics)
    better = word if word in ("better", "worse") else "better or worse"
    if metrics.command == "ab":
        judged, base = _arm_names(metrics.arms)
        told = _EARNED.format(judged, _MORE.get(better, "more or less"), base)
    else:
        variant, base = judged_variant(metrics), "the base rate"
        similar = metrics.command != "compare" and variant != "random"
        neighbours = "similar past states" if similar else f"neighbours by “{variant}”"
        told = _FORECAST.format(neighbours, better)
    if word == "no evidence" and {"better", "worse"} <= set(of):
        return _MIXED.format(base)
    return _OPENINGS[word] + told


def verdict(metrics: Metrics) -> str:
    """In a word; where nothing that is judged has an interval, "no evidence" would be a result."""
    if metrics.verdict == "no evidence" and not _verdicts(metrics):
        return "too little data"
    return metrics.verdict


def _verdicts(metrics: Metrics) -> list[Verdict | None]:
    """Of what was judged and has an interval."""
    if metrics.command == "ab":
        return [one.verdict for one in metrics.arms if one.difference and bounded(one.difference)]
    found = summary.judged(metrics.skills, judged_variant(metrics))
    return [one.verdict for one in found if bounded(one.skill)]


def judged_variant(metrics: Metrics) -> str:
    """What the verdict is about: the plan's own vector, or the last one compared."""
    own = metrics.origin.plan.search.vector
    variants = [one.variant for one in metrics.skills]
    return variants[-1] if variants and own not in variants else own


def subject(metrics: Metrics) -> str:
    """What was done, and with which symbols."""
    judged, base = _arm_names(metrics.arms)
    done: dict[Command, str] = {
        "evaluate": "evaluation of",
        "compare": "comparison of neighbours on",
        "ab": f"{judged} against {base} on",
        "calibrate": "calibration of",
    }
    return f"{done[metrics.command]} {listed(metrics.origin.symbols)}"


def _arm_names(arms: Sequence[Arm]) -> tuple[str, str]:
    """The one that is judged, and its baseline."""
    judged = next((one.name for one in arms if one.difference is not None), "the second arm")
    return judged, next((one.name for one in arms if one.difference is None), "the first")


def readings(metrics: Metrics, variant: str) -> list[str]:
    """What was found, most important first, for the top of the report."""
    judged = summary.judged(metrics.skills, variant)
    of_forecasts = summary.of_judged(judged, variant)
    if metrics.command == "ab":
        return [*summary.of_pairs(metrics.arms, _arm_names(metrics.arms)[0]), of_forecasts]
    if metrics.command == "compare":
        return [of_forecasts, of_variants(metrics.skills, variant)]
    if metrics.command == "calibrate":
        return [of_bands(metrics.bands), of_forecasts]
    said = [of_forecasts, *summary.of_plain(metrics.skills, judged, variant)]
    said += summary.of_undirected(metrics.undirected, judged)
    said += summary.of_signs([one for one in metrics.directions if one.variant == variant])
    said.append(summary.of_earnings(judged, metrics.arms, RAG))
    return [one for one in [*said, of_bands(metrics.bands), of_trials(metrics.trials)] if one]


def distrust(metrics: Metrics) -> list[str]:
    """Why nothing else in the report counts; empty where nothing speaks against it."""
    controls = [
        f"The {one.kind} control “{one.name}” failed on {one.symbol} at {one.horizon}: "
        f"{_failure(one)} (skill {skill(one.skill.value)})."
        for one in metrics.controls
        if not one.passed
    ]
    leaks = [
        f"The leak probe “{one.name}” found a problem on {one.symbol}: {one.problem}"
        for one in metrics.probes
        if one.problem is not None
    ]
    return controls + leaks


def _failure(control: Control) -> str:
    if not bounded(control.wide):
        return "there was too little data for a result"
    return _FAILURES[control.kind]


def unchecked(metrics: Metrics) -> list[str]:
    """What was not done that would make the result believable."""
    if metrics.command == "calibrate":
        return ["A calibration runs no controls and no leak probes; `llm-trader evaluate` does."]
    kinds = {one.kind for one in metrics.controls}
    gaps = []
    if "negative" not in kinds:
        gaps.append("No negative control was run: nothing shows that it finds no skill in noise.")
    if "positive" not in kinds:
        gaps.append("No positive control was run: nothing shows that it would find skill.")
    # Without an interval a negative control cannot fail.
    idle = sum(one.passed and not bounded(one.wide) for one in metrics.controls)
    if idle:
        gaps.append(
            f"{counted(idle, 'control')} had too little data to fail, so that nothing failed there "
            "says nothing."
        )
    probed = {one.symbol for one in metrics.probes if one.checked}
    missed = [one for one in metrics.origin.symbols if one not in probed]
    if not probed:
        gaps.append("Nothing was probed for knowledge of the future.")
    elif missed:
        gaps.append(f"Nothing was probed for knowledge of the future on {listed(missed)}.")
    return gaps


def of_controls(found: Sequence[Control]) -> str:
    if not found:
        return "No controls were run, so nothing shows whether this evaluation can be believed."
    failed = [one for one in found if not one.passed]
    if failed:
        return (
            f"{len(failed)} of {counted(len(found), 'control')} failed. {DISTRUST} until it is "
            "known why."
        )
    judged = [one for one in found if bounded(one.wide)]
    counts = {kind: sum(one.kind == kind for one in judged) for kind in ("negative", "positive")}
    what = {"negative": "found nothing in noise", "positive": "found what was planted"}
    told = [f"{counted(n, f'{kind} control')} {what[kind]}" for kind, n in counts.items() if n]
    said = [f"{listed(told)}, as it should be."] if told else []
    harmed = sum(one.kind == "negative" and one.wide.below(0) for one in judged)
    if harmed:
        said.append(
            f"{counted(harmed, 'negative control')} came out worse than the base rate: where there "
            "is nothing to know, such neighbours do harm."
        )
    if idle := len(found) - len(judged):
        said.append(f"{counted(idle, 'control')} had too little data for a result.")
    return " ".join(said)


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


def of_skills(found: Sequence[Skill]) -> str:
    if not found:
        return "No skill was measured."
    judged = [one for one in found if bounded(one.skill)]
    if not judged:
        return "There is too little data for intervals, so these skills are no evidence."
    better, worse = (sum(one.verdict == of for one in judged) for of in ("better", "worse"))
    said = (
        f"Of {counted(len(judged), 'comparison')}, {better} came out better, {worse} worse and "
        f"{len(judged) - better - worse} without evidence"
    )
    tested = any(known(one.p_adjusted) for one in judged)
    firm = sum(one.p_adjusted is not None and one.p_adjusted <= LEVEL for one in judged)
    p = f"; {firm} with an adjusted p of at most {LEVEL}, which allows for their number"
    said += f"{p if tested else ''}."
    return said + _blind_spot(judged) + unbounded(len(found) - len(judged))


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


def of_bands(found: Sequence[Band]) -> str:
    judged = [one for one in found if known(one.before.value) and known(one.after.value)]
    if not judged:
        return "There is too little data to say how often outcomes fell inside the 80 % band."
    before, after = ([getattr(one, of).value for one in judged] for of in ("before", "after"))
    nearer = sum(
        abs(now - BAND_LEVEL) < abs(then - BAND_LEVEL)
        for then, now in zip(before, after, strict=True)
    )
    return (
        f"Of the outcomes, {between(before, share)} fell inside the 80 % band before correction "
        f"and {between(after, share)} after it. The correction came nearer to 80 % in {nearer} of "
        f"{counted(len(judged), 'case')}."
    )


def of_trials(trials: Trials) -> str:
    tried = counted(trials.so_far, "configuration")
    said = f"{tried} {'has' if trials.so_far == 1 else 'have'} been tried so far in this folder"
    p = trials.superior_p_value
    if p is None or not known(p):
        best = "the best of them beats" if trials.so_far > 1 else "it beats"
        if trials.tested:
            return f"{said}. There are too few days to test whether {best} the base rate."
        return f"{said}. Whether {best} the base rate was not tested."
    of = "all" if trials.tested == trials.so_far else f"{trials.tested:,}"
    asked = f", {of} of them on these queries" if trials.so_far > 1 else ""
    beaten = "is hard to explain by" if p <= LEVEL else "can be explained by"
    return (
        f"{said}{asked}. That the best of those did as well as it did beside the base rate {beaten}"
        f" chance, with so many tries (Hansen's test, p {p_value(p)})."
    )
