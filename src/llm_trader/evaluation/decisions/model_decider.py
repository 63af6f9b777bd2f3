"""A language model as the decider of a study: every decision under a key of its own.

A study that was interrupted is begun again with the same keys and requests; what the record holds
of them is used again at no cost.
"""

from __future__ import annotations

from typing import Final, Literal

from llm_trader.evaluation.decisions.deciding import Ask, Made
from llm_trader.llm.llm_decider import LlmDecider
from llm_trader.llm.providers.protocol import LlmRequest
from llm_trader.llm.recorded_calls import RecordedCalls

# Nothing waits for them.
_REPLAYED_AT_ONCE: Final = 1

StudyName = Literal["ab", "reads"]


class ModelDecider:
    """`study` is a label of its decisions in the record, and a part of their keys."""

    def __init__(self, decider: LlmDecider, study: StudyName) -> None:
        self._decider = decider
        self._study = study

    @property
    def name(self) -> str:
        return self._decider.name

    @property
    def at_once(self) -> int:
        """As many as can be under way: a further one would be begun after an interruption."""
        calls = self._decider.calls
        return calls.most_at_once if isinstance(calls, RecordedCalls) else _REPLAYED_AT_ONCE

    def request(self, ask: Ask) -> LlmRequest:
        """What would be asked, without asking it."""
        return self._decider.request(ask.case, arm=ask.arm, mask=ask.masked, sample=ask.sample)

    async def make(self, ask: Ask) -> Made:
        case, variant = ask.case, f"{ask.variant} masked" if ask.masked else ask.variant
        parts = (self._study, self.name, case.symbol, case.as_of_ms, ask.arm, variant, ask.sample)
        recorded = await self._decider.decide_recorded(
            case,
            key="/".join(map(str, parts)),
            labels={"study": self._study, "variant": variant},
            sample=ask.sample,
            arm=ask.arm,
            mask=ask.masked,
            retrieval_error=ask.retrieval_error,
        )
        costs = recorded.costs
        return Made(
            recorded.decision,
            costs.cost_usd,
            costs.paid_usd,
            costs.input_tokens,
            costs.output_tokens,
        )
