"""An engine that keeps runs in this process only: for backtests, tests and trying a graph out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_trader.workflow.engine.attempts import attempt_node
from llm_trader.workflow.engine.protocol import (
    Accepted,
    NodeRecord,
    RunDetails,
    RunNotFoundError,
    RunResult,
    RunStart,
    RunState,
    RunSummary,
)
from llm_trader.workflow.engine.summaries import summary_of
from llm_trader.workflow.engine.walk import walk
from llm_trader.workflow.graph.loading import graph_of_text
from llm_trader.workflow.graph.model import Graph, GraphNode
from llm_trader.workflow.nodes.running import NodeRun, Services


async def run_graph(graph: Graph, start: RunStart, services: Services) -> RunResult:
    """One run from its beginning to its end; a backtest calls it for each state."""
    run = NodeRun(start.run_id, start.options)

    async def step(node: GraphNode, inputs: object) -> NodeRecord:
        return await attempt_node(node, inputs, run, services)

    return await walk(graph, start, step)


@dataclass(eq=False)
class MemoryEngine:
    """Values pass as they are, without JSON in between."""

    services: Services
    _starts: dict[str, RunStart] = field(default_factory=dict, init=False)
    _tasks: dict[str, asyncio.Task[RunResult]] = field(default_factory=dict, init=False)

    async def start(self, run: RunStart) -> Accepted:
        if run.run_id in self._starts:
            return Accepted(run.run_id, is_new=False)
        self._starts[run.run_id] = run
        self._begin(run)
        return Accepted(run.run_id, is_new=True)

    async def wait(self, run_id: str) -> RunResult:
        return await self._task(run_id)

    async def depth(self) -> int:
        return sum(not task.done() for task in self._tasks.values())

    async def runs(self, *, limit: int, state: RunState | None = None) -> Sequence[RunSummary]:
        summaries = [self._summary(run_id) for run_id in reversed(self._starts)]
        return [one for one in summaries if state in (None, one.state)][:limit]

    async def show(self, run_id: str) -> RunDetails:
        task, start = self._task(run_id), self._starts[run_id]
        result = _result(task)
        return RunDetails(
            summary=self._summary(run_id),
            records=result.records if result else [],
            graph=start.graph,
            event=start.event,
        )

    async def resume(self, run_id: str) -> None:
        """From its beginning, as this engine has kept nothing."""
        task, result = self._task(run_id), _result(self._task(run_id))
        if task.done() and (result is None or result.state == "failed"):
            self._begin(self._starts[run_id])

    async def cancel(self, run_id: str) -> None:
        task = self._task(run_id)
        task.cancel()
        await asyncio.wait([task])

    def _begin(self, run: RunStart) -> None:
        graph = graph_of_text(run.graph, self.services.scripts)
        self._tasks[run.run_id] = asyncio.create_task(run_graph(graph, run, self.services))

    def _task(self, run_id: str) -> asyncio.Task[RunResult]:
        if run_id not in self._tasks:
            raise RunNotFoundError(f"there is no run {run_id}")
        return self._tasks[run_id]

    def _summary(self, run_id: str) -> RunSummary:
        task = self._tasks[run_id]
        result = _result(task)
        state: RunState = "running"
        if task.done():
            state = "cancelled" if result is None else result.state
        return summary_of(self._starts[run_id], state, result.records if result else ())


def _result(task: asyncio.Task[RunResult]) -> RunResult | None:
    return task.result() if task.done() and not task.cancelled() else None
