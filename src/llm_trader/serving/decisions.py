"""The record of decisions, for who reads along: the newest ones, and one with all of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from llm_trader.errors import InvalidInputError
from llm_trader.llm.record.database import FILE_NAME
from llm_trader.llm.record.decisions import DecisionFilter, DecisionSummary, RecordedDecision
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.params import Timeout
from llm_trader.serving.wire import Symbol


class ListDecisionsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    symbol: Symbol | None = None
    limit: Annotated[int, Meta(ge=1, le=200, description="Most decisions of the answer.")] = 50
    timeout_ms: Timeout | None = None


class GetDecisionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[int, Meta(ge=1, description="Id of a decision of rag.list_decisions.")]
    timeout_ms: Timeout | None = None


class DecisionsResult(msgspec.Struct, frozen=True):
    """`recorded` is false where nothing was ever recorded: `llm-trader decide` does."""

    recorded: Annotated[bool, Meta(description="Whether there is a record of decisions.")]
    folder: Annotated[str, Meta(description="Folder of the record (decisions.record).")]
    total: Annotated[int, Meta(description="Number of decisions on record.")]
    decisions: Annotated[list[DecisionSummary], Meta(description="The newest ones, newest first.")]


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

    def methods(self) -> list[Method]:
        return [replace(m, handler=partial(m.handler, self)) for m in DECISION_METHODS]

    def close(self) -> None:
        if self._record is not None:
            self._record.close()
            self._record = None

    async def list_decisions(
        self, params: ListDecisionsParams, context: RequestContext
    ) -> DecisionsResult:
        record = self._open()
        if record is None:
            return DecisionsResult(False, str(self._folder), 0, [])
        chosen = DecisionFilter(symbol=params.symbol)
        decisions = record.decisions
        return DecisionsResult(
            *(True, str(self._folder), decisions.count(chosen)),
            decisions.summaries(chosen, params.limit),
        )

    async def get_decision(
        self, params: GetDecisionParams, context: RequestContext
    ) -> DecisionResult:
        record = self._open()
        if record is None:
            raise InvalidInputError(
                f"no decisions are recorded in {self._folder}; llm-trader decide records them"
            )
        decision: RecordedDecision = record.decisions.get(params.id)
        return DecisionResult(msgspec.to_builtins(decision))

    def _open(self) -> DecisionRecord | None:
        if self._record is None and (self._folder / FILE_NAME).exists():
            self._record = DecisionRecord.open(self._folder, create=False)
        return self._record


_UNBOUND: Final[Any] = DecisionReader

# The documents describe these; `DecisionReader.methods` binds them.
DECISION_METHODS: Final = (
    Method(
        "rag.list_decisions",
        ListDecisionsParams,
        _UNBOUND.list_decisions,
        "The newest decisions on record.",
        DecisionsResult,
    ),
    Method(
        "rag.get_decision",
        GetDecisionParams,
        _UNBOUND.get_decision,
        "A decision on record, with its state, evidence and costs.",
        DecisionResult,
    ),
)
