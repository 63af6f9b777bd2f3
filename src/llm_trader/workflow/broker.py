"""The protocol behind which paper and exchanges stand."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from llm_trader.timeframe import Millis
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import (
    Balance,
    Fill,
    OrderIntent,
    OrderResult,
    Position,
    Quote,
    Reconciliation,
)


class Broker(Protocol):
    """An account at one venue, in one-way mode: a symbol has one position.

    Whatever asks for a fact raises `LlmTraderError` where the fact cannot be known: no caller is
    ever told of a position or a balance that is a guess.
    """

    @property
    def name(self) -> str: ...

    async def instrument(self, symbol: str) -> InstrumentRules: ...

    async def quote(self, symbol: str) -> Quote: ...

    async def position(self, symbol: str) -> Position: ...

    async def balance(self) -> Balance: ...

    async def exposures(self) -> dict[str, Decimal]:
        """Notionals of all open positions at the latest prices, by symbol and without sign."""
        ...

    async def fills(self, since_ms: Millis) -> list[Fill]:
        """Of all symbols from a time on, in the order of time."""
        ...

    async def place(self, intent: OrderIntent) -> OrderResult:
        """Places an order once, however often it is called with the same intent.

        An order whose id the venue knows is looked up, not sent again. The stop and target of an
        opening order stand at the venue when this returns `Placed`.
        """
        ...

    async def has_order(self, symbol: str, client_order_id: str) -> bool:
        """Whether `place` would look an order of this id up, and not send it."""
        ...

    async def reconcile(self, symbol: str) -> Reconciliation:
        """Settles unknown orders by asking the venue; called before trading and after a restart."""
        ...

    async def cancel(self, symbol: str) -> None:
        """Withdraws what orders of ours of the symbol still wait; a position keeps its stop."""
        ...

    async def close(self) -> None: ...
