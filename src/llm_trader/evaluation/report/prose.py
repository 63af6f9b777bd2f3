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
from llm_trader.evaluation.results import Band, Command, Control, Metrics, Probe, Skill, Trials
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL
from llm_trader.evaluation.verdict import verdicts
from llm_trader.evaluation.verdict.trust import assess_trust
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
    word, judged, base = verdicts.headline(metrics)
    if word == "mixed":
        return _MIXED.format(base)
    better = word if word in ("better", "worse") else "better or worse"
    if metrics.command == "ab":
        return _OPENINGS[word] + _EARNED.format(judged, _MORE.get(better, "more or less"), base)
    similar = metrics.command != "compare" and judged != "random"
    neighbours = "similar past states" if similar else f"neighbours by “{judged}”"
    return _OPENINGS[word] + _FORECAST.format(neighbours, better)


def verdict(metrics: Metrics) -> str:
    """In a word; where nothing that is judged has an interval, "no evidence" would be a result."""
    word = verdicts.headline(metrics).verdict
    return metrics.verdict if word == "mixed" else word


def subject(metrics: Metrics) -> str:
    """What was done, and with which symbols."""
    judged, base = verdicts.compared_arms(metrics.arms)
    done: dict[Command, str] = {
        "evaluate": "evaluation of",
        "compare": "comparison of neighbours on",
        "ab": f"{judged} against {base} on",
        "calibrate": "calibration of",
    }
    return f"{done[metrics.command]} {listed(metrics.origin.symbols)}"


def readings(metrics: Metrics, variant: str) -> list[str]:
    """What was found, most important first, for the top of the report."""
    judged = summary.judged(metrics.skills, variant)
    of_forecasts = summary.of_judged(judged, variant)
    if metrics.command == "ab":
        return [
            *summary.of_pairs(metrics.arms, verdicts.compared_arms(metrics.arms)[0]),
            of_forecasts,
        ]
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
    trust = assess_trust(metrics)
    controls = [
        f"The {control.kind} control “{control.name}” failed on {control.symbol} at "
        f"{control.horizon}: {_failure(control)} (skill {skill(control.skill.value)})."
        for control in trust.failed_controls
    ]
    leaks = [
        f"The leak probe “{probe.name}” found a problem on {probe.symbol}: {probe.problem}"
        for probe in trust.leaks
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
    trust, gaps = assess_trust(metrics), []
    if "negative" in trust.missing_kinds:
        gaps.append("No negative control was run: nothing shows that it finds no skill in noise.")
    if "positive" in trust.missing_kinds:
        gaps.append("No positive control was run: nothing shows that it would find skill.")
    if idle := len(trust.idle_controls):
        gaps.append(
            f"{counted(idle, 'control')} had too little data to fail, so that nothing failed there "
            "says nothing."
        )
    if len(trust.unprobed_symbols) == len(metrics.origin.symbols):
        gaps.append("Nothing was probed for knowledge of the future.")
    elif trust.unprobed_symbols:
        symbols = listed(trust.unprobed_symbols)
        gaps.append(f"Nothing was probed for knowledge of the future on {symbols}.")
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
    firm = sum(
        one.p_adjusted is not None and one.p_adjusted <= SIGNIFICANCE_LEVEL for one in judged
    )
    level = SIGNIFICANCE_LEVEL
    p = f"; {firm} with an adjusted p of at most {level}, which allows for their number"
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
    beaten = "is hard to explain by" if p <= SIGNIFICANCE_LEVEL else "can be explained by"
    return (
        f"{said}{asked}. That the best of those did as well as it did beside the base rate {beaten}"
        f" chance, with so many tries (Hansen's test, p {p_value(p)})."
    )
