"""A language model as a decider.

1. `first_request`  the prompt of the state, and in the arm `rag` of the evidence
2. `ask`            budget, record and provider (`recorded_calls`); the reply becomes a decision,
                    and an unreadable one is shown to the model once
3. `add`            the decision is on record before it is used (`recorder`)

Whatever fails ends in a HOLD with the reason `error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from llm_trader.errors import LlmTraderError
from llm_trader.llm.decision import Case, Decision
from llm_trader.llm.prompt.render import TEMPLATE_VERSION, Arm, PromptOptions, render_prompt
from llm_trader.llm.prompt.retrieved import Retrieved
from llm_trader.llm.providers.protocol import LlmRequest, Message
from llm_trader.llm.record.call_rows import RecordedCall
from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.llm.recorded_calls import Calls, CallUsed
from llm_trader.llm.recorder import Circumstances, Recorder
from llm_trader.llm.reply.error import ReplyError
from llm_trader.llm.reply.reading import read_reply
from llm_trader.llm.reply.repair import repair_messages
from llm_trader.llm.reply.schema import DECISION_SCHEMA

_log = structlog.get_logger(__name__)


class MakeRequest(Protocol):
    """Turns a prompt into a request of a model, with the parameters that the model takes."""

    def __call__(
        self, system: str, messages: tuple[Message, ...], schema: dict[str, Any], sample: int
    ) -> LlmRequest: ...


class Outcome(NamedTuple):
    """What came of asking: the decision, and the calls that it took."""

    decision: Decision
    used: list[CallUsed]


class FirstRequest(NamedTuple):
    request: LlmRequest
    has_evidence: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmDecider:
    """Any number of decisions may be made at once; `calls` makes them wait for their turn."""

    calls: Calls
    recorder: Recorder
    make_request: MakeRequest
    model: str
    arm: Arm = "rag"
    options: PromptOptions = field(default_factory=PromptOptions)
    baseline_if_retrieval_fails: bool = False

    @property
    def name(self) -> str:
        return f"{self.calls.provider}/{self.model}"

    async def decide(self, case: Case) -> Decision:
        try:
            return (await self.decide_recorded(case)).decision
        except LlmTraderError as error:
            _log.error("decision_not_recorded", symbol=case.symbol, error=error.message)
            return Decision.hold("error", f"the decision cannot be recorded: {error.message}")

    async def decide_recorded(
        self,
        case: Case,
        *,
        key: str | None = None,
        labels: Mapping[str, str] | None = None,
        sample: int = 0,
        arm: Arm | None = None,
        mask: bool | None = None,
        retrieval_error: str | None = None,
        guard: str | None = None,
    ) -> RecordedDecision:
        """Decide, and record it; raises `StoreError` if the record cannot be written.

        `arm` and `mask` are the decider's own unless they are given. A decision of the same `key`
        takes the place of the former one. A case without an answer needs the arm `baseline`. With
        a `guard`, the reason why nobody must trade now, no model is asked.
        """
        wanted, options = arm or self.arm, self._options(mask)
        used_arm = self._usable_arm(wanted, case)
        if guard is not None:
            outcome, has_evidence = Outcome(Decision.hold("guard", guard), []), False
        elif used_arm is None:
            outcome, has_evidence = Outcome(without_evidence(retrieval_error), []), False
        else:
            first = first_request(case, used_arm, options, self.make_request, sample)
            has_evidence = first.has_evidence
            outcome = await ask(self.calls, case.symbol, first.request)
        return self.recorder.add(
            case,
            outcome.decision,
            Circumstances(
                decider=self.name,
                arm=wanted,
                arm_used=used_arm,
                has_evidence=has_evidence,
                provider=self.calls.provider,
                model=self.model,
                key=key,
                labels=labels or {},
                retrieval_error=retrieval_error,
                settings={"prompt": msgspec.to_builtins(options), "sample": sample},
                versions={"template": TEMPLATE_VERSION},
            ),
            outcome.used,
        )

    def request(
        self, case: Case, *, arm: Arm | None = None, mask: bool | None = None, sample: int = 0
    ) -> LlmRequest:
        """The first request of a decision, without asking anybody."""
        options = self._options(mask)
        return first_request(case, arm or self.arm, options, self.make_request, sample).request

    def _options(self, mask: bool | None) -> PromptOptions:
        if mask is None:
            return self.options
        return msgspec.structs.replace(self.options, masked=mask)

    def _usable_arm(self, arm: Arm, case: Case) -> Arm | None:
        if arm == "baseline" or case.answer is not None:
            return arm
        return "baseline" if self.baseline_if_retrieval_fails else None


def first_request(
    case: Case, arm: Arm, options: PromptOptions, make_request: MakeRequest, sample: int = 0
) -> FirstRequest:
    retrieved = None if case.answer is None else Retrieved.of_answer(case.answer)
    prompt = render_prompt(arm, case.state.snapshot(0), retrieved, options)
    request = make_request(prompt.system, prompt.messages, DECISION_SCHEMA, sample)
    return FirstRequest(request, prompt.has_evidence)


async def ask(calls: Calls, symbol: str, request: LlmRequest) -> Outcome:
    """Asks once, and where the reply cannot be used, once more."""
    used: list[CallUsed] = []
    while True:
        one = await calls.complete(request, symbol=symbol)
        used.append(one)
        reply = one.call.reply
        if reply is None:
            return Outcome(Decision.hold("error", _no_reply(one.call)), used)
        try:
            return Outcome(read_reply(reply.text, reply.finish), used)
        except ReplyError as error:
            if len(used) > 1 or not error.repairable:
                return Outcome(Decision.hold("error", _unreadable(error, len(used))), used)
            messages = repair_messages(request.messages, reply.text, error)
            request = msgspec.structs.replace(request, messages=messages)


def without_evidence(reason: str | None) -> Decision:
    return Decision.hold(
        "error",
        f"there is no evidence to decide on: {reason or 'the case has no answer of retrieval'}; "
        "the baseline would decide without it (--arm baseline, or "
        "decisions.baseline_if_retrieval_fails)",
    )


def _no_reply(call: RecordedCall) -> str:
    if call.failure is None:
        return "the model was asked, but no end of that call is on record"
    return f"the model gave no reply ({call.failure.kind}): {call.failure.message}"


def _unreadable(error: ReplyError, asked: int) -> str:
    again = ", also when it was shown its own reply" if asked > 1 else ""
    return f"the model's reply cannot be used{again} ({error.kind}): {error.message}"
