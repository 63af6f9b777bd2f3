"""A decision for one symbol: long, short, or hold with a reason."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from llm_trader.errors import InvalidInputError

Action = Literal["LONG", "SHORT", "HOLD"]
HoldReason = Literal["model", "error", "guard"]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action with its reasons; raises `InvalidInputError` if they contradict each other.

    `confidence` is 0 to 1, or `None` if the decider does not measure it. Only a HOLD has a
    `hold_reason`: the `model` chose it, an `error` prevented a decision, or a `guard` refused one
    because of risk or stale or missing data.
    """

    action: Action
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None
    reasoning: str
    hold_reason: HoldReason | None = None

    def __post_init__(self) -> None:
        if self.action not in ("LONG", "SHORT", "HOLD"):
            raise InvalidInputError(f"action {self.action!r} is not LONG, SHORT or HOLD")
        if self.hold_reason not in (None, "model", "error", "guard"):
            raise InvalidInputError(f"hold_reason {self.hold_reason!r} is unknown")
        if (self.action == "HOLD") != (self.hold_reason is not None):
            raise InvalidInputError("a HOLD, and no other action, needs a hold_reason")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise InvalidInputError(f"confidence {self.confidence} is not between 0 and 1")

    @classmethod
    def hold(cls, reason: HoldReason, reasoning: str) -> Decision:
        """A HOLD without a confidence."""
        return cls("HOLD", None, reasoning, reason)
