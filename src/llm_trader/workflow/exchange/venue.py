"""What an exchange offers to the broker, and reading its replies."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, Protocol

import msgspec

from llm_trader.market.exchange.replies import MalformedReplyError
from llm_trader.timeframe import Millis
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import ZERO, Balance, Fill, OrderIntent, Quote

# The last letter of an order's id says what it is to a position.
STOP_ROLE: Final = "s"
TARGET_ROLE: Final = "t"

# `open` may still fill; `done` fills no further, whatever it has filled.
OrderStatus = Literal["open", "done", "refused"]


class VenueOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the exchange has it; `reason` is why it was refused or ended."""

    client_order_id: str
    venue_id: str
    status: OrderStatus
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    reason: str = ""


class VenuePosition(msgspec.Struct, frozen=True, kw_only=True):
    """`stop_price` and `target_price` are those that stand at the exchange."""

    quantity: Decimal = ZERO
    entry_price: Decimal | None = None
    stop_price: Decimal | None = None
    target_price: Decimal | None = None


class AccountVenue(Protocol):
    """One account. What asks raises `ExchangeError`, what changes `RefusedRequestError` where it
    was certainly not done, or `UnknownOutcomeError`.
    """

    name: str

    def now_ms(self) -> Millis:
        """By the clock of the exchange."""
        ...

    async def check(self) -> None:
        """Raises `ConfigurationError` for an account that cannot be used, as in hedge mode."""
        ...

    async def set_clock(self) -> None:
        """Learns the time of the exchange."""
        ...

    async def instrument(self, symbol: str) -> InstrumentRules: ...

    async def quote(self, symbol: str) -> Quote: ...

    async def position(self, symbol: str) -> VenuePosition: ...

    async def balance(self) -> Balance: ...

    async def exposures(self) -> dict[str, Decimal]: ...

    async def fills(self, symbol: str, since_ms: Millis) -> list[Fill]: ...

    async def find(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        """An order of any list; None where the exchange answers that it has none."""
        ...

    async def send(self, intent: OrderIntent, signed_ms: Millis) -> VenueOrder | None:
        """None where the exchange has an order of this id already."""
        ...

    async def protect(self, intent: OrderIntent, signed_ms: Millis) -> None:
        """Makes the stop and the target of an order stand; those that do already stay."""
        ...

    async def unprotect(self, symbol: str) -> None:
        """Withdraws stops and targets of ours that no position is left for."""
        ...

    async def foreign_orders(self, symbol: str) -> list[str]:
        """Open orders that are not ours."""
        ...

    async def close(self) -> None: ...


def with_role(client_order_id: str, role: str) -> str:
    """The id of an order that belongs to another."""
    return f"{client_order_id.rpartition('-')[0]}-{role}"


def a_decimal(value: Any, name: str) -> Decimal:
    try:
        number = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise MalformedReplyError(f"{name} is no number: {value!r}") from None
    if not number.is_finite():
        raise MalformedReplyError(f"{name} is no number: {value!r}")
    return number


def a_price(value: Any, name: str) -> Decimal | None:
    """Exchanges write an empty text or 0 where there is none."""
    if value in (None, ""):
        return None
    number = a_decimal(value, name)
    return number if number > 0 else None


def a_text(value: Any, name: str) -> str:
    if not isinstance(value, str | int) or value == "":
        raise MalformedReplyError(f"{name} is missing: {value!r}")
    return str(value)
