"""Walks the graph of one run; how its stages are kept is up to the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from llm_trader.errors import LlmTraderError
from llm_trader.workflow.engine.attempts import attempt_node
from llm_trader.workflow.engine.durable.records import input_record, records_of, stored_stage
from llm_trader.workflow.engine.protocol import NodeRecord, RunStart, RunSummary
from llm_trader.workflow.engine.summaries import summary_of
from llm_trader.workflow.engine.walk import Stage, walk
from llm_trader.workflow.graph.document import InputNode
from llm_trader.workflow.graph.model import Graph, GraphNode, GraphText
from llm_trader.workflow.nodes.running import NodeRun, Services

# Told when a node begins and when it has ended: (run, node, "begins" or "ends").
Watch = Callable[[str, str, str], None]
# Keeps what a stage stores under its name, and returns what is stored.
StoreStage = Callable[[], Coroutine[Any, Any, str]]
KeepStage = Callable[[str, StoreStage], Awaitable[str]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a run needs of this process. `graph` raises `LlmTraderError` for an unusable one."""

    graph: Callable[[GraphText], Graph]
    services: Services
    watch: Watch

    async def carry_out(self, start: RunStart, keep_stage: KeepStage) -> RunSummary:
        try:
            graph = self.graph(start.graph)
        except LlmTraderError as error:
            _log.error("workflow_graph_unusable", run_id=start.run_id, reason=error.message)
            summary = summary_of(start, "failed", ())
            return msgspec.structs.replace(summary, error=error.message)
        run = NodeRun(start.run_id, start.options)

        async def step(node: GraphNode, inputs: Any) -> NodeRecord:
            if isinstance(node.document, InputNode):
                return input_record(node, start)  # the run was stored with it
            self.watch(start.run_id, node.name, "begins")
            record = await attempt_node(node, inputs, run, self.services)
            self.watch(start.run_id, node.name, "ends")
            return record

        async def keep(
            stage: Stage, carry_out: Callable[[], Awaitable[list[NodeRecord]]]
        ) -> list[NodeRecord]:
            if isinstance(stage[0].document, InputNode):
                return await carry_out()
            records: list[NodeRecord] = []

            async def store() -> str:
                records.extend(await carry_out())
                return stored_stage(records)

            stored = await keep_stage(stage[-1].name, store)
            return records or records_of(stored, graph)

        result = await walk(graph, start, step, keep)
        return summary_of(start, result.state, result.records)
