"""Services for tests of engines: answers that are functions of their input, and a note of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_trader.clock import WallClock
from llm_trader.errors import LlmTraderError
from llm_trader.llm.decision import Decision
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import MINUTE_MS, Millis
from llm_trader.workflow.engine.protocol import RunOptions, RunStart, run_id
from llm_trader.workflow.graph.document import RpcConfig
from llm_trader.workflow.graph.model import Graph
from llm_trader.workflow.nodes.running import NodeRun, Services
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.values import (
    Checked,
    Decided,
    DecideInputs,
    Executed,
    ExecuteInputs,
    GuardInputs,
    QueryInputs,
    Received,
)

START_MS: Millis = 1_767_225_600_000  # 2026-01-01T00:00Z


class NoServerError(LlmTraderError):
    code = "no_server"


@dataclass
class Calls:
    """What the services were asked; `failures` raises for the next so many queries."""

    answer: Answer | None = None
    failures: int = 0
    slow_s: float = 0.0
    queries: list[QueryInputs] = field(default_factory=list)
    decided: list[DecideInputs] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    under_way: dict[str, int] = field(default_factory=dict)
    most_under_way: int = 0
    most_of_a_symbol: int = 0

    async def retrieve(
        self, inputs: QueryInputs, rpc: RpcConfig, query: Mapping[str, Any]
    ) -> Answer:
        self.queries.append(inputs)
        await asyncio.sleep(self.slow_s)
        if self.failures > 0:
            self.failures -= 1
            raise NoServerError("no server answers")
        if self.answer is None:
            raise NoServerError("no server answers")
        return self.answer

    async def decide(self, inputs: DecideInputs, run: NodeRun) -> Decided:
        self.decided.append(inputs)
        symbol = inputs.snapshot.symbol
        self.under_way[symbol] = self.under_way.get(symbol, 0) + 1
        self.most_under_way = max(self.most_under_way, sum(self.under_way.values()))
        self.most_of_a_symbol = max(self.most_of_a_symbol, self.under_way[symbol])
        await asyncio.sleep(self.slow_s)
        self.under_way[symbol] -= 1
        has_evidence = inputs.prompts.rag is not None
        return Decided(
            decision=Decision("LONG", 0.7, "as the test says"),
            arm_used="rag" if has_evidence else "baseline",
            has_evidence=has_evidence,
            note=inputs.retrieval_error,
        )

    async def guard(self, inputs: GuardInputs, run: NodeRun) -> Checked:
        return Checked(decision=inputs.decision)

    async def execute(self, inputs: ExecuteInputs, run: NodeRun) -> Executed:
        self.executed.append(run.run_id)
        return Executed(state="placed", message="as the test says")

    def services(self) -> Services:
        return Services(
            clock=WallClock(lambda: START_MS),
            retrieve=self.retrieve,
            scripts=SCRIPTS,
            decide=self.decide,
            guard=self.guard,
            execute=self.execute,
        )


def received(symbol: str = "BTCUSDT", number: int = 0) -> Received:
    """The snapshot of the quarter-hour of that number."""
    as_of_ms = START_MS + number * 15 * MINUTE_MS
    return Received(
        symbol=symbol,
        as_of_ms=as_of_ms,
        snapshot=MarketSnapshot(symbol=symbol, timestamp=as_of_ms, price=100.0 + number),
        snapshot_id=f"{symbol}/{number}",
        received_at_ms=as_of_ms,
    )


def start_of(graph: Graph, event: Received | None = None, **options: Any) -> RunStart:
    event = event or received()
    return RunStart(
        run_id=run_id(graph.name, event),
        workflow=graph.name,
        graph=graph.text,
        method="snapshot.post",
        event=event,
        options=RunOptions(**options),
        accepted_at_ms=event.received_at_ms,
    )
