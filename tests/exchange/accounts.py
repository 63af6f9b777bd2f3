"""One account of the fake exchange: orders, conditional orders, a position for each symbol.

Both venues' interfaces show the same account. Market orders fill at `prices`; `fill_shares` are the
shares that the next ones fill of at once, and what becomes of the rest. `move_price` triggers stops
and targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

FEE = Decimal("0.0005")
ZERO = Decimal(0)
LARGEST_LEVERAGE = 20

Rest = Literal["expires", "later"]


class AccountRefusalError(Exception):
    """Why an order is not taken; each venue has its own code for it."""


@dataclass
class Order:
    client_id: str
    venue_id: int
    symbol: str
    side: int
    quantity: Decimal
    reduce_only: bool
    time_ms: int
    status: Literal["open", "filled", "ended"] = "open"
    filled: Decimal = ZERO
    price: Decimal = ZERO
    stop: Decimal | None = None
    target: Decimal | None = None


@dataclass
class Conditional:
    """A stop or target that closes the position of its symbol."""

    client_id: str
    venue_id: int
    symbol: str
    kind: Literal["stop", "target"]
    side: int
    trigger: Decimal
    time_ms: int
    status: Literal["open", "triggered", "cancelled"] = "open"

    def is_met(self, price: Decimal) -> bool:
        below = (self.side < 0) == (self.kind == "stop")
        return price <= self.trigger if below else price >= self.trigger


@dataclass
class Trade:
    order: Order
    time_ms: int
    side: int
    price: Decimal
    quantity: Decimal
    closed: Decimal
    realized: Decimal


@dataclass
class Position:
    quantity: Decimal = ZERO
    entry_price: Decimal = ZERO
    # Bybit's belong to the position.
    stop: Decimal | None = None
    target: Decimal | None = None


@dataclass
class Account:
    wallet: Decimal = Decimal(10_000)
    prices: dict[str, Decimal] = field(default_factory=dict)
    positions: dict[str, Position] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    conditionals: list[Conditional] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
    fill_shares: list[tuple[Decimal, Rest]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    hedge_mode: bool = False

    def position(self, symbol: str) -> Position:
        return self.positions.setdefault(symbol, Position())

    def price(self, symbol: str) -> Decimal:
        return self.prices.get(symbol, Decimal(100))

    def unrealized(self) -> Decimal:
        return sum(
            (p.quantity * (self.price(s) - p.entry_price) for s, p in self.positions.items()), ZERO
        )

    def order(
        self,
        client_id: str,
        symbol: str,
        side: int,
        quantity: Decimal,
        *,
        reduce_only: bool,
        time_ms: int,
        stop: Decimal | None = None,
        target: Decimal | None = None,
    ) -> Order:
        """A market order."""
        held = self.position(symbol).quantity
        if self.refusals:
            raise AccountRefusalError(self.refusals.pop(0))
        if quantity % Decimal("0.001") or quantity <= 0:
            raise AccountRefusalError("step")
        if reduce_only:
            if held * side >= 0:
                raise AccountRefusalError("reduce_only")
            quantity = min(quantity, abs(held))
        elif quantity * self.price(symbol) < 5:
            raise AccountRefusalError("notional")
        elif quantity * self.price(symbol) > self.wallet * LARGEST_LEVERAGE:
            raise AccountRefusalError("margin")
        order = Order(
            client_id, self._next_id(), symbol, side, quantity, reduce_only, time_ms,
            stop=stop, target=target,
        )  # fmt: skip
        self.orders.append(order)
        share, rest = self.fill_shares.pop(0) if self.fill_shares else (Decimal(1), "expires")
        part = (quantity * share).quantize(Decimal("0.001"))
        self._fill(order, part, time_ms)
        if order.status == "open" and rest == "expires":
            order.status = "ended"
        return order

    def fill_late(self, time_ms: int) -> None:
        """What was left open of orders is filled now."""
        for order in self.orders:
            if order.status == "open":
                self._fill(order, order.quantity - order.filled, time_ms)

    def condition(
        self, client_id: str, symbol: str, kind: Literal["stop", "target"], side: int,
        trigger: Decimal, time_ms: int,
    ) -> Conditional:  # fmt: skip
        conditional = Conditional(client_id, self._next_id(), symbol, kind, side, trigger, time_ms)
        if self.refusals:
            raise AccountRefusalError(self.refusals.pop(0))
        if conditional.is_met(self.price(symbol)):
            raise AccountRefusalError("triggers")
        self.conditionals.append(conditional)
        return conditional

    def move_price(self, symbol: str, price: Decimal, time_ms: int) -> None:
        self.prices[symbol] = price
        for conditional in self.conditionals:
            if conditional.symbol == symbol and conditional.status == "open":
                if not conditional.is_met(price):
                    continue
                conditional.status = "triggered"
                self._close(symbol, conditional.side, time_ms)
        position = self.position(symbol)
        side = 1 if position.quantity > 0 else -1
        reached = [
            position.stop is not None and (position.stop - price) * side >= 0,
            position.target is not None and (price - position.target) * side >= 0,
        ]
        if position.quantity and any(reached):
            self._close(symbol, -side, time_ms)

    def change_by_hand(self, symbol: str, quantity: Decimal, time_ms: int) -> None:
        """A person trades until the position has this signed quantity."""
        change = quantity - self.position(symbol).quantity
        self.order(
            "web_a person", symbol, 1 if change > 0 else -1, abs(change), reduce_only=False,
            time_ms=time_ms,
        )  # fmt: skip

    def open_conditionals(self, symbol: str) -> list[Conditional]:
        return [c for c in self.conditionals if c.symbol == symbol and c.status == "open"]

    def _close(self, symbol: str, side: int, time_ms: int) -> None:
        held = self.position(symbol).quantity
        if held * side < 0:
            order = Order("", self._next_id(), symbol, side, abs(held), True, time_ms)
            self.orders.append(order)
            self._fill(order, order.quantity, time_ms)

    def _fill(self, order: Order, quantity: Decimal, time_ms: int) -> None:
        position, price = self.position(order.symbol), self.price(order.symbol)
        held, change = position.quantity, order.side * quantity
        closed = min(quantity, abs(held)) if held * change < 0 else ZERO
        opened = quantity - closed
        realized = closed * (price - position.entry_price) * (1 if held > 0 else -1)
        if opened:
            kept = abs(held) - closed
            total = kept + opened
            position.entry_price = (kept * position.entry_price + opened * price) / total
        position.quantity = held + change
        if not position.quantity:
            position.stop = position.target = None
        elif opened and (order.stop is not None or order.target is not None):
            position.stop, position.target = order.stop, order.target
        self.wallet += realized - quantity * price * FEE
        order.filled, order.price = order.filled + quantity, price
        order.status = "filled" if order.filled == order.quantity else "open"
        if quantity:
            self.trades.append(Trade(order, time_ms, order.side, price, quantity, closed, realized))

    def _next_id(self) -> int:
        return 1000 + len(self.orders) + len(self.conditionals)
