from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pytest

from llm_trader.errors import BudgetError
from llm_trader.llm.budget import check_budget
from tests.llm.providers.connections import TODAY


@dataclass(frozen=True)
class Spent:
    usd: Decimal

    def spent_usd(self, day: date, symbol: str | None = None) -> Decimal:
        return self.usd if day == TODAY else Decimal(0)


def check(spent: str, needed: str, limit: str, day: date = TODAY) -> None:
    check_budget(Spent(Decimal(spent)), day, needed_usd=Decimal(needed), limit_usd=Decimal(limit))


@pytest.mark.parametrize(
    ("spent", "needed"), [("0", "1"), ("0.9", "0.1"), ("1", "0"), ("5", "0"), ("0.3", "0.7")]
)
def test_a_call_that_fits_into_the_day_is_let_through(spent: str, needed: str):
    check(spent, needed, "1")


@pytest.mark.parametrize(
    ("spent", "needed", "limit"),
    [
        ("0", "1.0001", "1"),
        ("0.9", "0.1000001", "1"),
        ("1", "0.000001", "1"),
        ("0", "0.000001", "0"),
        ("NaN", "0.1", "1"),
        ("0", "NaN", "1"),
    ],
)
def test_a_call_whose_worst_case_does_not_fit_is_refused(spent: str, needed: str, limit: str):
    with pytest.raises(BudgetError):
        check(spent, needed, limit)


def test_the_refusal_says_what_is_spent_and_what_to_do():
    with pytest.raises(BudgetError, match=r"raise llm\.daily_budget_usd or wait") as raised:
        check("4.99", "0.02", "5")
    assert raised.value.details == {"spent_usd": 4.99, "needed_usd": 0.02, "limit_usd": 5.0}


def test_the_next_day_begins_anew():
    check("5", "1", "5", date(2026, 11, 30))
