"""The books of the workflow's paper account, as the server shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np

from llm_trader.serving.page.account import (
    AccountFill,
    AccountOrder,
    AccountPosition,
    Balance,
    PaperAccountParams,
    PaperAccountResult,
)
from llm_trader.timeframe import Millis
from llm_trader.workflow.orders import ZERO, Fill, Placed, Quote, Rejected
from llm_trader.workflow.paper.accounting import Holding
from llm_trader.workflow.paper.reading import BookedChange, BookedOrder, read_books


@dataclass(frozen=True)
class LedgerReader:
    """Opens the file for each answer, so a workflow may begin while the server runs."""

    path: Path

    def read(self, params: PaperAccountParams) -> tuple[PaperAccountResult, Mapping[str, Balance]]:
        books = read_books(self.path, params.symbol, params.limit)
        if books is None:
            return PaperAccountResult(recorded=False, ledger=str(self.path)), {}
        totals, balances = _balances(books.changes)
        positions = [
            _position(symbol, holding, books.marks.get(symbol))
            for symbol, holding in sorted(books.positions.items())
            if params.symbol in (None, symbol)
        ]
        result = PaperAccountResult(
            recorded=True,
            ledger=str(self.path),
            currency=books.currency,
            deposited=-totals["deposits"],
            wallet=totals["wallet"],
            fees=totals["fees"],
            slippage=totals["slippage"],
            funding=totals["funding"],
            total_orders=books.total_orders,
            positions=positions,
            orders=[_order(order) for order in books.orders],
            fills=[_fill(fill) for fill in books.fills],
        )
        return result, balances


def _balances(changes: list[BookedChange]) -> tuple[dict[str, float], dict[str, Balance]]:
    """What each account has at the end, and over time."""
    sums: dict[str, Decimal] = defaultdict(lambda: ZERO)
    courses: dict[str, dict[Millis, float]] = defaultdict(dict)
    for change in changes:
        sums[change.account] += change.amount
        courses[change.account][change.time_ms] = float(sums[change.account])
    balances = {
        account: Balance(np.array(list(course), dtype=np.int64), np.array(list(course.values())))
        for account, course in courses.items()
    }
    return defaultdict(float, {name: float(total) for name, total in sums.items()}), balances


def _position(symbol: str, holding: Holding, mark: Quote | None) -> AccountPosition:
    return AccountPosition(
        symbol=symbol,
        quantity=float(holding.quantity),
        entry_price=float(holding.entry_price),
        price=None if mark is None else float(mark.price),
        unrealized=None if mark is None else float(holding.unrealized(mark.price)),
        opened_at=holding.opened_ms,
        stop_price=_float(holding.stop_price),
        target_price=_float(holding.target_price),
        close_at=holding.close_at_ms,
    )


def _order(order: BookedOrder) -> AccountOrder:
    intent, state, result = order
    return AccountOrder(
        id=intent.client_order_id,
        created_at=intent.created_ms,
        symbol=intent.symbol,
        side=intent.side,
        kind=intent.kind,
        quantity=float(intent.quantity),
        state=state,
        average_price=_float(result.average_price) if isinstance(result, Placed) else None,
        reason=result.reason if isinstance(result, Rejected) else None,
    )


def _fill(fill: Fill) -> AccountFill:
    return AccountFill(
        order_id=fill.client_order_id,
        time=fill.time_ms,
        symbol=fill.symbol,
        side=fill.side,
        quantity=float(fill.quantity),
        price=float(fill.price),
        reason=fill.reason,
        realized=_float(fill.realized),
        costs=float(fill.fee + fill.slippage),
    )


def _float(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)
