from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_trader.app.llm_deciders import DeciderChoice, new_recorder
from llm_trader.llm import llm_decider
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decision import Case
from llm_trader.llm.prompt.render import Prompt, render_prompt
from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.llm.recorder import Circumstances
from llm_trader.llm.replay import Replay, ValueDifference, case_of, replay_decision
from tests.llm.decider_at_stub import NOW_MS, REPLY, decider_at, job_at
from tests.llm.stub.faults import Status
from tests.llm.stub.server import StubServer


@pytest.fixture
def record(tmp_path: Path) -> Iterator[DecisionRecord]:
    with DecisionRecord.open(tmp_path / "decisions") as opened:
        yield opened


async def replayed(record: DecisionRecord, made: RecordedDecision) -> Replay:
    return await replay_decision(record, record.decisions.get(made.id), made.versions)


def test_a_case_comes_back_from_the_record_as_it_was(corridor_case: Case) -> None:
    recorded = msgspec.json.decode(
        msgspec.json.encode(recorded_of(corridor_case)), type=RecordedDecision
    )
    case = case_of(recorded)
    assert case.state.scalars.tobytes() == corridor_case.state.scalars.tobytes()
    assert case.state.series.tobytes() == corridor_case.state.series.tobytes()
    assert case.answer == corridor_case.answer
    assert case.outlooks == corridor_case.outlooks


def recorded_of(case: Case) -> RecordedDecision:
    return RecordedDecision(
        created_at_ms=NOW_MS,
        origin="test",
        symbol=case.symbol,
        as_of_ms=case.as_of_ms,
        arm="rag",
        arm_used="rag",
        decider="test",
        provider=None,
        model=None,
        decision=llm_decider.without_evidence(None),
        snapshot=case.state.snapshot(0),
        intraday=str(case.state.intraday),
        answer=case.answer,
        match_ids=[],
        settings_digest="",
    )


REPLIES: dict[str, list[str]] = {
    "read at once": [REPLY],
    "read after a repair": ["who knows?", REPLY],
    "never read": ["who knows?", "LONG or SHORT?"],
}


@pytest.mark.parametrize("replies", REPLIES.values(), ids=REPLIES)
async def test_a_decision_is_the_same_byte_for_byte_and_asks_nobody(
    stub: StubServer, record: DecisionRecord, corridor_case: Case, replies: list[str]
) -> None:
    stub.decide = lambda request: replies[len(request.messages) // 2]
    async with decider_at(stub, record, DeciderChoice(masked=True)) as decider:
        made = await decider.decide_recorded(corridor_case)
    stub.clear()
    again = await replayed(record, made)
    assert (again.is_same, again.prompt_is_same, again.differences) == (True, True, [])
    assert msgspec.json.encode(again.replayed) == msgspec.json.encode(made.decision)
    assert stub.requests == []
    assert again.calls == len(replies)


@pytest.mark.parametrize("way", ["failed call", "over budget", "no evidence", "guard", "baseline"])
async def test_holds_for_any_reason_are_replayed_too(
    stub: StubServer, record: DecisionRecord, corridor_case: Case, way: str
) -> None:
    settings: dict[str, Any] = {"llm__max_retries": 0}
    given: dict[str, Any] = {}
    case = corridor_case
    if way == "failed call":
        stub.script(Status(529))
    elif way == "over budget":
        settings = {"llm__daily_budget_usd": 0.0}
    elif way == "no evidence":
        case, given = Case(case.state), {"retrieval_error": "the index is gone"}
    elif way == "guard":
        given = {"guard": "the data are stale"}
    else:
        case, given = Case(case.state), {"retrieval_error": "the index is gone"}
        settings = {"decisions__baseline_if_retrieval_fails": True}
    async with decider_at(stub, record, **settings) as decider:
        made = await decider.decide_recorded(case, **given)
    again = await replayed(record, made)
    assert (again.is_same, again.prompt_is_same) == (True, True)


async def test_the_aggregator_decides_again_by_its_rule(
    stub: StubServer, record: DecisionRecord, corridor_case: Case, tmp_path: Path
) -> None:
    recorder = new_recorder(job_at(stub, tmp_path), record, "test", lambda: NOW_MS)
    decision = await Aggregator().decide(corridor_case)
    made = recorder.add(corridor_case, decision, Circumstances(decider="aggregator", arm="rag"))
    assert (await replayed(record, made)).is_same


async def test_a_changed_template_is_shown_line_by_line_and_the_replies_are_read_again(
    stub: StubServer,
    record: DecisionRecord,
    corridor_case: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.decide = lambda request: REPLY
    async with decider_at(stub, record) as decider:
        made = await decider.decide_recorded(corridor_case)

    def changed(*arguments: Any) -> Prompt:
        prompt = render_prompt(*arguments)
        return msgspec.structs.replace(prompt, user=prompt.user.replace("Decide now", "Decide!"))

    monkeypatch.setattr(llm_decider, "render_prompt", changed)
    now = {**made.versions, "template": "prompt-99", "settings": "others", "elsewhere": "1"}
    again = await replay_decision(record, made, now)
    assert (again.is_same, again.prompt_is_same) == (True, False)
    changes = [
        line for line in again.prompt_diff if line[:1] in "+-" and line[:2] not in ("++", "--")
    ]
    assert [line[0] for line in changes] == ["-", "+"]
    assert "Decide now" in changes[0]
    assert "Decide!" in changes[1]
    assert again.differences == [
        ValueDifference("template", made.versions["template"], "prompt-99"),
        ValueDifference("settings", made.settings_digest, "others"),
    ]
    assert "The prompt is another one now" in again.note


async def test_another_way_to_read_replies_is_another_decision(
    stub: StubServer,
    record: DecisionRecord,
    corridor_case: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.decide = lambda request: REPLY
    async with decider_at(stub, record) as decider:
        made = await decider.decide_recorded(corridor_case)
    held = llm_decider.without_evidence("so")
    monkeypatch.setattr(llm_decider, "read_reply", lambda text, finish: held)
    again = await replayed(record, made)
    assert (again.is_same, again.prompt_is_same) == (False, True)
    assert (again.recorded.action, again.replayed) == ("LONG", held)
