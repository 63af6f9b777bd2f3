"""What passes between nodes; a durable engine stores it as JSON."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from llm_trader.llm.decision import Decision
from llm_trader.llm.prompt.render import Arm, Prompt
from llm_trader.llm.record.decisions import Veto
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import Millis


class Received(Struct, frozen=True, kw_only=True):
    """A snapshot as `snapshot.post` brings it; `deadline_ms` is None where nobody waits."""

    symbol: str
    as_of_ms: Millis
    snapshot: MarketSnapshot
    snapshot_id: str
    deadline_ms: Millis | None = None
    late: list[str] = []
    received_at_ms: Millis


class Pushed(Struct, frozen=True, kw_only=True):
    """Any other event, as `ingest.push` brings it."""

    event_id: str
    kind: str
    symbol: str | None = None
    data: dict[str, Any] = {}
    received_at_ms: Millis


class QueryInputs(Struct, frozen=True, kw_only=True):
    symbol: str
    timestamp: Millis
    current_state: MarketSnapshot | None = None


class Retrieval(Struct, frozen=True, kw_only=True):
    """The answer of a query, and the parts of it that rules ask for."""

    answer: Answer
    matches: int
    verdict: str
    novelty_percentile: float | None = None


class PromptInputs(Struct, frozen=True, kw_only=True):
    snapshot: MarketSnapshot
    answer: Answer | None = None


class Prompts(Struct, frozen=True, kw_only=True):
    """The same prompt with and without evidence; `rag` is None where there was no answer."""

    rag: Prompt | None
    baseline: Prompt


class DecideInputs(Struct, frozen=True, kw_only=True):
    """`retrieval_error` says why there is no answer."""

    snapshot: MarketSnapshot
    prompts: Prompts
    answer: Answer | None = None
    retrieval_error: str | None = None
    deadline_ms: Millis | None = None


class ArmDecision(Struct, frozen=True, kw_only=True):
    """A decision of one arm, and its number in the record of decisions."""

    arm: Arm
    arm_used: Arm
    has_evidence: bool
    decision: Decision
    record_id: int | None = None
    paid_usd: float = 0.0


class Decided(Struct, frozen=True, kw_only=True):
    """`decision` is the one to execute; `note` says what was unusual about it."""

    decision: Decision
    arm_used: Arm
    has_evidence: bool
    note: str | None = None
    made: list[ArmDecision] = []


class GuardInputs(Struct, frozen=True, kw_only=True):
    decision: Decision
    snapshot: MarketSnapshot
    answer: Answer | None = None


class Checked(Struct, frozen=True, kw_only=True):
    """The decision, or a HOLD of the kind `guard` with the vetoes."""

    decision: Decision
    vetoes: list[Veto] = []


class ExecuteInputs(Struct, frozen=True, kw_only=True):
    decision: Decision
    snapshot: MarketSnapshot
    answer: Answer | None = None


class Executed(Struct, frozen=True, kw_only=True):
    """`none`: a HOLD; `shadow`: decided, and on purpose not executed."""

    state: Literal["none", "shadow", "placed", "rejected", "unknown"]
    message: str
    orders: list[dict[str, Any]] = []


class NodeError(Struct, frozen=True):
    """`code` is that of the error's class, `timeout`, or `internal`."""

    code: str
    message: str


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return msgspec.to_builtins(value)
