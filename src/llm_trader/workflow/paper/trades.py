"""Fills of an account as positions from entry to exit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from llm_trader.timeframe import Millis
from llm_trader.workflow.orders import ZERO, Fill, FillReason


class PaperTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A position that was opened and closed by one fill each. Amounts are in quote currency.

    `costs` are fees and slippage of both sides, `funding` is above 0 where the position paid.
    The exit's reason is `order` where a later decision closed it.
    """

    symbol: str
    side: Literal["LONG", "SHORT"]
    entry_ms: Millis
    exit_ms: Millis
    entry_price: Decimal
    exit_price: Decimal
    quantity: Decimal
    exit_reason: FillReason
    gross: Decimal
    costs: Decimal
    funding: Decimal

    @property
    def net(self) -> Decimal:
        return self.gross - self.costs - self.funding


def closed_trades(
    fills: Iterable[Fill], payments: Sequence[tuple[str, Millis, Decimal]]
) -> list[PaperTrade]:
    """Fills in the order of time, and funding payments as symbol, due time and amount.

    A position pays the settlements with entry < time <= exit.
    """
    opened: dict[str, Fill] = {}
    trades: list[PaperTrade] = []
    for fill in fills:
        entry = None if fill.opens else opened.pop(fill.symbol, None)
        if entry is None:
            opened[fill.symbol] = fill
        else:
            trades.append(_trade(entry, fill, payments))
    return trades


def _trade(entry: Fill, end: Fill, payments: Sequence[tuple[str, Millis, Decimal]]) -> PaperTrade:
    funding = sum(
        (
            amount
            for symbol, due_ms, amount in payments
            if symbol == entry.symbol and entry.time_ms < due_ms <= end.time_ms
        ),
        ZERO,
    )
    return PaperTrade(
        symbol=entry.symbol,
        side="LONG" if entry.side == "BUY" else "SHORT",
        entry_ms=entry.time_ms,
        exit_ms=end.time_ms,
        entry_price=entry.price,
        exit_price=end.price,
        quantity=entry.quantity,
        exit_reason=end.reason,
        gross=ZERO if end.realized is None else end.realized,
        costs=entry.fee + entry.slippage + end.fee + end.slippage,
        funding=funding,
    )
