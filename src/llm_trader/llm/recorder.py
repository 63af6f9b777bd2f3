"""Puts decisions on record, with all that they were made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from llm_trader.batches import Batches
from llm_trader.llm.decision import Case, Decision
from llm_trader.llm.prompt.render import Arm
from llm_trader.llm.record.call_rows import RecordedCall
from llm_trader.llm.record.decisions import Costs, DecisionLog, RecordedDecision
from llm_trader.llm.recorded_calls import CallUsed
from llm_trader.timeframe import Millis

_log = structlog.get_logger(__name__)


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """How one decision came about, beside its case. `arm_used` is `arm` unless it says otherwise.

    A decision of the same `key` takes the place of the former one. `labels` are free.
    """

    decider: str
    arm: Arm
    arm_used: Arm | None = None
    has_evidence: bool = False
    provider: str | None = None
    model: str | None = None
    key: str | None = None
    labels: Mapping[str, str] = {}
    retrieval_error: str | None = None
    settings: Mapping[str, Any] = {}
    versions: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """`origin` says what decides, such as `decide` or `evaluate ab`; `versions` are those of the
    program, of the vector spaces and of the models of this set-up.
    """

    log: DecisionLog
    origin: str
    settings_digest: str
    now_ms: Callable[[], Millis]
    versions: Mapping[str, str] = field(default_factory=dict)
    _additions: Batches[RecordedDecision, RecordedDecision] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_additions", Batches(self._add_all))

    def add(
        self, case: Case, decision: Decision, made: Circumstances, used: Sequence[CallUsed] = ()
    ) -> RecordedDecision:
        """Raises `StoreError` if it cannot be recorded."""
        return _logged(self.log.add(self._to_record(case, decision, made, used)))

    async def add_beside_others(
        self, case: Case, decision: Decision, made: Circumstances, used: Sequence[CallUsed] = ()
    ) -> RecordedDecision:
        """The same; those that come together share a transaction, as a disk takes milliseconds."""
        return _logged(await self._additions.add(self._to_record(case, decision, made, used)))

    async def _add_all(self, decisions: Sequence[RecordedDecision]) -> Sequence[RecordedDecision]:
        return await asyncio.to_thread(self.log.add_all, decisions)

    def _to_record(
        self, case: Case, decision: Decision, made: Circumstances, used: Sequence[CallUsed]
    ) -> RecordedDecision:
        answer = case.answer
        return RecordedDecision(
            key=made.key,
            created_at_ms=self.now_ms(),
            origin=self.origin,
            labels=dict(made.labels),
            symbol=case.symbol,
            as_of_ms=case.as_of_ms,
            arm=made.arm,
            arm_used=made.arm_used or made.arm,
            has_evidence=made.has_evidence,
            decider=made.decider,
            provider=made.provider,
            model=made.model,
            decision=decision,
            snapshot=case.state.snapshot(0),
            intraday=str(case.state.intraday),
            answer=answer,
            match_ids=[match.id for match in answer.matches] if answer else [],
            retrieval_error=made.retrieval_error,
            settings=dict(made.settings),
            versions={**self.versions, **_versions_of(case, used), **made.versions},
            settings_digest=self.settings_digest,
            # A call without an id was never made: the record had no reply to it.
            calls=[one.call.id for one in used if one.call.id],
            costs=_costs(used),
        )


def _logged(recorded: RecordedDecision) -> RecordedDecision:
    decision = recorded.decision
    _log.info(
        "decided",
        decision=recorded.id,
        symbol=recorded.symbol,
        decider=recorded.decider,
        arm=recorded.arm_used,
        action=decision.action,
        hold_reason=decision.hold_reason,
        usd=round(recorded.costs.paid_usd, 6),
    )
    return recorded


def _versions_of(case: Case, used: Sequence[CallUsed]) -> dict[str, str]:
    """What only the decision itself can say."""
    versions = {}
    if case.answer is not None and case.answer.calibration is not None:
        versions["calibration"] = case.answer.calibration.digest
    replies = [one.call.reply for one in used if one.call.reply is not None]
    if replies:
        versions["sdk"], versions["model_replied"] = replies[-1].sdk, replies[-1].model
    return versions


def _costs(used: Sequence[CallUsed]) -> Costs:
    usages = [one.call.usage for one in used if one.call.usage is not None]
    return Costs(
        cost_usd=sum(_cost_usd(one.call) for one in used),
        paid_usd=sum(_cost_usd(one.call) for one in used if one.is_new),
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cached_input_tokens=sum(usage.cached_input_tokens for usage in usages),
        latency_ms=sum(one.call.latency_ms for one in used),
    )


def _cost_usd(call: RecordedCall) -> float:
    return call.reserved_usd if call.cost_usd is None else call.cost_usd
