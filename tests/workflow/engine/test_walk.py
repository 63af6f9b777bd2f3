"""The stages of a graph: what is on record before a run goes on."""

from __future__ import annotations

from llm_trader.workflow.engine.walk import stages
from tests.workflow.graphs import shipped


def test_the_decision_is_on_record_before_its_order_and_the_order_on_its_own() -> None:
    names = [[node.name for node in stage] for stage in stages(shipped())]
    assert names[0] == ["receive"]
    assert names[1][-2:] == ["decide", "guard"]
    assert {"rag", "prompt", "baseline"} == set(names[1][:-2])
    assert names[2:] == [["execute"]]
