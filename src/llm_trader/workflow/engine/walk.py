"""Goes through a graph in stages: which node is next, and what it gets.

It depends on the graph and on the records of the nodes alone, so that a run which is resumed goes
the way that it went before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from llm_trader.workflow.engine.protocol import NodeRecord, RunResult, RunStart
from llm_trader.workflow.graph.document import ExecuteNode, InputNode
from llm_trader.workflow.graph.model import Binding, Graph, GraphNode
from llm_trader.workflow.graph.references import Reference, value_along
from llm_trader.workflow.graph.schedule import runs

# Runs one node with its inputs; the inputs of an input node are the event.
Step = Callable[[GraphNode, Any], Awaitable[NodeRecord]]
Stage = tuple[GraphNode, ...]
# Carries a stage out, or returns what it recorded before.
Keep = Callable[[Stage, Callable[[], Awaitable[list[NodeRecord]]]], Awaitable[list[NodeRecord]]]


async def _at_once(
    stage: Stage, carry_out: Callable[[], Awaitable[list[NodeRecord]]]
) -> list[NodeRecord]:
    return await carry_out()


async def walk(graph: Graph, start: RunStart, step: Step, keep: Keep = _at_once) -> RunResult:
    records: dict[str, NodeRecord] = {}
    for stage in stages(graph):

        async def carry_out(stage: Stage = stage) -> list[NodeRecord]:
            return await _carried_out(stage, graph, start, records, step)

        for record in await keep(stage, carry_out):
            records[record.node] = record
        if (failed := _stopped_by(stage, records)) is not None:
            reason = failed.error.message if failed.error else "for no known reason"
            return RunResult(
                run_id=start.run_id,
                state="failed",
                records=list(records.values()),
                error=f"{failed.node}: {reason}",
            )
    return RunResult(run_id=start.run_id, state="done", records=list(records.values()))


def stages(graph: Graph) -> Iterator[Stage]:
    """The nodes in their order, parted where a run has to be on record before it goes on.

    An `execute` acts on an account, so what led to it is kept before it, and what came of it before
    anything else. All other nodes may be repeated together: a model's reply is on record already.
    """
    inputs = tuple(node for node in graph.nodes if isinstance(node.document, InputNode))
    yield inputs
    stage: list[GraphNode] = []
    for node in graph.nodes:
        if isinstance(node.document, ExecuteNode):
            if stage:
                yield tuple(stage)
            yield (node,)
            stage = []
        elif node not in inputs:
            stage.append(node)
    if stage:
        yield tuple(stage)


async def _carried_out(
    stage: Stage,
    graph: Graph,
    start: RunStart,
    before: Mapping[str, NodeRecord],
    step: Step,
) -> list[NodeRecord]:
    """The records of a stage, up to a failure that ends the run."""
    documents = {node.name: node.document for node in graph.nodes}
    records = dict(before)
    statuses = {name: record.status for name, record in records.items()}
    for node in stage:
        if not runs(node.document, graph.incoming[node.name], documents, statuses, start.method):
            record = NodeRecord(node=node.name, status="skipped")
        elif isinstance(node.document, InputNode):
            record = await step(node, start.event)
        else:
            record = await step(node, _inputs(node, records))
        records[node.name], statuses[node.name] = record, record.status
        if _stopped_by((node,), records) is not None:
            break
    return [records[node.name] for node in stage if node.name in records]


def _stopped_by(stage: Sequence[GraphNode], records: Mapping[str, NodeRecord]) -> NodeRecord | None:
    for node in stage:
        record = records.get(node.name)
        if record is not None and record.status == "failed" and node.document.on_error == "stop":
            return record
    return None


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
