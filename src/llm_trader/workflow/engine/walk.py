"""Goes through a graph: which node is next, and what it gets.

It depends on the graph and on the records of the nodes alone, so that a run which is resumed goes
the way that it went before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from llm_trader.workflow.engine.protocol import NodeRecord, RunResult, RunStart
from llm_trader.workflow.graph.document import InputNode, NodeDocument
from llm_trader.workflow.graph.model import Binding, Graph, GraphNode
from llm_trader.workflow.graph.references import Reference, value_along
from llm_trader.workflow.graph.schedule import Status, runs

# Runs one node with its inputs; the inputs of an input node are the event.
Step = Callable[[GraphNode, Any], Awaitable[NodeRecord]]


async def walk(graph: Graph, start: RunStart, step: Step) -> RunResult:
    documents: dict[str, NodeDocument] = {node.name: node.document for node in graph.nodes}
    statuses: dict[str, Status] = {}
    records: dict[str, NodeRecord] = {}
    for node in graph.nodes:
        incoming = graph.incoming[node.name]
        if not runs(node.document, incoming, documents, statuses, start.method):
            record = NodeRecord(node=node.name, status="skipped")
        elif isinstance(node.document, InputNode):
            record = await step(node, start.event)
        else:
            record = await step(node, _inputs(node, records))
        records[node.name], statuses[node.name] = record, record.status
        if record.status == "failed" and node.document.on_error == "stop":
            reason = record.error.message if record.error else "for no known reason"
            return RunResult(
                run_id=start.run_id,
                state="failed",
                records=list(records.values()),
                error=f"{node.name}: {reason}",
            )
    return RunResult(run_id=start.run_id, state="done", records=list(records.values()))


def _inputs(node: GraphNode, records: Mapping[str, NodeRecord]) -> Struct:
    values = {name: _value(binding, records) for name, binding in node.bindings.items()}
    return node.signature.inputs(**values)


def _value(binding: Binding, records: Mapping[str, NodeRecord]) -> Any:
    if not binding.references:
        return binding.constant
    found = (_resolve(reference, records) for reference in binding.references)
    return next((value for value in found if value is not None), None)


def _resolve(reference: Reference, records: Mapping[str, NodeRecord]) -> Any:
    record = records[reference.node]
    return value_along(getattr(record, reference.part), reference.fields)
