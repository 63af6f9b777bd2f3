"""Guard and execution: the rules of `guards` with what the broker says, and `execution`.

Whatever the broker cannot say is unknown to the rules, and they veto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from weakref import WeakValueDictionary

import msgspec
import structlog

from llm_trader.clock import Clock
from llm_trader.errors import LlmTraderError
from llm_trader.llm.decision import Decision
from llm_trader.llm.expiry import check_expiry
from llm_trader.llm.record.decisions import DecisionLog, Veto
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.workflow.broker import Broker
from llm_trader.workflow.config import WorkflowConfig
from llm_trader.workflow.execution import OrderContext, execute
from llm_trader.workflow.facts import DecidedState, collect_facts
from llm_trader.workflow.guards import GuardFacts, guarded
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.nodes.running import ARMS, NodeRun, decision_key
from llm_trader.workflow.orders import OrderResult, Placed, Quote, Rejected, Unknown
from llm_trader.workflow.values import Checked, Executed, ExecuteInputs, GuardInputs, plain

# The horizon of the default hold.
_HORIZON: Final = "4h"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BrokerGuard:
    """The rules, on what the broker says now; vetoes stand with the decision in `record`."""

    broker: Broker
    config: WorkflowConfig
    clock: Clock
    record: DecisionLog | None = None

    async def __call__(self, inputs: GuardInputs, run: NodeRun) -> Checked:
        if inputs.decision.action == "HOLD":
            return Checked(decision=inputs.decision)
        facts = await self._facts(inputs)
        decision, vetoes = guarded(
            inputs.decision, facts, self.config.guards, self.config.execution
        )
        if self.record is not None:
            self._note(self.record, run, vetoes)
        return Checked(decision=decision, vetoes=list(vetoes))

    def _note(self, record: DecisionLog, run: NodeRun, vetoes: Sequence[Veto]) -> None:
        """With the decision that would be executed; a record that fails does not lift a veto."""
        arms = ARMS if run.options.ab == "off" else (run.options.ab,)
        try:
            for arm in arms:
                record.set_vetoes(decision_key(run.run_id, arm), vetoes)
        except LlmTraderError as error:
            _log.warning("vetoes_not_recorded", run_id=run.run_id, reason=error.message)

    async def _facts(self, inputs: GuardInputs) -> GuardFacts:
        snapshot, answer = inputs.snapshot, inputs.answer
        state = DecidedState(
            symbol=snapshot.symbol,
            as_of_ms=snapshot.timestamp,
            price=snapshot.price,
            data_ms=snapshot.timestamp,
            evidence=None if answer is None else answer.evidence,
        )
        guards = self.config.guards
        facts = await collect_facts(self.broker, state, self.clock.now_ms(), _HORIZON, guards)
        if facts.expected_move_pct is None:
            # Without evidence the state itself says how far the price may move.
            expected_pct = snapshot.expected_volatility_4h
            facts = msgspec.structs.replace(facts, expected_move_pct=expected_pct)
        return facts


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
            return await self._execute(inputs.decision, inputs.snapshot, run.run_id)

    async def _execute(self, decision: Decision, state: MarketSnapshot, run_id: str) -> Executed:
        symbol = state.symbol
        reconciled = await self.broker.reconcile(symbol)
        if reconciled.unknown:
            listed = ", ".join(reconciled.unknown)
            return Executed(
                state="unknown", message=f"nothing is traded until these are settled: {listed}"
            )
        context = OrderContext(run_id=run_id, symbol=symbol, now_ms=self.clock.now_ms())

        def void_reason(quote: Quote) -> str | None:
            """The guard's verdict may be of before a crash, or of before a run was cancelled."""
            now_ms, price = context.now_ms, float(quote.price)
            limits = self.config.guards.expiry
            expiry = check_expiry(state.timestamp, state.price, now_ms, price, limits)
            return f"the decision is void: {expiry.reason}" if expiry.is_void else None

        execution = await execute(
            decision,
            self.broker,
            context,
            self.config.execution,
            kill_reason=KillSwitch(self.config.guards.kill_switch).reason,
            void_reason=void_reason,
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
