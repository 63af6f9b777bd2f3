"""An evaluation from data to results: walks, scores, controls, decisions, and what they mean.

1. `walk`      the neighbours of every query, under the as-of rule
2. `skills`    forecasts against base rates; `probabilities`, `slices` of the same
3. `controls`  the same on data of which the answer is known
4. `arms`      decisions made from it, traded
5. the verdict, in words
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from llm_trader.evaluation.forecasts import ForecastRule
from llm_trader.evaluation.probabilities import barriers, rises
from llm_trader.evaluation.results import Direction, Probability, Skill, Slice
from llm_trader.evaluation.skills import (
    Scored,
    direction_of,
    skills_of,
)
from llm_trader.evaluation.slices import slices_of
from llm_trader.evaluation.walk import Search
from llm_trader.timeframe import MINUTE_MS, Millis

DEFAULT_RULES: Final = {
    "15m": ForecastRule(rescale=0.75, neighbour_share=0.5),
    "1h": ForecastRule(rescale=0.75, neighbour_share=0.5),
    "4h": ForecastRule(rescale=0.75, neighbour_share=0.5),
    "24h": ForecastRule(rescale=0.25, neighbour_share=0.5),
}


class StudyPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for and how often chance is asked."""

    step_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 15
    search: Search = Search()
    rules: dict[str, ForecastRule] = msgspec.field(default_factory=lambda: dict(DEFAULT_RULES))
    judged: tuple[str, ...] = ("1h", "4h")
    reps: Annotated[int, msgspec.Meta(ge=100, le=100_000)] = 1000
    seed: int = 0

    @property
    def step_ms(self) -> Millis:
        return self.step_minutes * MINUTE_MS


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one symbol."""

    skills: list[Skill]
    directions: list[Direction]
    probabilities: list[Probability]
    slices: list[Slice]


def look_at(scored: list[Scored], plan: StudyPlan) -> Findings:
    """Everything that is said of one symbol's forecasts."""
    chance = {"reps": plan.reps, "seed": plan.seed}
    judged = [of for of in scored if of.horizon in plan.judged]
    longest = plan.rules.get("24h", ForecastRule())
    return Findings(
        skills=[skill for of in scored for skill in skills_of(of, **chance)],
        directions=[direction_of(of, **chance) for of in scored],
        probabilities=[rises(of, **chance) for of in scored]
        + barriers(scored[0].walk, longest, **chance),
        slices=[one for of in judged for one in slices_of(of, **chance)],
    )
