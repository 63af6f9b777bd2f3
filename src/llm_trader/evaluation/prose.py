"""The top of a report in words: what was found, and whether it can be believed.

The sentences of the top are made in `summary`; what only one section says is in `remarks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_trader.evaluation import summary
from llm_trader.evaluation.arms import RAG
from llm_trader.evaluation.remarks import of_variants, unbounded
from llm_trader.evaluation.results import Arm, Band, Command, Control, Metrics, Probe, Skill, Trials
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.units import (
    between,
    bounded,
    counted,
    known,
    listed,
    or_none,
    p_value,
    share,
    skill,
)

BAND: Final = 0.8
DISTRUST: Final = "This evaluation cannot be trusted"
_LEVEL: Final = 0.05

HEADLINES: Final[dict[Verdict, str]] = {
    "better": "Better: similar past states forecast better than the base rate does",
    "worse": "Worse: similar past states forecast worse than the base rate does",
    "no evidence": "No evidence that similar past states forecast better or worse than the base "
    "rate does",
}
_OF_VARIANT: Final[dict[Verdict, str]] = {
    "better": "Better: neighbours by “{0}” forecast better than the base rate does",
    "worse": "Worse: neighbours by “{0}” forecast worse than the base rate does",
    "no evidence": "No evidence that neighbours by “{0}” forecast better or worse than the base "
    "rate does",
}
_OF_ARMS: Final[dict[Verdict, str]] = {
    "better": "Better: {0} earned more than {1}",
    "worse": "Worse: {0} earned less than {1}",
    "no evidence": "No evidence that {0} earned more or less than {1}",
}
_MIXED: Final = "Mixed: better than {0} in some cases, worse in others"
_FAILURES: Final = {
    "negative": "it found skill in data that holds none",
    "positive": "it did not find the skill that was planted there",
}


def headline(metrics: Metrics) -> str:
    """The verdict as a sentence that names what was judged."""
    if metrics.command == "ab":
        judged, base = _arm_names(metrics.arms)
        verdicts = {one.verdict for one in metrics.arms}
        told = _OF_ARMS[metrics.verdict].format(judged, base)
    else:
        variant, base = judged_variant(metrics), "the base rate"
        verdicts = {one.verdict for one in summary.judged(metrics.skills, variant)}
        similar = metrics.command != "compare" and variant != "random"
        told = (HEADLINES if similar else _OF_VARIANT)[metrics.verdict].format(variant)
    mixed = metrics.verdict == "no evidence" and {"better", "worse"} <= verdicts
    return _MIXED.format(base) if mixed else told


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
    harmed = sum(one.kind == "negative" and one.wide.high < 0 for one in judged)
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
    firm = sum(one.p_adjusted is not None and one.p_adjusted <= _LEVEL for one in judged)
    p = f"; {firm} with an adjusted p of at most {_LEVEL}, which allows for their number"
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
        abs(now - BAND) < abs(then - BAND) for then, now in zip(before, after, strict=True)
    )
    return (
        f"Of the outcomes, {between(before, share)} fell inside the 80 % band before correction "
        f"and {between(after, share)} after it. The correction came nearer to 80 % in {nearer} of "
        f"{counted(len(judged), 'case')}."
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
    said = (
        f"Of {counted(len(compared), 'arm')} traded beside a baseline, {or_none(len(better))} "
        f"earned more than it{_named(better)}, {or_none(len(worse))} earned less{_named(worse)} "
        f"and {or_none(alike)} cannot be told from it." + unbounded(len(compared) - len(judged))
    )
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


def of_trials(trials: Trials) -> str:
    tried = counted(trials.so_far, "configuration")
    said = f"{tried} {'has' if trials.so_far == 1 else 'have'} been tried so far in this folder"
    p = trials.superior_p_value
    if p is None or not known(p):
        return f"{said}. Whether the best of them beats the base rate was not tested."
    of = "all" if trials.tested == trials.so_far else f"{trials.tested:,}"
    asked = f", {of} of them on these queries" if trials.so_far > 1 else ""
    beaten = "is hard to explain by" if p <= _LEVEL else "can be explained by"
    return (
        f"{said}{asked}. That the best of those did as well as it did beside the base rate {beaten}"
        f" chance, with so many tries (Hansen's test, p {p_value(p)})."
    )
