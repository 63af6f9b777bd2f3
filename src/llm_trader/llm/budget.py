"""The daily budget of calls, which fails closed. No I/O here."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Protocol

from llm_trader.errors import BudgetError


class Spending(Protocol):
    """What a record of calls says was spent on a UTC day, of one symbol or of all: the cost of
    calls that ended, and what is reserved for those that are under way or whose end is unknown.
    """

    def spent_usd(self, day: date, symbol: str | None = None) -> Decimal: ...


def check_budget(spending: Spending, day: date, needed_usd: Decimal, *, limit_usd: Decimal) -> None:
    """Raises `BudgetError` unless a call that costs `needed_usd` at most fits into the day.

    Check and reservation belong into one transaction, or two processes could both pass.
    """
    if needed_usd == 0:
        return
    spent_usd = spending.spent_usd(day)
    total_usd = spent_usd + needed_usd
    if total_usd.is_nan() or total_usd > limit_usd:
        raise BudgetError(
            f"the call may cost {needed_usd:.4f} USD, and {spent_usd:.4f} of the "
            f"{limit_usd:.2f} USD of {day} are spent or reserved; raise llm.daily_budget_usd or "
            "wait for the next UTC day",
            spent_usd=float(spent_usd),
            needed_usd=float(needed_usd),
            limit_usd=float(limit_usd),
        )
