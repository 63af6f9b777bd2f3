"""A decider without a model: it follows the neighbours' outcomes by fixed thresholds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decision import Case, Decision, Outlook
from llm_trader.timeframe import HORIZONS

_BP_PER_PCT: Final = 100


class AggregatorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The thresholds of a LONG or a SHORT; raises `InvalidInputError` for values out of range.

    The default `least_mean_bp` covers the cost of a position in a simulation, 13 bp for both
    sides, and twice the standard error of the mean of 50 outcomes over 4h, some 14 bp. A
    `least_similarity` of `None` accepts any similarity.
    """

    horizon: str = "4h"
    least_mean_bp: Annotated[float, msgspec.Meta(ge=0)] = 40.0
    least_similarity: Annotated[float, msgspec.Meta(ge=-1, le=1)] | None = 0.7
    least_effective_episodes: Annotated[float, msgspec.Meta(ge=0)] = 10.0

    # msgspec checks bounds when it decodes a plan, but not those of a config made in code.
    def __post_init__(self) -> None:
        if self.horizon not in HORIZONS:
            raise InvalidInputError(f"horizon {self.horizon!r} is not one of {', '.join(HORIZONS)}")
        if not (self.least_mean_bp >= 0 and self.least_effective_episodes >= 0):
            raise InvalidInputError("least_mean_bp and least_effective_episodes are at least 0")
        if self.least_similarity is not None and not -1 <= self.least_similarity <= 1:
            raise InvalidInputError("least_similarity is not between -1 and 1")


def aggregate(outlook: Outlook | None, config: AggregatorConfig) -> Decision:
    """LONG if the mean reaches the threshold and the median is not below 0; SHORT is its mirror.

    Everything else is a HOLD: no neighbours (`None`), too few or too dissimilar ones, or no clear
    side. Confidence is the share of neighbours that moved to the chosen side.
    """
    if outlook is None:
        return Decision.hold("model", f"no neighbour has a known outcome over {config.horizon}")
    if doubt := _doubt(outlook, config):
        return Decision.hold("model", doubt)
    mean_bp = outlook.mean_pct * _BP_PER_PCT
    summary = (
        f"{outlook.effective_episodes:.1f} effective episodes moved {mean_bp:+.1f} bp in the mean "
        f"and {outlook.median_pct * _BP_PER_PCT:+.1f} bp in the median over {config.horizon}"
    )
    # A threshold of 0 and a mean of 0 would satisfy both sides.
    if mean_bp >= config.least_mean_bp and mean_bp > 0 and outlook.median_pct >= 0:
        return Decision("LONG", outlook.p_up, summary)
    if -mean_bp >= config.least_mean_bp and mean_bp < 0 and outlook.median_pct <= 0:
        return Decision("SHORT", 1 - outlook.p_up, summary)
    requirement = f"a side needs {config.least_mean_bp:g} bp and a median that agrees"
    return Decision.hold("model", f"{summary}; {requirement}")


def _doubt(outlook: Outlook, config: AggregatorConfig) -> str | None:
    """The reason why these neighbours cannot support a side, whatever their outcomes."""
    # `not >=` instead of `<`, so that NaN fails too.
    if not outlook.effective_episodes >= config.least_effective_episodes:
        count, needed = outlook.effective_episodes, config.least_effective_episodes
        return f"only {count:.1f} effective episodes, {needed:g} are needed"
    similarity, required = outlook.similarity_mean, config.least_similarity
    if required is None:
        return None
    if similarity is None:
        return "the similarity of the neighbours is unknown"
    if not similarity >= required:
        return f"the mean similarity is {similarity:.2f}, {required:g} is needed"
    return None


@dataclass(frozen=True, slots=True)
class Aggregator:
    """`aggregate` as a decider. A case without evidence leads to a HOLD with the reason `error`."""

    config: AggregatorConfig = field(default_factory=AggregatorConfig)
    name: str = "aggregator"

    async def decide(self, case: Case) -> Decision:
        if case.outlooks is None:
            return Decision.hold("error", "the case has no evidence of retrieval")
        return aggregate(case.outlooks.get(self.config.horizon), self.config)
