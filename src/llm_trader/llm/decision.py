"""A decision for one symbol: its input, who makes it, and what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from llm_trader.arrays import none_for_nan
from llm_trader.errors import InvalidInputError
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Millis

Action = Literal["LONG", "SHORT", "HOLD"]
HoldReason = Literal["model", "error", "guard"]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action with its reasons; raises `InvalidInputError` if they contradict each other.

    `confidence` is 0 to 1, or `None` if the decider does not measure it. Only a HOLD has a
    `hold_reason`: the `model` chose it, an `error` prevented a decision, or a `guard` refused one
    because of risk or stale or missing data.

    `stop_pct` (below 0) and `target_pct` (above 0) are % of the entry price in the direction of the
    position, so the same for LONG and SHORT; `size_pct` is % of the account's equity. `None` leaves
    each to whoever executes the decision. A HOLD has none of them.
    """

    action: Annotated[Action, Meta(description="LONG, SHORT or HOLD.")]
    confidence: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="How sure the decider was, 0 to 1; null where it does not say."),
    ]
    reasoning: Annotated[str, Meta(description="Why, in the decider's words.")]
    hold_reason: Annotated[
        HoldReason | None,
        Meta(
            description="Of a HOLD: the `model` chose it, an `error` or a `guard` left no choice."
        ),
    ] = None
    stop_pct: Annotated[
        float | None, Meta(description="Stop, % of the entry price in the position's direction.")
    ] = None
    target_pct: Annotated[
        float | None, Meta(description="Target, % of the entry price in the position's direction.")
    ] = None
    size_pct: Annotated[float | None, Meta(description="Size, % of the account's equity.")] = None

    # msgspec checks values when it decodes them, but not those that a decider passes in.
    def __post_init__(self) -> None:
        if self.action not in ("LONG", "SHORT", "HOLD"):
            raise InvalidInputError(f"action {self.action!r} is not LONG, SHORT or HOLD")
        if self.hold_reason not in (None, "model", "error", "guard"):
            raise InvalidInputError(f"hold_reason {self.hold_reason!r} is unknown")
        if (self.action == "HOLD") != (self.hold_reason is not None):
            raise InvalidInputError("a HOLD, and no other action, needs a hold_reason")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise InvalidInputError(f"confidence {self.confidence} is not between 0 and 1")
        if self.stop_pct is not None and not -100 < self.stop_pct < 0:
            raise InvalidInputError(f"stop_pct {self.stop_pct} is not between -100 and 0")
        if self.target_pct is not None and not 0 < self.target_pct < math.inf:
            raise InvalidInputError(f"target_pct {self.target_pct} is not above 0")
        if self.size_pct is not None and not 0 < self.size_pct <= 100:
            raise InvalidInputError(f"size_pct {self.size_pct} is not above 0 and at most 100")
        if self.action == "HOLD" and (self.stop_pct, self.target_pct, self.size_pct) != (None,) * 3:
            raise InvalidInputError("a HOLD has no stop, target or size")

    @classmethod
    def hold(cls, reason: HoldReason, reasoning: str) -> Decision:
        """A HOLD without a confidence."""
        return cls("HOLD", None, reasoning, reason)


class Outlook(msgspec.Struct, frozen=True):
    """The outcomes of a state's neighbours over one horizon.

    `mean_pct` and `median_pct` are % changes; `p_up` is the share of changes above 0. Outcomes
    that overlap in time count as fewer `effective_episodes`.
    """

    mean_pct: float
    median_pct: float
    p_up: float
    episodes: int
    effective_episodes: float
    similarity_mean: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One state to decide on, with its evidence.

    `state` is a table of one row; `state.snapshot(0)` is the record with its series. `outlooks`
    maps horizons to outlooks. It is empty if there are no neighbours, and `None` if the decider
    works without retrieval. `answer` also holds the matches.
    """

    state: SnapshotTable
    outlooks: Mapping[str, Outlook] | None = None
    answer: Answer | None = None

    def __post_init__(self) -> None:
        if len(self.state) != 1:
            raise InvalidInputError(f"a case is one state, this table has {len(self.state)} rows")

    @classmethod
    def of_answer(cls, state: SnapshotTable, answer: Answer) -> Case:
        """A case with an outlook for each horizon of the answer's evidence."""
        evidence = answer.evidence
        outlooks = {
            horizon: Outlook(
                *(statistics.mean.value, statistics.p50.value, statistics.p_up.value),
                *(evidence.episodes, statistics.effective_episodes, evidence.similarity_mean),
            )
            for horizon, statistics in evidence.horizons.items()
        }
        return cls(state, outlooks, answer)

    @property
    def symbol(self) -> str:
        return self.state.symbol

    @property
    def as_of_ms(self) -> Millis:
        return int(self.state.as_of_ms[0])

    def value(self, field: str) -> float | None:
        """A scalar field of the state, `None` if it is unknown."""
        return none_for_nan(float(self.state.column(field)[0]))


class Decider(Protocol):
    """Makes a decision for a case; `name` identifies it in logs and reports."""

    @property
    def name(self) -> str: ...

    async def decide(self, case: Case) -> Decision: ...
