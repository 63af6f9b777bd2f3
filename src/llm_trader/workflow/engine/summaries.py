"""A run in one line, from its records."""

from __future__ import annotations

from collections.abc import Sequence

from llm_trader.timeframe import Millis
from llm_trader.workflow.engine.protocol import NodeRecord, RunStart, RunState, RunSummary
from llm_trader.workflow.values import Checked, Decided, Executed, Received


def summary_of(
    start: RunStart,
    state: RunState,
    records: Sequence[NodeRecord],
    *,
    ended_at_ms: Millis | None = None,
    executor: str | None = None,
) -> RunSummary:
    """The last decision of the records counts: that of a guard stands after that of a model."""
    outputs = [one.output for one in records if one.output is not None]
    decisions = [one.decision for one in outputs if isinstance(one, Decided | Checked)]
    notes = [one.note for one in outputs if isinstance(one, Decided) and one.note]
    executions = [one for one in outputs if isinstance(one, Executed)]
    failed = [one for one in records if one.status == "failed" and one.error is not None]
    ends = [one.ended_at_ms for one in records if one.ended_at_ms is not None]
    decision = decisions[-1] if decisions else None
    error = None
    if state == "failed" and failed and failed[-1].error:
        error = f"{failed[-1].node}: {failed[-1].error.message}"
    if ended_at_ms is None and state in ("done", "failed") and ends:
        ended_at_ms = max(ends)
    return RunSummary(
        run_id=start.run_id,
        workflow=start.workflow,
        state=state,
        symbol=start.symbol,
        as_of_ms=start.event.as_of_ms if isinstance(start.event, Received) else None,
        graph_digest=start.graph.digest,
        options=start.options,
        accepted_at_ms=start.accepted_at_ms,
        ended_at_ms=ended_at_ms,
        action=decision.action if decision else None,
        hold_reason=decision.hold_reason if decision else None,
        note="; ".join(notes) or None,
        execution=executions[-1].state if executions else None,
        error=error,
        executor=executor,
    )
