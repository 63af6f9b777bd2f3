"""What is ordered, what an order comes to, and what an account holds.

Prices and quantities are Decimals, as venues write them: a float would not be a multiple of a step.
"""

from __future__ import annotations

import base64
import hashlib
import re
from decimal import Decimal
from typing import Final, Literal

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import Millis

OrderSide = Literal["BUY", "SELL"]
# `close` only reduces a position, whatever its quantity.
OrderKind = Literal["open", "close"]
FillReason = Literal["order", "stop", "target", "time", "liquidation"]

ZERO: Final = Decimal(0)

# Binance takes up to 36 of [.A-Z:/a-z0-9_-], Bybit up to 36 letters, digits, dashes, underscores.
_OURS: Final = "lt"
_DIGEST_BYTES: Final = 15  # 24 characters: two of a billion runs meet with a chance of 1e-18
_ORDER_ID: Final = re.compile(rf"{_OURS}[a-z2-7]{{24}}-[a-z]{{1,2}}")


def client_order_id(run_id: str, symbol: str, role: str) -> str:
    """The same for the same run, symbol and role, so that a repeated order is recognised.

    `role` is one or two small letters, such as `o` for the order that opens a position.
    """
    if not re.fullmatch("[a-z]{1,2}", role):
        raise InvalidInputError(f"the role {role!r} of an order is not one or two small letters")
    digest = hashlib.sha256(f"{run_id}\n{symbol}".encode()).digest()[:_DIGEST_BYTES]
    return f"{_OURS}{base64.b32encode(digest).decode().lower()}-{role}"


def is_our_order_id(text: str) -> bool:
    """Whether `client_order_id` may have made it, and not a person or another program."""
    return _ORDER_ID.fullmatch(text) is not None


class OrderIntent(msgspec.Struct, frozen=True, kw_only=True):
    """A market order. An opening one brings the stop and target that protect its position.

    `created_ms` is the time of the decision. At `close_at_ms` the position is closed, whatever its
    profit.
    """

    client_order_id: str
    symbol: str
    side: OrderSide
    quantity: Decimal
    kind: OrderKind
    created_ms: Millis
    stop_price: Decimal | None = None
    target_price: Decimal | None = None
    close_at_ms: Millis | None = None

    def __post_init__(self) -> None:
        if not is_our_order_id(self.client_order_id):
            raise InvalidInputError(
                f"{self.client_order_id!r} is no id of an order; make one with `client_order_id`"
            )
        if not (self.quantity.is_finite() and self.quantity > 0):
            raise InvalidInputError(f"the quantity {self.quantity} of an order is not above 0")
        for name, price in (("stop", self.stop_price), ("target", self.target_price)):
            if price is not None and not (price.is_finite() and price > 0):
                raise InvalidInputError(f"the {name} at {price} is not above 0")

    @property
    def signed_quantity(self) -> Decimal:
        return self.quantity if self.side == "BUY" else -self.quantity


class Placed(msgspec.Struct, frozen=True, kw_only=True, tag="placed"):
    """The venue has the order. `filled` may be less than was ordered, and grow later.

    A `waiting` order has found no price yet.
    """

    client_order_id: str
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    venue_id: str | None = None
    waiting: bool = False


class Rejected(msgspec.Struct, frozen=True, kw_only=True, tag="rejected"):
    """The order is not at the venue and never will be."""

    client_order_id: str
    reason: str
    code: str | None = None


class Unknown(msgspec.Struct, frozen=True, kw_only=True, tag="unknown"):
    """Nobody knows whether the venue has the order. Its symbol is not traded until reconciled."""

    client_order_id: str
    reason: str


OrderResult = Placed | Rejected | Unknown


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """`price` is the market's own; slippage is a cost beside it, as the evaluation has it.

    `opens`: the fill opened or enlarged a position. `realized` is the profit of what it closed,
    before costs; None where the exchange does not say.
    """

    client_order_id: str
    symbol: str
    side: OrderSide
    time_ms: Millis
    price: Decimal
    quantity: Decimal
    fee: Decimal
    slippage: Decimal
    realized: Decimal | None
    opens: bool
    reason: FillReason


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """`quantity` is above 0 for long, below for short, 0 for none.

    `opened_by` is the id of our order that opened it, and `waiting_orders` are ids of ours that
    may still change it.
    """

    symbol: str
    quantity: Decimal = ZERO
    entry_price: Decimal | None = None
    opened_ms: Millis | None = None
    stop_price: Decimal | None = None
    target_price: Decimal | None = None
    close_at_ms: Millis | None = None
    opened_by: str | None = None
    waiting_orders: tuple[str, ...] = ()

    @property
    def side(self) -> int:
        return (self.quantity > 0) - (self.quantity < 0)


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """`equity` has open positions at the latest price, of which `unrealized` is their profit;
    `available` may become margin.
    """

    currency: str
    equity: Decimal
    available: Decimal
    unrealized: Decimal


class Quote(msgspec.Struct, frozen=True):
    """The latest price known to the broker, and when it was so."""

    price: Decimal
    time_ms: Millis


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue says of a symbol, after what was unknown was looked up.

    `unknown` are ids that could not be settled; while there are any, the symbol is not traded.
    `differences` say what the venue has and the journal does not expect, such as a position that
    was changed by hand.
    """

    position: Position
    settled: tuple[OrderResult, ...] = ()
    unknown: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
