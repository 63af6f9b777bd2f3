"""Why a reply cannot be used."""

from __future__ import annotations

from typing import Literal

from llm_trader.errors import LlmTraderError

ReplyFault = Literal["empty", "refused", "truncated", "unreadable", "ambiguous", "invalid"]


class ReplyError(LlmTraderError):
    """A reply that is no decision. Its message is written for the model that may repair it."""

    code = "reply"

    def __init__(self, kind: ReplyFault, message: str) -> None:
        super().__init__(message, kind=kind)
        self.kind: ReplyFault = kind

    @property
    def repairable(self) -> bool:
        """Whether the model may do better if asked again; one that declined will not."""
        return self.kind != "refused"
