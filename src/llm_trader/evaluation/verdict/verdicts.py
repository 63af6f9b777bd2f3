"""From numbers to verdicts, corrected for the number of comparisons, and whether to trust them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from msgspec.structs import replace

from llm_trader.evaluation.results import (
    VERDICT_REFERENCE,
    Arm,
    Control,
    Kind,
    Metrics,
    Probe,
    Skill,
)
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL, Verdict, verdict
from llm_trader.evaluation.verdict.multiple_testing import holm

HeadlineVerdict = Literal["better", "worse", "no evidence", "mixed", "too little data"]


def adjusted(skills: Sequence[Skill]) -> list[Skill]:
    """Adjust p-values by Holm over all skills against the same reference, and verdicts with them.

    "better" and "worse" need an interval without 0 and an adjusted p of at most 5 %.
    """
    families: dict[str, dict[str, float]] = {}
    for row, skill in enumerate(skills):
        if skill.p_value is not None:
            families.setdefault(skill.reference, {})[str(row)] = skill.p_value
    p_adjusted = {row: p for family in families.values() for row, p in holm(family).items()}
    judged = []
    for row, skill in enumerate(skills):
        p = p_adjusted.get(str(row))
        significant = p is not None and p <= SIGNIFICANCE_LEVEL
        decision = verdict(skill.skill) if significant else "no evidence"
        judged.append(replace(skill, p_adjusted=p, verdict=decision))
    return judged


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Better where some are better and none is worse, and the other way round."""
    decided = set(verdicts) - {"no evidence"}
    return decided.pop() if len(decided) == 1 else "no evidence"


def forecast_verdict(skills: Sequence[Skill], variant: str) -> Verdict:
    """The verdict on a variant over all symbols and horizons."""
    return overall(skill.verdict for skill in verdict_skills(skills, variant))


def arms_verdict(arms: Sequence[Arm], name: str) -> Verdict:
    """The verdict on one way to decide over all symbols, against the baseline."""
    return overall(arm.verdict for arm in arms if arm.name == name and arm.verdict)


def verdict_skills(skills: Sequence[Skill], variant: str) -> list[Skill]:
    """The skills that the verdict on a variant is made of."""
    return [
        skill
        for skill in skills
        if skill.reference == VERDICT_REFERENCE and skill.variant == variant
    ]


class Headline(NamedTuple):
    """The verdict on a variant or an arm, and what it was compared with.

    "mixed" is better in some cases and worse in others, "too little data" that no case has an
    interval.
    """

    verdict: HeadlineVerdict
    subject: str
    reference: str


def headline(metrics: Metrics) -> Headline:
    if metrics.command == "ab":
        subject, reference = compared_arms(metrics.arms)
        # Further arms, such as a model's with masked prompts, are controls.
        judged = [arm for arm in metrics.arms if arm.name == subject]
        pairs = [(arm.difference, arm.verdict) for arm in judged if arm.difference]
    else:
        subject, reference = verdict_variant(metrics), "a volatility model alone"
        pairs = [(s.skill, s.verdict) for s in verdict_skills(metrics.skills, subject)]
    decided = {verdict for interval, verdict in pairs if interval.low is not None}
    word: HeadlineVerdict = metrics.verdict
    if word == "no evidence" and not decided:
        word = "too little data"
    elif word == "no evidence" and {"better", "worse"} <= decided:
        word = "mixed"
    return Headline(word, subject, reference)


def verdict_variant(metrics: Metrics) -> str:
    """The variant that the verdict is about: the plan's own vector, or the last one compared."""
    planned = metrics.origin.plan.search.vector
    variants = [skill.variant for skill in metrics.skills]
    return variants[-1] if variants and planned not in variants else planned


def compared_arms(arms: Sequence[Arm]) -> tuple[str, str]:
    """The arm that the verdict is about, and its baseline."""
    subject = next((arm.name for arm in arms if arm.difference is not None), "the second arm")
    return subject, next((arm.name for arm in arms if arm.difference is None), "the first")


class Trust(NamedTuple):
    """What speaks against an evaluation. Idle controls and probes had too little data to fail."""

    failed_controls: list[Control]
    leaks: list[Probe]
    idle_controls: list[Control]
    idle_probes: list[Probe]
    missing_kinds: list[Kind]
    unprobed_symbols: list[str]

    @property
    def lost(self) -> bool:
        """Whether nothing in the evaluation counts, as a control failed or a probe found a leak."""
        return bool(self.failed_controls or self.leaks)


def assess_trust(metrics: Metrics) -> Trust:
    controls, probes = metrics.controls, metrics.probes
    kinds = {control.kind for control in controls}
    probed = {probe.symbol for probe in probes if probe.checked}
    expected_kinds: tuple[Kind, Kind] = ("negative", "positive")
    return Trust(
        failed_controls=[control for control in controls if not control.passed],
        leaks=[probe for probe in probes if probe.problem is not None],
        # Without an interval a negative control cannot fail.
        idle_controls=[c for c in controls if c.passed and c.wide.low is None],
        idle_probes=[probe for probe in probes if not probe.checked],
        missing_kinds=[kind for kind in expected_kinds if kind not in kinds],
        unprobed_symbols=[symbol for symbol in metrics.origin.symbols if symbol not in probed],
    )
