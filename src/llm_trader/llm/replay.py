"""Makes a recorded decision again, from the record alone, and says what differs.

The prompt is rendered anew from the recorded state and answer. If it is the recorded one, the
recorded replies are read again, so that nothing but this program's code can make a difference. If
it is another one, no reply to it is on record: then the recorded replies are read again all the
same, and the prompts are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import unified_diff
from functools import partial
from itertools import chain
from typing import Any

import msgspec

from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decision import Case, Decision
from llm_trader.llm.llm_decider import ask, first_request, without_evidence
from llm_trader.llm.prompt.render import PromptOptions
from llm_trader.llm.providers.protocol import LlmRequest, Message
from llm_trader.llm.record.call_rows import RecordedCall
from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.llm.replayed_calls import ReplayedCalls
from llm_trader.llm.reply.error import ReplyError
from llm_trader.llm.reply.reading import read_reply
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Timeframe

AGGREGATOR = Aggregator().name


class ValueDifference(msgspec.Struct, frozen=True):
    """A version or a setting that is another one now; None is unknown."""

    name: str
    recorded: str | None
    now: str | None


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """`is_same` says that the decision is the recorded one, byte for byte.

    `prompt_diff` are the lines in which the prompt of now differs from the recorded one, none
    where it is the same. `differences` may explain a difference, or not matter.
    """

    id: int
    is_same: bool
    recorded: Decision
    replayed: Decision
    calls: int
    prompt_is_same: bool
    prompt_diff: list[str]
    differences: list[ValueDifference]
    note: str


async def replay_decision(
    record: DecisionRecord, recorded: RecordedDecision, versions_now: Mapping[str, str]
) -> Replay:
    """`versions_now` are compared with those of the record, as far as both name them; `settings`
    is the digest of all settings.
    """
    calls = [record.calls.get(call_id) for call_id in recorded.calls]
    is_same_prompt, diff = True, list[str]()
    if recorded.decision.hold_reason == "guard":
        replayed, note = recorded.decision, "A guard decided before anybody was asked"
    elif recorded.decider == AGGREGATOR:
        replayed, note = await Aggregator().decide(case_of(recorded)), "Decided again by rule"
    elif not calls:
        replayed, note = _without_call(recorded), "No model was asked"
    else:
        request = _request_now(recorded, calls[0].request)
        is_same_prompt = request == calls[0].request
        if is_same_prompt:
            replayed = await _ask_again(record, recorded, request)
            note = "The recorded replies were read again"
        else:
            diff = _prompt_diff(calls[0].request, request)
            replayed = _read_again(calls, recorded.decision)
            note = "The prompt is another one now; the recorded replies were read again"
    return Replay(
        id=recorded.id,
        is_same=msgspec.json.encode(replayed) == msgspec.json.encode(recorded.decision),
        recorded=recorded.decision,
        replayed=replayed,
        calls=len(calls),
        prompt_is_same=is_same_prompt,
        prompt_diff=diff,
        differences=_differences(
            recorded.versions | {"settings": recorded.settings_digest}, versions_now
        ),
        note=note,
    )


def case_of(recorded: RecordedDecision) -> Case:
    """The state and the answer that a decision was made of."""
    state = SnapshotTable.of_snapshot(recorded.snapshot, Timeframe.parse(recorded.intraday))
    return Case(state) if recorded.answer is None else Case.of_answer(state, recorded.answer)


def _without_call(recorded: RecordedDecision) -> Decision:
    if recorded.arm_used == "rag" and recorded.answer is None:
        return without_evidence(recorded.retrieval_error)
    return recorded.decision


def _request_now(recorded: RecordedDecision, request: LlmRequest) -> LlmRequest:
    """What would be asked now, of the same model with the same parameters."""

    make_request = partial(request_like, request)
    options = msgspec.convert(recorded.settings.get("prompt", {}), PromptOptions)
    case, arm = case_of(recorded), recorded.arm_used
    return first_request(case, arm, options, make_request, request.sample).request


def request_like(
    recorded: LlmRequest,
    system: str,
    messages: tuple[Message, ...],
    schema: dict[str, Any],
    sample: int,
) -> LlmRequest:
    """A request of the same model with the same parameters as a recorded one."""
    return msgspec.structs.replace(
        recorded,
        system=system,
        messages=messages,
        # A model without structured output is asked without a schema.
        schema=None if recorded.schema is None else schema,
        sample=sample,
    )


async def _ask_again(
    record: DecisionRecord, recorded: RecordedDecision, request: LlmRequest
) -> Decision:
    calls = ReplayedCalls(record.calls, lambda: recorded.created_at_ms, recorded.calls)
    return (await ask(calls, recorded.symbol, request)).decision


def _read_again(calls: Sequence[RecordedCall], decision: Decision) -> Decision:
    """The last reply by today's rules; the recorded decision where there was none."""
    reply = calls[-1].reply
    if reply is None:
        return decision
    try:
        return read_reply(reply.text, reply.finish)
    except ReplyError as error:
        return Decision.hold("error", error.message)


def _prompt_diff(recorded: LlmRequest, now: LlmRequest) -> list[str]:
    texts = ([*_lines(recorded)], [*_lines(now)])
    return [*unified_diff(*texts, "recorded", "now", lineterm="", n=1)]


def _lines(request: LlmRequest) -> chain[str]:
    schema = msgspec.json.format(msgspec.json.encode(request.schema)).decode()
    texts = [request.system, *(message.text for message in request.messages), schema]
    return chain.from_iterable(text.splitlines() for text in texts)


def _differences(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[ValueDifference]:
    return [
        ValueDifference(name, recorded.get(name), value)
        for name, value in now.items()
        if name in recorded and recorded[name] != value
    ]
