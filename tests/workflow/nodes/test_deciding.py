from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trader.clock import WallClock
from llm_trader.llm.prompt.render import PromptOptions
from llm_trader.llm.record.decisions import DecisionFilter
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.llm.recorder import Recorder
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import M5
from llm_trader.workflow.engine.protocol import RunOptions
from llm_trader.workflow.nodes.deciding import AggregatorDecides
from llm_trader.workflow.nodes.running import NodeRun, ScriptContext
from llm_trader.workflow.nodes.scripts import format_prompt
from llm_trader.workflow.values import DecideInputs, PromptInputs

RUN = NodeRun("a-run", RunOptions())


@pytest.fixture
def record(tmp_path: Path) -> Iterator[DecisionRecord]:
    with DecisionRecord.open(tmp_path) as opened:
        yield opened


def _decides(record: DecisionRecord, now_ms: int) -> AggregatorDecides:
    recorder = Recorder(
        log=record.decisions, origin="test", settings_digest="0", now_ms=lambda: now_ms
    )
    return AggregatorDecides(recorder, M5, WallClock(lambda: now_ms))


def _inputs(
    snapshot: MarketSnapshot, answer: Answer | None, reason: str | None = None, **fields: int
) -> DecideInputs:
    context = ScriptContext("a-run", snapshot.timestamp, PromptOptions())
    prompts = format_prompt(PromptInputs(snapshot=snapshot, answer=answer), context)
    return DecideInputs(
        snapshot=snapshot, prompts=prompts, answer=answer, retrieval_error=reason, **fields
    )


def test_the_prompt_has_both_arms_and_only_one_has_evidence(
    snapshot: MarketSnapshot, answer: Answer
) -> None:
    prompts = _inputs(snapshot, answer).prompts
    assert prompts.rag is not None
    assert (prompts.rag.has_evidence, prompts.baseline.has_evidence) == (True, False)
    assert prompts.rag.system == prompts.baseline.system


async def test_the_aggregator_decides_without_a_model_and_is_recorded(
    record: DecisionRecord, snapshot: MarketSnapshot, answer: Answer
) -> None:
    decided = await _decides(record, snapshot.timestamp)(_inputs(snapshot, answer), RUN)
    (summary,) = record.decisions.summaries(DecisionFilter())
    assert summary.decision == decided.decision
    assert decided.decision.hold_reason != "error"
    assert (summary.decider, summary.labels["run"]) == ("aggregator", "a-run")


async def test_a_repeated_node_leaves_one_decision(
    record: DecisionRecord, snapshot: MarketSnapshot, answer: Answer
) -> None:
    decides = _decides(record, snapshot.timestamp)
    first = await decides(_inputs(snapshot, answer), RUN)
    second = await decides(_inputs(snapshot, answer), RUN)
    assert first == second
    assert record.decisions.count(DecisionFilter()) == 1


async def test_decisions_that_come_together_share_a_transaction(
    record: DecisionRecord, snapshot: MarketSnapshot, answer: Answer
) -> None:
    decides, begun = _decides(record, snapshot.timestamp), []
    record.decisions._database._connection.set_trace_callback(begun.append)
    inputs = _inputs(snapshot, answer)
    made = await asyncio.gather(
        *(decides(inputs, NodeRun(f"run-{n}", RunOptions())) for n in range(5))
    )
    assert [one.made[0].record_id for one in made] == [1, 2, 3, 4, 5]
    assert begun.count("BEGIN IMMEDIATE") == 1


async def test_without_evidence_the_aggregator_holds_because_of_an_error(
    record: DecisionRecord, snapshot: MarketSnapshot
) -> None:
    inputs = _inputs(snapshot, None, "the server is away")
    decided = await _decides(record, snapshot.timestamp)(inputs, RUN)
    assert decided.decision.hold_reason == "error"
    assert decided.note is not None
    assert "the server is away" in decided.note


async def test_after_the_deadline_nobody_is_asked(
    record: DecisionRecord, snapshot: MarketSnapshot, answer: Answer
) -> None:
    inputs = _inputs(snapshot, answer, deadline_ms=snapshot.timestamp + 1000)
    decided = await _decides(record, snapshot.timestamp + 1001)(inputs, RUN)
    assert (decided.decision.action, decided.decision.hold_reason) == ("HOLD", "guard")
    assert "had passed before a decision began" in decided.decision.reasoning
    in_time = await _decides(record, snapshot.timestamp + 1000)(inputs, RUN)
    assert in_time.decision.hold_reason != "guard"
