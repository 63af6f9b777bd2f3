"""Whether and when a call is sent again. Nothing here reads a clock: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_trader.client.errors import Overloaded, RateLimited, ServerFault, retry_after_s
from llm_trader.errors import LlmTraderError
from llm_trader.rpc.conversation import ConnectionLostError

_FIRST_WAIT_S: Final = 0.05
_LONGEST_WAIT_S: Final = 2.0


@dataclass(frozen=True)
class RetryPolicy:
    """`attempts` in all; 1 never sends a call again."""

    attempts: int = 5

    def wait_s(
        self, error: LlmTraderError, attempt: int, left_s: float, *, repeatable: bool
    ) -> float | None:
        """How long to wait before the next attempt after the `attempt`th; None: give up.

        A server that refuses a call as limited, overloaded or stopping has not begun it, so any
        call may be sent again. A lost connection says nothing about that, so only a call that
        changes nothing, a `repeatable` one, is. A wait that the time left does not suffice for is
        none.
        """
        if attempt >= self.attempts or not _may_be_sent_again(error, repeatable):
            return None
        own_s = min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S)
        asked_s = None
        if isinstance(error, RateLimited | Overloaded):
            asked_s = retry_after_s(error)
        wait_s = own_s if asked_s is None else asked_s
        return wait_s if wait_s < left_s else None


def _may_be_sent_again(error: LlmTraderError, repeatable: bool) -> bool:
    if isinstance(error, RateLimited | Overloaded):
        return True
    if isinstance(error, ServerFault):
        return error.message.startswith("draining")
    return repeatable and isinstance(error, ConnectionLostError)
