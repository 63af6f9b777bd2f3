"""What a run stores of its stages, and reads back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_trader.workflow.engine.protocol import NodeRecord, RunStart
from llm_trader.workflow.graph.model import Graph, GraphNode


def input_record(node: GraphNode, start: RunStart) -> NodeRecord:
    """An input gives the event that began the run, so it is no step of its own."""
    return NodeRecord(
        node=node.name,
        status="done",
        output=start.event,
        attempts=1,
        started_at_ms=start.accepted_at_ms,
        ended_at_ms=start.accepted_at_ms,
    )


def stored_stage(records: Sequence[NodeRecord]) -> str:
    """Text, as the library's own encoder takes several times longer for values within values."""
    return msgspec.json.encode(records).decode()


def records_of(stored: Any, graph: Graph) -> list[NodeRecord]:
    """The records of a stage, each with its output as the struct of its node."""
    kinds = {node.name: node.signature.output for node in graph.nodes}
    return [_record_of(one, kinds) for one in stage_of(stored)]


def stage_of(stored: Any) -> list[dict[str, Any]]:
    """A step that broke has stored nothing; runs of version 1 have a step for each node."""
    if isinstance(stored, dict):
        return [stored]
    return [] if stored is None else msgspec.json.decode(stored, type=list[dict[str, Any]])


def _record_of(stored: dict[str, Any], kinds: Mapping[str, Any]) -> NodeRecord:
    record = msgspec.convert(stored, NodeRecord)
    if record.output is None or record.node not in kinds:
        return record
    output = msgspec.convert(record.output, kinds[record.node])
    return msgspec.structs.replace(record, output=output)
