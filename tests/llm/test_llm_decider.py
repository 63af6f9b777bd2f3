from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from time import process_time
from typing import Any

import msgspec
import pytest

from llm_trader.app.llm_deciders import DeciderChoice
from llm_trader.errors import ConfigurationError
from llm_trader.llm.decision import Case, Decision
from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, ProviderError, TokenUsage
from llm_trader.llm.record.call_rows import RecordedCall
from llm_trader.llm.record.decisions import DecisionFilter, RecordedDecision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.llm.record.requests import request_hash
from llm_trader.llm.recorded_calls import RecordedCalls
from tests.cli.corridor import until
from tests.llm.decider_at_stub import NOW_MS, REPLY, TODAY, decider_at
from tests.llm.stub.faults import Body, Cut, Drip, Drop, Event, Hang, Late, Status
from tests.llm.stub.replies import StubReply
from tests.llm.stub.server import TEST_KEY, StubServer


@pytest.fixture
def record(tmp_path: Path) -> Iterator[DecisionRecord]:
    with DecisionRecord.open(tmp_path / "decisions", secrets=[TEST_KEY]) as opened:
        yield opened


def without_answer(case: Case) -> Case:
    return Case(case.state)


def calls_of(record: DecisionRecord, decision: RecordedDecision) -> list[RecordedCall]:
    return [record.calls.get(call) for call in decision.calls]


