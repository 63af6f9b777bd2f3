from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.llm.expiry import ExpiryConfig, VoidBy, check_expiry
from tests.llm.builders import NOON_MS

CONFIG = ExpiryConfig(max_age_s=300, max_price_move_pct=0.5)
PRICES = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("after_s", "price_now", "void_by"),
    [
        (0, 100.0, ()),
        (300, 100.5, ()),
        (300.001, 100.0, ("time",)),
        (0, 100.51, ("price",)),
        (0, 99.49, ("price",)),
        (301, 101.0, ("time", "price")),
        (-0.001, 100.0, ("unknown",)),
        (0, None, ("unknown",)),
        (0, float("nan"), ("unknown",)),
        (0, 0.0, ("unknown",)),
        (301, None, ("time", "unknown")),
        (-1, None, ("unknown",)),
    ],
)
def test_a_decision_is_void_beyond_a_limit_and_says_which(
    after_s: float, price_now: float | None, void_by: tuple[VoidBy, ...]
) -> None:
    expiry = check_expiry(NOON_MS, 100.0, NOON_MS + round(after_s * 1000), price_now, CONFIG)
    assert expiry.void_by == void_by
    assert expiry.is_void == bool(void_by) == bool(expiry.reason)


def test_the_reason_names_the_numbers_and_the_limits() -> None:
    expiry = check_expiry(NOON_MS, 100.0, NOON_MS + 400_000, 98.0, CONFIG)
    assert expiry.reason == (
        "it is 400 s old, at most 300 s are allowed; "
        "the price moved -2 %, at most 0.5 % either way are allowed"
    )
    assert (expiry.age_s, expiry.price_move_pct) == (400.0, pytest.approx(-2.0))
    months_later = check_expiry(NOON_MS, 100.0, NOON_MS + 21_754_000_000, 100.0, CONFIG)
    assert "it is 21754000 s old" in months_later.reason


@given(st.integers(-(10**13), 10**13), PRICES, PRICES)
def test_whatever_is_unknown_makes_a_decision_void(
    after_ms: int, price: float | None, price_now: float | None
) -> None:
    expiry = check_expiry(NOON_MS, price, NOON_MS + after_ms, price_now, CONFIG)
    if expiry.age_s is None or expiry.price_move_pct is None:
        assert "unknown" in expiry.void_by
    if not expiry.is_void:
        assert 0 <= after_ms <= 300_000
        assert price is not None
        assert price_now is not None
        assert abs(price_now - price) <= 0.005 * price * (1 + 1e-9)
