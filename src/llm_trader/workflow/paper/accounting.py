"""The entries that fills, funding and liquidations make in the books. No I/O here.

The accounts of the quote currency:

    wallet      cash of the account        deposits    where it came from
    fees, slippage, funding                what trading has cost
    cost:S      what a position in S cost: below 0 for long, above for short
    market      everybody else             insurance   who pays what a margin does not cover

Contracts of S are an asset of their own, on the accounts `position:S` and `market`. The amounts of
a transaction sum to 0 for each asset. Amounts are exact: products are rounded once, to the unit of
the currency, and what was rounded is what is booked on both sides.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, NamedTuple

import msgspec

from llm_trader.timeframe import Millis
from llm_trader.workflow.orders import ZERO, Position

# Far more digits than amounts have, so that sums are never rounded.
EXACT: Final = Context(prec=60)
MONEY_UNIT: Final = Decimal("0.00000001")

WALLET: Final = "wallet"
MARKET: Final = "market"
INSURANCE: Final = "insurance"


class Entry(NamedTuple):
    account: str
    asset: str
    amount: Decimal


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """An open position with what protects it. `cost` is that of the account `cost:S`.

    At `liquidation_price` the margin is used up but for what the venue asks to be left.
    """

    quantity: Decimal
    cost: Decimal
    margin: Decimal
    opened_ms: Millis
    client_order_id: str
    liquidation_price: Decimal
    stop_price: Decimal | None = None
    target_price: Decimal | None = None
    close_at_ms: Millis | None = None

    @property
    def side(self) -> int:
        return 1 if self.quantity > 0 else -1

    @property
    def entry_price(self) -> Decimal:
        return abs(EXACT.divide(self.cost, self.quantity))

    def as_position(self, symbol: str, waiting_orders: tuple[str, ...] = ()) -> Position:
        return Position(
            symbol=symbol,
            quantity=self.quantity,
            entry_price=self.entry_price,
            opened_ms=self.opened_ms,
            stop_price=self.stop_price,
            target_price=self.target_price,
            close_at_ms=self.close_at_ms,
            opened_by=self.client_order_id,
            waiting_orders=waiting_orders,
        )

    def unrealized(self, price: Decimal) -> Decimal:
        return money(EXACT.multiply(self.quantity, price)) + self.cost


def money(amount: Decimal) -> Decimal:
    return amount.quantize(MONEY_UNIT, ROUND_HALF_EVEN, EXACT)


def opening_entries(symbol: str, currency: str, quantity: Decimal, cost: Decimal) -> list[Entry]:
    """A signed quantity comes in at a signed cost, such as 1 for -100."""
    return [
        Entry(f"position:{symbol}", symbol, quantity),
        Entry(MARKET, symbol, -quantity),
        Entry(f"cost:{symbol}", currency, cost),
        Entry(MARKET, currency, -cost),
    ]


def closing_entries(
    symbol: str, currency: str, quantity: Decimal, released: Decimal, proceeds: Decimal
) -> list[Entry]:
    """A signed quantity leaves, and `released` of the account `cost:S`: the profit is the sum."""
    return [
        Entry(f"position:{symbol}", symbol, -quantity),
        Entry(MARKET, symbol, quantity),
        Entry(f"cost:{symbol}", currency, -released),
        Entry(MARKET, currency, -proceeds),
        Entry(WALLET, currency, released + proceeds),
    ]


def charge(account: str, currency: str, amount: Decimal) -> list[Entry]:
    """The wallet pays an amount, or receives one below 0."""
    return [Entry(WALLET, currency, -amount), Entry(account, currency, amount)]


def released_cost(holding: Holding, quantity: Decimal) -> Decimal:
    """The cost of a part of a position; of the last part, all that is left of it."""
    if abs(quantity) == abs(holding.quantity):
        return holding.cost
    share = EXACT.divide(abs(quantity), abs(holding.quantity))
    return money(EXACT.multiply(holding.cost, share))


def liquidation_price(
    quantity: Decimal, cost: Decimal, margin: Decimal, maintenance: Decimal
) -> Decimal:
    """Where equity of the position is down to `maintenance` times its notional; at least 0.

    Of q coins at p with the cost c: q·p + c + margin = maintenance·|q|·p.
    """
    slope = quantity - maintenance * abs(quantity)
    price = EXACT.divide(-(cost + margin), slope) if slope else ZERO
    return max(ZERO, price)
