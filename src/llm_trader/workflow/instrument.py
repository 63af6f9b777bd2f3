"""Step, tick and least size of a contract, in Decimals."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.workflow.orders import ZERO


def exact(value: float) -> Decimal:
    """The shortest decimal number that is this float: 0.1 for 0.1."""
    return Decimal(repr(float(value)))


class InstrumentRules(msgspec.Struct, frozen=True, kw_only=True):
    """Orders are multiples of `quantity_step`, prices of `price_tick`.

    `min_notional` is in quote currency; orders that reduce a position may be smaller.
    """

    symbol: str
    quantity_step: Decimal = Decimal("0.00000001")
    price_tick: Decimal = Decimal("0.00000001")
    min_quantity: Decimal = ZERO
    max_quantity: Decimal | None = None
    min_notional: Decimal = ZERO

    def __post_init__(self) -> None:
        if not (self.quantity_step > 0 and self.price_tick > 0):
            raise InvalidInputError(f"{self.symbol}: step and tick of a contract are above 0")

    def floor_quantity(self, quantity: Decimal) -> Decimal:
        """The largest quantity that may be ordered and is not above this one."""
        # Whole division is exact; a quotient could be rounded up to the next step.
        floored = quantity // self.quantity_step * self.quantity_step
        return floored if self.max_quantity is None else min(floored, self.max_quantity)

    def round_price(self, price: Decimal) -> Decimal:
        ticks = (price / self.price_tick).to_integral_value(ROUND_HALF_EVEN)
        return ticks * self.price_tick

    def refusal(self, quantity: Decimal, price: Decimal, *, reduces: bool) -> str | None:
        """Why the venue would not take an order of this size."""
        if quantity <= 0 or quantity % self.quantity_step != 0:
            return f"the quantity {quantity} is not a multiple of the step {self.quantity_step}"
        if quantity < self.min_quantity:
            return f"the quantity {quantity} is below the least of {self.min_quantity}"
        if self.max_quantity is not None and quantity > self.max_quantity:
            return f"the quantity {quantity} is above the most of {self.max_quantity}"
        if not reduces and quantity * price < self.min_notional:
            return f"the notional {quantity * price:f} is below the least of {self.min_notional}"
        return None
