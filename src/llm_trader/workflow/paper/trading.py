"""What fills do to positions and books: costs, margin, liquidation. All within a transaction."""

from __future__ import annotations

from decimal import Decimal
from math import inf
from typing import Final

from msgspec.structs import replace

from llm_trader.timeframe import Millis
from llm_trader.trading.exits import Exit, OpenPosition
from llm_trader.workflow.config import PaperConfig
from llm_trader.workflow.instrument import exact
from llm_trader.workflow.orders import ZERO, Fill, FillReason, OrderIntent
from llm_trader.workflow.paper.accounting import (
    EXACT,
    INSURANCE,
    WALLET,
    Holding,
    charge,
    closing_entries,
    liquidation_price,
    money,
    opening_entries,
    released_cost,
)
from llm_trader.workflow.paper.state import PaperState, SymbolState

_BPS: Final = Decimal(10_000)
_PCT: Final = Decimal(100)
_INFINITY: Final = Decimal("Infinity")


class PaperTrading:
    """Opens and closes positions of one account."""

    def __init__(self, state: PaperState, config: PaperConfig, currency: str) -> None:
        self._state = state
        self._ledger = state.ledger
        self._currency = currency
        self._fee = exact(config.taker_fee_bps) / _BPS
        self._slippage = exact(config.slippage_bps) / _BPS
        self._liquidation_fee = exact(config.liquidation_fee_bps) / _BPS
        self._leverage = exact(config.leverage)
        self._maintenance = exact(config.maintenance_margin_pct) / _PCT

    def lacks_margin(
        self, state: SymbolState, opened: Decimal, closed: Decimal, price: Decimal
    ) -> str | None:
        """Why so much cannot be opened, after `closed` of an opposite position was."""
        if not opened:
            return None
        notional = money(EXACT.multiply(opened, price))
        needed = money(notional / self._leverage) + self._costs(notional)
        available = self._ledger.balance(WALLET, self._currency) - self._state.total_margin()
        if closed and state.holding is not None:
            # An opening order that also closes does so with the whole position.
            available += state.holding.margin + state.holding.unrealized(price)
            available -= self._costs(money(EXACT.multiply(closed, price)))
        if needed <= available:
            return None
        return f"margin and fees come to {needed:f}, and only {available:f} is available"

    def _costs(self, notional: Decimal) -> Decimal:
        return money(notional * self._fee) + money(notional * self._slippage)

    def open(
        self,
        state: SymbolState,
        intent: OrderIntent,
        opened: Decimal,
        time_ms: Millis,
        price: Decimal,
    ) -> None:
        signed = opened if intent.side == "BUY" else -opened
        notional = money(EXACT.multiply(opened, price))
        cost = -notional if signed > 0 else notional
        fee, slippage = money(notional * self._fee), money(notional * self._slippage)
        entries = [
            *opening_entries(intent.symbol, self._currency, signed, cost),
            *charge("fees", self._currency, fee),
            *charge("slippage", self._currency, slippage),
        ]
        self._ledger.post(time_ms, "open", entries, symbol=intent.symbol)
        holding = self._enlarged(state.holding, intent, signed, cost, time_ms)
        self._state.hold(state, holding)
        fill = Fill(
            client_order_id=intent.client_order_id,
            symbol=intent.symbol,
            side=intent.side,
            time_ms=time_ms,
            price=price,
            quantity=opened,
            fee=fee,
            slippage=slippage,
            realized=ZERO,
            opens=True,
            reason="order",
        )
        self._state.record_fill(fill, holding.quantity)

    def _enlarged(
        self,
        before: Holding | None,
        intent: OrderIntent,
        signed: Decimal,
        cost: Decimal,
        time_ms: Millis,
    ) -> Holding:
        """What is held after a signed quantity came in; the latest order protects all of it."""
        margin, opened_ms = money(abs(cost) / self._leverage), time_ms
        if before is not None:
            signed, cost = signed + before.quantity, cost + before.cost
            margin, opened_ms = margin + before.margin, before.opened_ms
        return Holding(
            quantity=signed,
            cost=cost,
            margin=margin,
            opened_ms=opened_ms,
            client_order_id=intent.client_order_id,
            liquidation_price=liquidation_price(signed, cost, margin, self._maintenance),
            stop_price=intent.stop_price,
            target_price=intent.target_price,
            close_at_ms=intent.close_at_ms,
        )

    def exit(self, state: SymbolState, end: Exit[Decimal]) -> None:
        """Closes a position by its own rules."""
        holding = state.holding
        if holding is None:
            return
        reason: FillReason = "target" if end.reason == "target" else "time"
        if end.reason == "stop":
            reason = "liquidation" if _is_liquidated(holding) else "stop"
        order_id = holding.client_order_id
        self.close(state, holding.quantity, end.time_ms, end.price, order_id, reason)

    def close(
        self,
        state: SymbolState,
        quantity: Decimal,
        time_ms: Millis,
        price: Decimal,
        order_id: str,
        reason: FillReason,
    ) -> None:
        """Closes a signed part of a position. It loses no more than its margin."""
        holding, symbol = state.holding, state.symbol
        if holding is None:
            return
        released = released_cost(holding, quantity)
        proceeds = money(EXACT.multiply(quantity, price))
        fee, slippage = money(abs(proceeds) * self._fee), money(abs(proceeds) * self._slippage)
        if reason == "liquidation":
            fee += money(abs(proceeds) * self._liquidation_fee)
        entries = [
            *closing_entries(symbol, self._currency, quantity, released, proceeds),
            *charge("fees", self._currency, fee),
            *charge("slippage", self._currency, slippage),
        ]
        is_whole = quantity == holding.quantity
        margin = holding.margin if is_whole else money(holding.margin * quantity / holding.quantity)
        lost = fee + slippage - released - proceeds
        if lost > margin:
            entries += charge(INSURANCE, self._currency, margin - lost)
        self._ledger.post(time_ms, reason, entries, symbol=symbol)
        self._state.hold(state, self._rest(holding, quantity, released, margin))
        fill = Fill(
            client_order_id=order_id,
            symbol=symbol,
            side="SELL" if quantity > 0 else "BUY",
            time_ms=time_ms,
            price=price,
            quantity=abs(quantity),
            fee=fee,
            slippage=slippage,
            realized=released + proceeds,
            opens=False,
            reason=reason,
        )
        self._state.record_fill(fill, holding.quantity - quantity)
        self._cover_debts(time_ms, symbol)

    def _rest(
        self, holding: Holding, quantity: Decimal, released: Decimal, margin: Decimal
    ) -> Holding | None:
        left, cost, rest = holding.quantity - quantity, holding.cost - released, holding.margin
        if not left:
            return None
        return replace(
            holding,
            quantity=left,
            cost=cost,
            margin=rest - margin,
            liquidation_price=liquidation_price(left, cost, rest - margin, self._maintenance),
        )

    def settle(self, symbol: str, due_ms: Millis, rate: Decimal, price: Decimal) -> None:
        """Funding, once for each due time, by who held a position before it."""
        quantity = self._state.quantity_before(symbol, due_ms)
        if not quantity:
            return
        paid = money(EXACT.multiply(EXACT.multiply(quantity, price), rate))
        entries = charge("funding", self._currency, paid)
        self._ledger.post(due_ms, "funding", entries, symbol=symbol, reference=str(due_ms))
        self._cover_debts(due_ms, symbol)

    def _cover_debts(self, time_ms: Millis, symbol: str) -> None:
        """Funding may cost more than there is; without a position nobody can pay that."""
        wallet = self._ledger.balance(WALLET, self._currency)
        if wallet < 0 and not self._state.held_symbols():
            debts = charge(INSURANCE, self._currency, wallet)
            self._ledger.post(time_ms, "insurance", debts, symbol=symbol)


def as_open_position(holding: Holding) -> OpenPosition[Decimal]:
    """With the liquidation for a stop, where that comes first."""
    side = holding.side
    target = side * _INFINITY if holding.target_price is None else holding.target_price
    deadline_ms = inf if holding.close_at_ms is None else holding.close_at_ms
    stop = holding.stop_price
    if stop is None or _is_liquidated(holding):
        stop = holding.liquidation_price
    return OpenPosition(side, holding.opened_ms, holding.entry_price, stop, target, deadline_ms)


def _is_liquidated(holding: Holding) -> bool:
    """Whether the liquidation comes before the stop."""
    stop = holding.stop_price
    return stop is None or (holding.liquidation_price - stop) * holding.side > 0
