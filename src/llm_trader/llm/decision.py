"""What to do with one symbol, and why a hold is a hold."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from llm_trader.errors import InvalidInputError

Action = Literal["LONG", "SHORT", "HOLD"]
HoldReason = Literal["model", "error", "guard"]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An action with its reasons; raises `InvalidInputError` where they contradict each other.

    `confidence` is 0 to 1, `None` where the decider has no measure of it. A HOLD says why:
    `model` chose it, `error` is a decision that could not be made, `guard` one that was not
    allowed, for risk or for stale or missing data. No other action has a `hold_reason`.
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
            raise InvalidInputError("a HOLD, and nothing else, says why it is one: `hold_reason`")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise InvalidInputError(f"confidence {self.confidence} is not between 0 and 1")

    @classmethod
    def hold(cls, why: HoldReason, reasoning: str) -> Decision:
        """A HOLD of a decider that does not say how sure it is."""
        return cls("HOLD", None, reasoning, why)
