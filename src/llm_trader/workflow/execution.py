"""A decision and a position become orders.

1. A HOLD and a repeated side keep a position; one that is overdue is closed whatever was decided.
2. An opposite decision closes it (role `c` of the run's orders) and, by the setting, opens another.
3. A new position (role `o`) has its size from the equity and the latest price, in whole steps, and
   a stop and a target that go to the venue with it.

Every order has an id that follows from the run, so that whoever repeats this after a crash places
nothing twice. The same code trades a backtest, on paper and live: only clock and broker differ.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec

from llm_trader.llm.decision import Action, Decision
from llm_trader.timeframe import MINUTE_MS, Millis
from llm_trader.workflow.broker import Broker
from llm_trader.workflow.config import ExecutionConfig
from llm_trader.workflow.instrument import InstrumentRules, exact
from llm_trader.workflow.orders import (
    Balance,
    OrderIntent,
    OrderResult,
    OrderSide,
    Placed,
    Position,
    Quote,
    client_order_id,
)

OPEN_ROLE: Final = "o"
CLOSE_ROLE: Final = "c"

_PCT: Final = Decimal(100)
_SIDES: Final[dict[Action, int]] = {"LONG": 1, "SHORT": -1, "HOLD": 0}


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a decision: the orders' results, and in words why there are no more."""

    results: tuple[OrderResult, ...] = ()
    note: str = ""


class OrderContext(msgspec.Struct, frozen=True, kw_only=True):
    """`run_id` decides the ids of orders; `now_ms` is the time at which they are made."""

    run_id: str
    symbol: str
    now_ms: Millis


async def execute(
    decision: Decision,
    broker: Broker,
    context: OrderContext,
    config: ExecutionConfig,
    *,
    kill_reason: Callable[[], str | None] = lambda: None,
    void_reason: Callable[[Quote], str | None] = lambda quote: None,
) -> Execution:
    """Places what a decision asks for.

    `kill_reason` is asked before a position is opened, and `void_reason` before any order of the
    decision: a run that goes on after a crash may be late. Orders that were sent already are looked
    up whatever these say.

    Raises `LlmTraderError` where position, price or balance cannot be known; then nothing more
    was ordered than the results of a repetition will say.
    """
    symbol, side = context.symbol, _SIDES[decision.action]
    results: list[OrderResult] = []
    position = await broker.position(symbol)
    opening_id = client_order_id(context.run_id, symbol, OPEN_ROLE)
    if position.opened_by == opening_id:
        # A repetition: the order is looked up, and what protects the position is completed.
        again = await broker.place(_same_again(position, opening_id, context))
        return Execution(results=(again,), note="this run has opened the position already")
    overdue = is_overdue(position, context.now_ms)
    if overdue or (side == -position.side != 0 and config.opposite != "ignore"):
        closing = closing_intent(position, context)
        if not overdue:
            reason = void_reason(await broker.quote(symbol))
            if await _stops(reason, broker, closing.client_order_id, symbol):
                return Execution(note=f"the position is kept: {reason}")
        result = await broker.place(closing)
        results.append(result)
        if not isinstance(result, Placed):
            return Execution(results=tuple(results), note="the position could not be closed")
        if not side or (config.opposite == "close" and not overdue):
            return Execution(results=tuple(results), note="the position was closed")
        position = await broker.position(symbol)
        if position.side and not result.waiting:
            return Execution(results=tuple(results), note="the position is not closed yet")
    elif position.side or not side:
        return Execution(note="the position is kept" if position.side else "there is nothing to do")
    opened = await _open(
        decision, broker, context, config, lambda quote: kill_reason() or void_reason(quote)
    )
    return msgspec.structs.replace(opened, results=(*results, *opened.results))


async def _open(
    decision: Decision,
    broker: Broker,
    context: OrderContext,
    config: ExecutionConfig,
    stop_reason: Callable[[Quote], str | None],
) -> Execution:
    symbol = context.symbol
    quote = await broker.quote(symbol)
    reason = stop_reason(quote)
    opening_id = client_order_id(context.run_id, symbol, OPEN_ROLE)
    if await _stops(reason, broker, opening_id, symbol):
        return Execution(note=reason or "")
    balance, rules = await broker.balance(), await broker.instrument(symbol)
    intent = opening_intent(decision, context, config, quote, balance, rules)
    if intent is None:
        note = f"{balance.equity:f} {balance.currency} are too little for a step of the contract"
        return Execution(note=note)
    return Execution(results=(await broker.place(intent),))


async def _stops(reason: str | None, broker: Broker, client_order_id: str, symbol: str) -> bool:
    """Nothing stops an order that was sent before: what became of it has to be known."""
    return reason is not None and not await broker.has_order(symbol, client_order_id)


def is_overdue(position: Position, now_ms: Millis) -> bool:
    return (
        bool(position.side)
        and position.close_at_ms is not None
        and (now_ms >= position.close_at_ms)
    )


def closing_intent(position: Position, context: OrderContext) -> OrderIntent:
    return OrderIntent(
        client_order_id=client_order_id(context.run_id, context.symbol, CLOSE_ROLE),
        symbol=context.symbol,
        side="SELL" if position.side > 0 else "BUY",
        quantity=abs(position.quantity),
        kind="close",
        created_ms=context.now_ms,
    )


def opening_intent(
    decision: Decision,
    context: OrderContext,
    config: ExecutionConfig,
    quote: Quote,
    balance: Balance,
    rules: InstrumentRules,
) -> OrderIntent | None:
    """None where the equity is too small for one step."""
    side, price = _SIDES[decision.action], quote.price
    size_pct = config.size_pct if decision.size_pct is None else decision.size_pct
    quantity = rules.floor_quantity(balance.equity * exact(size_pct) / _PCT / price)
    if quantity <= 0:
        return None
    stop_pct = config.stop_pct if decision.stop_pct is None else -decision.stop_pct
    target_pct = config.target_pct if decision.target_pct is None else decision.target_pct
    target_price = rules.round_price(price * (1 + side * exact(target_pct) / _PCT))
    hold_ms = config.longest_hold_minutes * MINUTE_MS
    order_side: OrderSide = "BUY" if side > 0 else "SELL"
    return OrderIntent(
        client_order_id=client_order_id(context.run_id, context.symbol, OPEN_ROLE),
        symbol=context.symbol,
        side=order_side,
        quantity=quantity,
        kind="open",
        created_ms=context.now_ms,
        stop_price=rules.round_price(price * (1 - side * exact(stop_pct) / _PCT)),
        # A short of a target of 100 % or more has none: no price falls so far.
        target_price=target_price if target_price > 0 else None,
        close_at_ms=context.now_ms + hold_ms if hold_ms else None,
    )


def _same_again(position: Position, opening_id: str, context: OrderContext) -> OrderIntent:
    """The broker knows the order by its id and goes by what it has noted of it."""
    return OrderIntent(
        client_order_id=opening_id,
        symbol=context.symbol,
        side="BUY" if position.side > 0 else "SELL",
        quantity=abs(position.quantity),
        kind="open",
        created_ms=context.now_ms,
        stop_price=position.stop_price,
        target_price=position.target_price,
        close_at_ms=position.close_at_ms,
    )