async def test_a_decision_is_on_record_with_all_that_it_was_made_of(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    stub.decide = lambda request: REPLY
    async with decider_at(stub, record) as decider:
        made = await decider.decide_recorded(corridor_case, labels={"study": "one"})
        request = decider.request(corridor_case)
    assert made == record.decisions.get(made.id)
    assert made.decision == Decision("LONG", 0.7, "It rose.", None, -1.5, 3.0)
    assert made.snapshot == corridor_case.state.snapshot(0)
    assert made.answer == corridor_case.answer
    assert made.match_ids == [match.id for match in made.answer.matches]
    assert (made.symbol, made.as_of_ms) == (corridor_case.symbol, corridor_case.as_of_ms)
    assert (made.origin, made.labels, made.arm_used) == ("test", {"study": "one"}, "rag")
    assert {"program", "code", "template", "state_space", "sdk", "model_replied"} <= {
        *made.versions
    }
    (call,) = calls_of(record, made)
    assert call.request == request
    assert call.request_hash == request_hash(request)
    assert call.reply is not None
    assert call.reply.text == REPLY
    assert made.costs.paid_usd == made.costs.cost_usd == call.cost_usd
    assert record.calls.spent_usd(TODAY) == Decimal(str(call.cost_usd))
    assert made.costs.input_tokens == call.reply.usage.input_tokens > 500


async def test_an_unreadable_reply_is_shown_to_the_model_once(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    replies = ["LONG or SHORT, who knows?", REPLY]
    stub.decide = lambda request: replies[len(request.messages) // 2]
    async with decider_at(stub, record) as decider:
        made = await decider.decide_recorded(corridor_case)
    assert made.decision.action == "LONG"
    first, second = stub.requests
    assert second.messages[0] == first.messages[0]
    assert second.messages[1] == ("assistant", replies[0])
    assert "cannot be used" in second.messages[2][1]
    costs = [call.cost_usd for call in calls_of(record, made)]
    assert len(costs) == 2
    assert made.costs.cost_usd == pytest.approx(sum(costs))


@pytest.mark.parametrize(
    ("reply", "asked", "kind"),
    [
        ("LONG or SHORT, who knows?", 2, "ambiguous"),
        (StubReply("", reasoning_tokens=900), 2, "empty"),
        (StubReply('{"action": "LO', finish="truncated"), 2, "truncated"),
        (StubReply("I cannot help with that.", finish="refused"), 1, "refused"),
    ],
)
async def test_a_reply_that_stays_unusable_is_a_hold_because_of_an_error(
    stub: StubServer, record: DecisionRecord, corridor_case: Case, reply: Any, asked: int, kind: str
) -> None:
    stub.decide = lambda request: reply
    async with decider_at(stub, record) as decider:
        made = await decider.decide_recorded(corridor_case)
    assert made.decision.hold_reason == "error"
    assert f"({kind})" in made.decision.reasoning
    assert len(stub.requests) == len(made.calls) == asked
    assert made.costs.paid_usd > 0


FAULTS = {
    "429": ([Status(429, retry_after_s=0.01)] * 4, {"rate_limited"}),
    "500": ([Status(500, headers={"retry-after-ms": "5"})] * 4, {"overloaded"}),
    "529": ([Status(529, headers={"retry-after-ms": "5"})] * 4, {"overloaded"}),
    "dropped": ([Drop()] * 4, {"connection"}),
    "hanging": ([Hang()] * 4, {"timeout"}),
    "slow drip": ([Drip(0.1)] * 4, {"timeout"}),
    "late": ([Late(2)] * 4, {"timeout"}),
    "wrong type": ([Body(b"<html>busy</html>")] * 4, {"bad_reply", "connection"}),
    "partial stream": ([Cut(2)] * 4, {"bad_reply", "connection"}),
    "malformed event": ([Event(b"{nonsense")] * 4, {"bad_reply", "connection"}),
    "key refused": ([Status(401)], {"credentials"}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_ends_in_one_recorded_hold_within_the_deadline_and_the_right_budget(
    stub: StubServer, record: DecisionRecord, corridor_case: Case, fault: str
) -> None:
    script, kinds = FAULTS[fault]
    stub.script(*script)
    # On a busy machine even a connection takes a while; only silence needs short limits.
    deadline_s = 0.5 if kinds == {"timeout"} else 20.0
    limits = {"llm__timeout_s": 2 * deadline_s / 5, "llm__deadline_s": deadline_s}
    async with decider_at(stub, record, llm__daily_budget_usd=100.0, **limits) as decider:
        started = asyncio.get_running_loop().time()
        made = await decider.decide_recorded(corridor_case)
        assert asyncio.get_running_loop().time() - started < deadline_s + 2
    assert made.decision.hold_reason == "error"
    (call,) = calls_of(record, made)
    assert call.failure is not None
    assert call.state == "failed"
    assert call.failure.kind in kinds, call.failure
    assert record.decisions.count(DecisionFilter()) == 1
    # What may have been paid counts at its worst case, what was refused costs nothing.
    expected = call.failure.unanswered * call.reserved_usd / 4
    assert call.cost_usd == pytest.approx(expected, abs=1e-8)
    assert record.calls.spent_usd(TODAY) == pytest.approx(Decimal(expected), abs=Decimal("1e-8"))
    assert TEST_KEY not in msgspec.json.encode(call).decode()


async def test_what_does_not_fit_the_budget_is_not_asked(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    async with decider_at(stub, record, llm__daily_budget_usd=0.001) as decider:
        made = await decider.decide_recorded(corridor_case)
    assert made.decision.hold_reason == "error"
    assert "(budget)" in made.decision.reasoning
    assert "raise llm.daily_budget_usd or wait" in made.decision.reasoning
    assert stub.requests == []
    assert [call.state for call in calls_of(record, made)] == ["refused"]
    assert record.calls.spent_usd(TODAY) == 0


async def test_without_an_answer_of_retrieval_only_the_baseline_decides(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    stub.decide = lambda request: REPLY
    case = without_answer(corridor_case)
    async with decider_at(stub, record) as decider:
        held = await decider.decide_recorded(case, retrieval_error="the index is gone")
        baseline = await decider.decide_recorded(case, arm="baseline")
    assert held.decision.hold_reason == "error"
    assert "there is no evidence to decide on: the index is gone" in held.decision.reasoning
    assert (held.calls, held.arm, held.arm_used) == ([], "rag", "rag")
    assert baseline.decision.action == "LONG"
    assert len(stub.requests) == 1


async def test_a_failed_retrieval_uses_the_baseline_where_the_settings_say_so(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    stub.decide = lambda request: REPLY
    case = without_answer(corridor_case)
    async with decider_at(stub, record, decisions__baseline_if_retrieval_fails=True) as decider:
        made = await decider.decide_recorded(case, retrieval_error="the index is gone")
        assert decider.request(case, arm="baseline") == calls_of(record, made)[0].request
    assert made.decision.action == "LONG"
    assert (made.arm, made.arm_used, made.has_evidence) == ("rag", "baseline", False)
    assert made.retrieval_error == "the index is gone"


async def test_a_guard_holds_without_asking_anybody(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    async with decider_at(stub, record) as decider:
        made = await decider.decide_recorded(corridor_case, guard="the data are stale")
    assert made.decision == Decision.hold("guard", "the data are stale")
    assert (stub.requests, made.calls) == ([], [])


async def test_a_decision_of_the_same_key_takes_the_place_of_the_former_one(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    async with decider_at(stub, record) as decider:
        first = await decider.decide_recorded(corridor_case, key="study/1")
        again = await decider.decide_recorded(corridor_case, key="study/1")
        other = await decider.decide_recorded(corridor_case, key="study/2", sample=1)
    assert again.id == first.id != other.id
    assert (again.costs.paid_usd, again.costs.cost_usd) == (0, first.costs.cost_usd)
    assert record.decisions.count(DecisionFilter()) == 2
    assert record.decisions.find_key("study/1") == again
    # A second sample is the same prompt, asked again on purpose.
    assert len(stub.requests) == 2
    assert stub.requests[0].messages == stub.requests[1].messages


async def test_asking_again_pays_again_and_the_newer_reply_counts(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    stub.decide = lambda request: REPLY
    async with decider_at(stub, record) as decider:
        await decider.decide_recorded(corridor_case)
    stub.decide = lambda request: REPLY.replace("LONG", "SHORT")
    async with decider_at(stub, record, DeciderChoice(reuse=False)) as decider:
        assert (await decider.decide_recorded(corridor_case)).decision.action == "SHORT"
    async with decider_at(stub, record, DeciderChoice("replay")) as decider:
        replayed = await decider.decide_recorded(corridor_case)
    assert replayed.decision.action == "SHORT"
    assert (replayed.provider, replayed.costs.paid_usd) == ("replay", 0)
    assert len(stub.requests) == 2


async def test_a_replay_of_what_was_never_asked_says_so(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    with pytest.raises(ConfigurationError, match="nothing can be replayed"):
        async with decider_at(stub, record, DeciderChoice("replay")):
            pass
    async with decider_at(stub, record) as decider:
        await decider.decide_recorded(corridor_case, arm="baseline")
    async with decider_at(stub, record, DeciderChoice("replay")) as decider:
        made = await decider.decide_recorded(corridor_case)
    assert made.decision.hold_reason == "error"
    assert "(not_recorded): the record has no reply of anthropic/" in made.decision.reasoning
    assert made.calls == []


async def test_tasks_that_ask_the_same_at_once_pay_once(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    async with decider_at(stub, record) as decider:
        made = await asyncio.gather(*(decider.decide_recorded(corridor_case) for _ in range(20)))
    assert len(stub.requests) == 1
    assert len({one.decision for one in made}) == 1
    assert sum(one.costs.paid_usd > 0 for one in made) == 1


async def test_processes_that_ask_the_same_at_once_pay_once(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    stub.script(Late(0.3))
    with DecisionRecord.open(record.path.parent) as other:
        async with decider_at(stub, record) as first, decider_at(stub, other) as second:
            made = await asyncio.gather(
                first.decide_recorded(corridor_case), second.decide_recorded(corridor_case)
            )
    assert len(stub.requests) == 1
    assert made[0].decision == made[1].decision
    assert made[0].calls == made[1].calls
    assert sorted(one.costs.paid_usd > 0 for one in made) == [False, True]


async def test_who_waits_for_the_call_of_another_process_waits_until_the_deadline(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    with DecisionRecord.open(record.path.parent) as other:
        async with decider_at(stub, record, llm__deadline_s=0.3, llm__timeout_s=0.3) as decider:
            other.calls.begin(
                decider.request(corridor_case),
                symbol=corridor_case.symbol,
                started_at_ms=NOW_MS,
                reserved_usd=Decimal(1),
            )
            made = await decider.decide_recorded(corridor_case)
    assert made.decision.hold_reason == "error"
    assert "(under_way): another process is still making this call" in made.decision.reasoning
    assert stub.requests == []


class CountingProvider:
    """Answers at once, and knows how many calls were under way together."""

    name = "anthropic"

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0

    async def complete(self, request: LlmRequest, *, deadline_s: float) -> LlmReply:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        if request.sample % 10 == 0:
            raise ProviderError("busy", kind="overloaded", attempts=1, latency_ms=1.0)
        usage = TokenUsage(input_tokens=1000, output_tokens=100)
        return LlmReply(
            text=REPLY,
            finish="complete",
            usage=usage,
            model=request.model,
            response_id=None,
            sdk="test 1",
            attempts=1,
            latency_ms=1.0,
        )

    async def close(self) -> None: ...


async def decide_many(
    stub: StubServer, record: DecisionRecord, case: Case, count: int
) -> CountingProvider:
    provider = CountingProvider()
    # The reserved worst case of all at once would not fit, that of those under way does.
    async with decider_at(stub, record, llm__daily_budget_usd=15.0) as decider:
        assert isinstance(decider.calls, RecordedCalls)
        decider.calls.model = provider
        decider.calls.most_at_once = 8
        decider.calls.__post_init__()
        made = await asyncio.gather(
            *(decider.decide_recorded(case, sample=number) for number in range(count))
        )
    errors = [one for one in made if one.decision.hold_reason == "error"]
    assert len(errors) == count // 10
    assert all("(overloaded): busy" in one.decision.reasoning for one in errors)
    assert provider.calls == record.decisions.count(DecisionFilter()) == count
    assert sum(one.costs.paid_usd for one in made) == pytest.approx(
        float(record.calls.spent_usd(TODAY))
    )
    return provider


async def test_many_decisions_at_once_keep_to_the_slots_and_all_are_on_record(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    provider = await decide_many(stub, record, corridor_case, 30)
    assert provider.most == 8


@pytest.mark.soak
async def test_thousands_of_decisions_at_once_cost_milliseconds_each(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    started = process_time()
    await decide_many(stub, record, corridor_case, 3000)
    assert (process_time() - started) / 3000 < 0.005 * 2


async def test_a_mistake_of_this_program_is_a_hold_and_counts_at_its_worst_case(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    class BrokenProvider(CountingProvider):
        async def complete(self, request: LlmRequest, *, deadline_s: float) -> LlmReply:
            raise KeyError("choices")

    async with decider_at(stub, record) as decider:
        assert isinstance(decider.calls, RecordedCalls)
        decider.calls.model = BrokenProvider()
        made = await decider.decide_recorded(corridor_case)
    assert made.decision.hold_reason == "error"
    assert "(internal): KeyError: 'choices'" in made.decision.reasoning
    (call,) = calls_of(record, made)
    assert (call.state, call.cost_usd) == ("failed", None)
    assert record.calls.spent_usd(TODAY) == Decimal(str(call.reserved_usd))


async def test_a_cancelled_call_counts_at_its_worst_case_and_may_be_repeated(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    stub.script(Hang())
    async with decider_at(stub, record) as decider:
        task = asyncio.create_task(decider.decide_recorded(corridor_case))
        assert await asyncio.to_thread(until, lambda: stub.requests, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ended = record.calls.get(1)
        assert ended.failure is not None
        assert (ended.state, ended.failure.kind, ended.cost_usd) == ("failed", "cancelled", None)
        assert record.calls.spent_usd(TODAY) == Decimal(str(ended.reserved_usd))
        assert (await decider.decide_recorded(corridor_case)).calls == [2]


async def test_a_record_that_cannot_be_written_stops_the_call_and_holds(
    stub: StubServer, record: DecisionRecord, corridor_case: Case
) -> None:
    async with decider_at(stub, record) as decider:
        record.close()
        decision = await decider.decide(corridor_case)
    assert decision.hold_reason == "error"
    assert "the decision cannot be recorded" in decision.reasoning
    assert stub.requests == []
