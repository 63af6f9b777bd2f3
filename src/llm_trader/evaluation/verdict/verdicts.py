"""From numbers to verdicts: corrected for how many were looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from llm_trader.evaluation.results import JUDGED, Arm, Skill
from llm_trader.evaluation.significance import Verdict, holm, verdict

LEVEL: Final = 0.05


def adjusted(skills: Sequence[Skill]) -> list[Skill]:
    """With p-values after Holm, over all skills against the same reference, and verdicts by them.

    A verdict but "no evidence" needs an interval without 0 and an adjusted p of at most 5 %.
    """
    families: dict[str, dict[str, float]] = {}
    for row, one in enumerate(skills):
        if one.p_value is not None:
            families.setdefault(one.reference, {})[str(row)] = one.p_value
    p_adjusted = {row: p for family in families.values() for row, p in holm(family).items()}
    return [_judged(one, p_adjusted.get(str(row))) for row, one in enumerate(skills)]


def _judged(one: Skill, p: float | None) -> Skill:
    firm = p is not None and p <= LEVEL
    return replace(one, p_adjusted=p, verdict=verdict(one.skill) if firm else "no evidence")


def forecast_verdict(skills: Sequence[Skill], variant: str) -> Verdict:
    """Of all symbols and horizons against the base rate treated alike."""
    return overall(
        one.verdict for one in skills if one.reference == JUDGED and one.variant == variant
    )


def arms_verdict(arms: Sequence[Arm], name: str) -> Verdict:
    """Of one way to decide on all symbols, against the baseline."""
    return overall(one.verdict for one in arms if one.name == name and one.verdict)


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Better where some are better and none is worse, and the other way round."""
    found = set(verdicts) - {"no evidence"}
    return found.pop() if len(found) == 1 else "no evidence"
