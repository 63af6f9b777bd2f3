from __future__ import annotations

from llm_trader.workflow.engine.protocol import NodeRecord
from llm_trader.workflow.values import Executed, NodeError, plain
from tests.workflow.graphs import shipped

DONE = NodeRecord(
    node="execute",
    status="done",
    output=Executed(state="none", message="there is nothing to do"),
    attempts=1,
    started_at_ms=5,
    ended_at_ms=7,
)
FAILED = NodeRecord(node="decide", status="failed", error=NodeError("timeout", "it took longer"))


def test_a_stage_is_read_as_it_was_stored_and_so_is_a_step_of_version_1() -> None:
    from llm_trader.workflow.engine.durable.records import records_of, stored_stage

    graph = shipped()
    assert records_of(stored_stage([FAILED, DONE]), graph) == [FAILED, DONE]
    assert records_of(plain(DONE), graph) == [DONE]
    assert records_of(plain(FAILED), graph) == [FAILED]
    assert records_of(None, graph) == []
