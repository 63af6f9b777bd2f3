"""The record of decisions, for who reads along: the newest ones, and one with all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.llm.decision import Action, HoldReason
from llm_trader.llm.record.decisions import DecisionFilter, DecisionSummary, RecordedDecision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.rpc.params import Timeout
from llm_trader.serving.wire import Symbol
from llm_trader.timeframe import Millis


class ListDecisionsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    symbol: Symbol | None = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Most decisions of the answer.")] = 50
    timeout_ms: Timeout | None = None


class GetDecisionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[int, Meta(ge=1, description="Id of a decision of rag.list_decisions.")]
    timeout_ms: Timeout | None = None


class DecisionLine(msgspec.Struct, frozen=True, kw_only=True):
    """A decision in a list. Confidence, hold_reason and model are null where there is none."""

    id: Annotated[int, Meta(description="Its id, for rag.get_decision.")]
    created_at: Annotated[Millis, Meta(description="When it was made, UTC milliseconds.")]
    as_of: Annotated[Millis, Meta(description="Time of the state, UTC milliseconds.")]
    symbol: Annotated[str, Meta(description="The symbol.")]
    action: Annotated[Action, Meta(description="LONG, SHORT or HOLD.")]
    hold_reason: Annotated[
        HoldReason | None, Meta(description="Why a HOLD is one: `model`, `error` or `guard`.")
    ]
    confidence: Annotated[float | None, Meta(description="Confidence of the decider, 0 to 1.")]
    reasoning: Annotated[str, Meta(description="What the decider says about it.")]
    decider: Annotated[str, Meta(description="Who decided.")]
    model: Annotated[str | None, Meta(description="The language model that was asked.")]
    arm: Annotated[str, Meta(description="`rag`, or `baseline`: a prompt without evidence.")]
    origin: Annotated[str, Meta(description="The program that asked for it.")]
    cost_usd: Annotated[float, Meta(description="What its calls cost, USD.")]
    paid_usd: Annotated[
        float, Meta(description="What was paid for it; 0 where all replies were on record, USD.")
    ]

    @classmethod
    def of(cls, summary: DecisionSummary) -> DecisionLine:
        decision, costs = summary.decision, summary.costs
        return cls(
            id=summary.id,
            created_at=summary.created_at_ms,
            as_of=summary.as_of_ms,
            symbol=summary.symbol,
            action=decision.action,
            hold_reason=decision.hold_reason,
            confidence=decision.confidence,
            reasoning=decision.reasoning,
            decider=summary.decider,
            model=summary.model,
            arm=summary.arm_used,
            origin=summary.origin,
            cost_usd=costs.cost_usd,
            paid_usd=costs.paid_usd,
        )


class DecisionsResult(msgspec.Struct, frozen=True):
    """`recorded` is false where nothing was ever recorded: `llm-trader decide` does."""

    recorded: Annotated[bool, Meta(description="Whether there is a record of decisions.")]
    folder: Annotated[str, Meta(description="Folder of the record (decisions.record).")]
    total: Annotated[int, Meta(description="Number of decisions on record.")]
    decisions: Annotated[list[DecisionLine], Meta(description="The newest ones, newest first.")]


class DecisionResult(msgspec.Struct, frozen=True):
    decision: Annotated[
        dict[str, Any],
        Meta(description="The decision with its state, evidence, versions and costs."),
    ]


class DecisionReader:
    """Opens the record when it is first asked for and there; others write to it meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._record: DecisionRecord | None = None

    def close(self) -> None:
        if self._record is not None:
            self._record.close()
            self._record = None

    def list(self, params: ListDecisionsParams) -> DecisionsResult:
        record = self._open()
        if record is None:
            return DecisionsResult(False, str(self._folder), 0, [])
        chosen = DecisionFilter(symbol=params.symbol)
        decisions = record.decisions
        return DecisionsResult(
            *(True, str(self._folder), decisions.count(chosen)),
            [DecisionLine.of(summary) for summary in decisions.summaries(chosen, params.limit)],
        )

    def get(self, params: GetDecisionParams) -> DecisionResult:
        record = self._open()
        if record is None:
            raise InvalidInputError(
                f"no decisions are recorded in {self._folder}; llm-trader decide records them"
            )
        decision: RecordedDecision = record.decisions.get(params.id)
        return DecisionResult(msgspec.to_builtins(decision))

    def _open(self) -> DecisionRecord | None:
        if self._record is None:
            try:
                self._record = DecisionRecord.open(self._folder, create=False)
            except ConfigurationError:
                return None
        return self._record
