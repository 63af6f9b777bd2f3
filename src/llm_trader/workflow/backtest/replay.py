"""Runs a graph for each past state of one symbol, and plays the market to the broker in between.

A run at T finds the broker at the open of T, as the evaluation's simulator fills it there. What is
open at the end is closed at the last close.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from llm_trader.llm.decision import Decision
from llm_trader.timeframe import Millis
from llm_trader.workflow.backtest.clock import BacktestClock
from llm_trader.workflow.engine.memory import run_graph
from llm_trader.workflow.engine.protocol import RunOptions, RunResult, RunStart, run_id
from llm_trader.workflow.execution import OrderContext, closing_intent
from llm_trader.workflow.graph.model import Graph
from llm_trader.workflow.nodes.running import Services
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.feed import MarketFeed
from llm_trader.workflow.values import Checked, Decided, Executed, Received


@dataclass(slots=True)
class Replayed:
    """What the runs came to. `decisions` are those after the guards, `equity` is before each."""

    time_ms: list[Millis] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    equity: list[Decimal] = field(default_factory=list)
    vetoes: Counter[str] = field(default_factory=Counter)
    orders: Counter[str] = field(default_factory=Counter)
    node_errors: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class Replay:
    graph: Graph
    services: Services
    clock: BacktestClock
    broker: PaperBroker
    feed: MarketFeed
    options: RunOptions = field(default_factory=RunOptions)
    replayed: Replayed = field(default_factory=Replayed)

    async def run(self, received: Received) -> RunResult:
        """Decides on the next state, at its own time."""
        self.clock.time_ms = received.as_of_ms
        self.feed.advance(self.broker, received.as_of_ms)
        equity = (await self.broker.balance()).equity
        start = RunStart(
            run_id=run_id(self.graph.name, received),
            workflow=self.graph.name,
            graph=self.graph.text,
            method="snapshot.post",
            event=received,
            options=self.options,
            accepted_at_ms=received.received_at_ms,
        )
        result = await run_graph(self.graph, start, self.services)
        self._note(received.as_of_ms, equity, result)
        return result

    def _note(self, time_ms: Millis, equity: Decimal, result: RunResult) -> None:
        noted = self.replayed
        decision = Decision.hold("error", result.error or "no node of the graph decided")
        for record in result.records:
            output = record.output
            if record.error is not None:
                noted.node_errors[f"{record.node}: {record.error.code}"] += 1
            if isinstance(output, Decided | Checked):
                decision = output.decision
            if isinstance(output, Checked):
                noted.vetoes.update(veto.rule for veto in output.vetoes)
            if isinstance(output, Executed):
                noted.orders[output.state] += 1
        if result.state == "failed":
            noted.failures[result.error or "for no known reason"] += 1
            decision = Decision.hold("error", result.error or "the run failed")
        noted.time_ms.append(time_ms)
        noted.decisions.append(decision)
        noted.equity.append(equity)

    async def close(self, end_ms: Millis) -> Decimal:
        """Plays the rest of the market, closes what is open, and says what equity is left."""
        self.clock.time_ms = end_ms
        self.feed.advance(self.broker, end_ms)
        for position in await self.broker.positions():
            symbol = position.symbol
            self.broker.on_price(symbol, end_ms, (await self.broker.quote(symbol)).price)
            context = OrderContext(run_id="end", symbol=symbol, now_ms=end_ms)
            await self.broker.place(closing_intent(position, context))
        return (await self.broker.balance()).equity
