"""Guard and execution: the rules of `guards` with what the broker says, and `execution`.

Whatever the broker cannot say is unknown to the rules, and they veto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, TypeVar
from weakref import WeakValueDictionary

import structlog

from llm_trader.clock import Clock
from llm_trader.errors import LlmTraderError
from llm_trader.llm.decision import Decision
from llm_trader.retrieval.answer import Answer
from llm_trader.timeframe import DAY_MS, SECOND_MS
from llm_trader.workflow.broker import Broker
from llm_trader.workflow.config import WorkflowConfig
from llm_trader.workflow.execution import OrderContext, execute
from llm_trader.workflow.guards import GuardFacts, guarded
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.nodes.running import NodeRun
from llm_trader.workflow.orders import OrderResult, Placed, Position, Rejected, Unknown
from llm_trader.workflow.values import Checked, Executed, ExecuteInputs, GuardInputs, plain

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerGuard:
    """The rules, on what the broker says now."""

    broker: Broker
    config: WorkflowConfig
    clock: Clock

    async def __call__(self, inputs: GuardInputs, run: NodeRun) -> Checked:
        if inputs.decision.action == "HOLD":
            return Checked(decision=inputs.decision)
        facts = await self._facts(inputs)
        decision, vetoes = guarded(
            inputs.decision, facts, self.config.guards, self.config.execution
        )
        return Checked(decision=decision, vetoes=list(vetoes))

    async def _facts(self, inputs: GuardInputs) -> GuardFacts:
        snapshot, answer, symbol = inputs.snapshot, inputs.answer, inputs.snapshot.symbol
        broker, now_ms = self.broker, self.clock.now_ms()
        reconciled = await _known(broker.reconcile(symbol), "reconciliation", symbol)
        positions = await _known(broker.positions(), "positions", symbol)
        since_ms = now_ms - now_ms % DAY_MS
        since_ms = min(since_ms, now_ms - round(self.config.guards.cooldown_s * SECOND_MS))
        return GuardFacts(
            symbol=symbol,
            now_ms=now_ms,
            as_of_ms=snapshot.timestamp,
            price_then=snapshot.price,
            data_ms=snapshot.timestamp,
            quote=await _known(broker.quote(symbol), "price", symbol),
            position=None if reconciled is None else reconciled.position,
            balance=await _known(broker.balance(), "balance", symbol),
            exposures=await self._exposures(positions, symbol),
            fills=await _known(broker.fills(since_ms), "fills", symbol),
            verdict=None if answer is None else answer.evidence.verdict,
            novelty=_novelty(answer),
            expected_move_pct=snapshot.expected_volatility_4h,
            unknown_orders=None if reconciled is None else reconciled.unknown,
            kill_reason=KillSwitch(self.config.guards.kill_switch).reason(),
        )

    async def _exposures(
        self, positions: Sequence[Position] | None, symbol: str
    ) -> dict[str, Decimal] | None:
        """None where the price of one of them is unknown."""
        if positions is None:
            return None
        exposures: dict[str, Decimal] = {}
        for position in positions:
            quote = await _known(self.broker.quote(position.symbol), "price", symbol)
            if quote is None:
                return None
            exposures[position.symbol] = abs(position.quantity) * quote.price
        return exposures


@dataclass(frozen=True, slots=True)
class BrokerExecutes:
    """One order of a symbol at a time; a HOLD may close a position that is overdue."""

    broker: Broker
    config: WorkflowConfig
    clock: Clock
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def __call__(self, inputs: ExecuteInputs, run: NodeRun) -> Executed:
        symbol = inputs.snapshot.symbol
        lock = self._locks.setdefault(symbol, asyncio.Lock())
        async with lock:
            return await self._execute(inputs.decision, symbol, run.run_id)

    async def _execute(self, decision: Decision, symbol: str, run_id: str) -> Executed:
        reconciled = await self.broker.reconcile(symbol)
        if reconciled.unknown:
            listed = ", ".join(reconciled.unknown)
            return Executed(
                state="unknown", message=f"nothing is traded until these are settled: {listed}"
            )
        execution = await execute(
            decision,
            self.broker,
            OrderContext(run_id=run_id, symbol=symbol, now_ms=self.clock.now_ms()),
            self.config.execution,
            kill_reason=KillSwitch(self.config.guards.kill_switch).reason,
        )
        results = execution.results
        return Executed(
            state=_state(results),
            message=execution.note or "; ".join(map(_words, results)),
            orders=[plain(result) for result in results],
        )


def _state(
    results: Sequence[OrderResult],
) -> Literal["none", "placed", "rejected", "unknown"]:
    """The worst counts."""
    if any(isinstance(one, Unknown) for one in results):
        return "unknown"
    if any(isinstance(one, Rejected) for one in results):
        return "rejected"
    return "placed" if results else "none"


def _words(result: OrderResult) -> str:
    if not isinstance(result, Placed):
        return result.reason
    if result.waiting:
        return f"order {result.client_order_id} waits for a price"
    return f"{result.filled:f} filled at {result.average_price}"


def _novelty(answer: Answer | None) -> float | None:
    if answer is None or answer.evidence.novelty is None:
        return None
    return answer.evidence.novelty.percentile


async def _known(asked: Awaitable[T], what: str, symbol: str) -> T | None:
    try:
        return await asked
    except LlmTraderError as error:
        _log.warning("broker_fact_unknown", fact=what, symbol=symbol, reason=error.message)
        return None
