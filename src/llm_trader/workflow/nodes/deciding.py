"""Asks a model with the prompts of a run, or the aggregator, and puts the decisions on record.

A repetition after a crash finds the model's reply on record and pays nothing; its decision takes
the place of the former one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec

from llm_trader.clock import Clock
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decision import Case, Decision
from llm_trader.llm.llm_decider import LlmDecider, Outcome, ask
from llm_trader.llm.prompt.render import Arm
from llm_trader.llm.record.decisions import RecordedDecision
from llm_trader.llm.recorder import Circumstances, Recorder
from llm_trader.llm.reply.schema import DECISION_SCHEMA
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Millis, Timeframe, iso8601
from llm_trader.workflow.nodes.running import NodeRun, decision_key
from llm_trader.workflow.values import ArmDecision, Decided, DecideInputs


@dataclass(frozen=True, slots=True)
class ModelDecides:
    """A language model; in A/B mode it is asked with both prompts at the same time."""

    decider: LlmDecider
    intraday: Timeframe
    clock: Clock

    async def __call__(self, inputs: DecideInputs, run: NodeRun) -> Decided:
        wanted: Arm = self.decider.arm if run.options.ab == "off" else run.options.ab
        arms: tuple[Arm, ...] = (wanted,)
        if run.options.ab != "off":
            arms = (wanted, "baseline" if wanted == "rag" else "rag")
        case = _case(inputs, self.intraday)
        guard = _too_late(inputs, self.clock.now_ms())
        made = await asyncio.gather(*(self._arm(arm, case, inputs, run, guard) for arm in arms))
        return _decided(wanted, made, inputs.retrieval_error, guard)

    async def _arm(
        self, arm: Arm, case: Case, inputs: DecideInputs, run: NodeRun, guard: str | None
    ) -> ArmDecision:
        decider = self.decider
        prompts = inputs.prompts
        # Where the graph led here without an answer, it is to be decided without one.
        prompt = prompts.rag if arm == "rag" and prompts.rag is not None else prompts.baseline
        if guard is not None:
            outcome = Outcome(Decision.hold("guard", guard), [])
        else:
            request = decider.make_request(prompt.system, prompt.messages, DECISION_SCHEMA, 0)
            outcome = await ask(decider.calls, case.symbol, request)
        made = Circumstances(
            decider=decider.name,
            arm=arm,
            arm_used=prompt.arm,
            has_evidence=prompt.has_evidence,
            provider=decider.calls.provider,
            model=decider.model,
            key=decision_key(run.run_id, arm),
            labels=_labels(run),
            retrieval_error=inputs.retrieval_error,
            settings={"prompt": msgspec.to_builtins(decider.options), "sample": 0},
            versions={"template": prompt.template_version},
        )
        recorded = await decider.recorder.add_beside_others(
            case, outcome.decision, made, outcome.used
        )
        return _arm_decision(recorded)


@dataclass(frozen=True, slots=True)
class AggregatorDecides:
    """Fixed rules on the evidence, without a model; without evidence it is an error.

    A backtest has no `recorder`: its decisions would drown those that were traded.
    """

    recorder: Recorder | None
    intraday: Timeframe
    clock: Clock
    aggregator: Aggregator = field(default_factory=Aggregator)

    async def __call__(self, inputs: DecideInputs, run: NodeRun) -> Decided:
        case = _case(inputs, self.intraday)
        guard = _too_late(inputs, self.clock.now_ms())
        if guard is not None:
            decision = Decision.hold("guard", guard)
        elif inputs.answer is None:
            reason = inputs.retrieval_error or "the run has no answer of a query"
            decision = Decision.hold("error", f"there is no evidence: {reason}")
        else:
            decision = await self.aggregator.decide(case)
        if self.recorder is None:
            has_evidence = inputs.answer is not None
            arm = ArmDecision(
                arm="rag", arm_used="rag", has_evidence=has_evidence, decision=decision
            )
            return _decided("rag", [arm], inputs.retrieval_error, guard)
        made = Circumstances(
            decider=self.aggregator.name,
            arm="rag",
            has_evidence=inputs.answer is not None,
            provider=self.aggregator.name,
            key=decision_key(run.run_id, "rag"),
            labels=_labels(run),
            retrieval_error=inputs.retrieval_error,
        )
        recorded = await self.recorder.add_beside_others(case, decision, made)
        return _decided("rag", [_arm_decision(recorded)], inputs.retrieval_error, guard)


def _case(inputs: DecideInputs, intraday: Timeframe) -> Case:
    state = SnapshotTable.of_snapshot(inputs.snapshot, intraday)
    return Case(state) if inputs.answer is None else Case.of_answer(state, inputs.answer)


def _too_late(inputs: DecideInputs, now_ms: Millis) -> str | None:
    """Nobody would trade on it any more, so nobody is asked either."""
    if inputs.deadline_ms is None or now_ms <= inputs.deadline_ms:
        return None
    return (
        f"the deadline of the snapshot, {iso8601(inputs.deadline_ms)}, had passed before a "
        "decision began"
    )


def _labels(run: NodeRun) -> dict[str, str]:
    options = run.options
    mode = "ab" if options.ab != "off" else "single"
    return {"run": run.run_id, "mode": mode, "executes": "no" if options.shadow else options.ab}


def _arm_decision(recorded: RecordedDecision) -> ArmDecision:
    return ArmDecision(
        arm=recorded.arm,
        arm_used=recorded.arm_used,
        has_evidence=recorded.has_evidence,
        decision=recorded.decision,
        record_id=recorded.id,
        paid_usd=recorded.costs.paid_usd,
    )


def _decided(
    wanted: Arm, made: list[ArmDecision], retrieval_error: str | None, guard: str | None
) -> Decided:
    chosen = next(one for one in made if one.arm == wanted)
    note = guard
    if note is None and wanted == "rag" and not chosen.has_evidence:
        reason = retrieval_error or "the answer told of no past state"
        note = f"decided with the baseline prompt, without evidence: {reason}"
    return Decided(
        decision=chosen.decision,
        arm_used=chosen.arm_used,
        has_evidence=chosen.has_evidence,
        note=note,
        made=list(made),
    )
