from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.llm.prompt.numbers import fixed, percent, price_decimals, quoted, signed
from tests.llm.prompt.examples import numbers

TABLE = numbers()
DECIMALS = st.integers(0, 12)


@pytest.mark.parametrize(("value", "decimals", "text"), TABLE["fixed"])
def test_a_number_is_rounded_half_away_from_zero(value: Any, decimals: int, text: str) -> None:
    assert fixed(value, decimals) == text


@pytest.mark.parametrize(("value", "decimals", "text"), TABLE["signed"])
def test_a_signed_number_has_a_plus_above_zero(value: Any, decimals: int, text: str) -> None:
    assert signed(value, decimals) == text


@pytest.mark.parametrize(("price", "decimals"), TABLE["price_decimals"])
def test_a_price_has_five_digits(price: Any, decimals: int) -> None:
    assert price_decimals(price) == decimals


@pytest.mark.parametrize(("text", "most", "expected"), TABLE["quoted"])
def test_foreign_text_stays_within_its_quotes(text: str, most: int, expected: str) -> None:
    assert quoted(text, most) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_unknown(value: float) -> None:
    assert fixed(value, 2) == signed(value, 2) == percent(fixed(value, 2)) == "n/a"
    assert price_decimals(value) == 4


@given(st.floats(-1e14, 1e14), DECIMALS)
def test_a_written_number_is_as_near_as_its_decimals_allow(value: float, decimals: int) -> None:
    text = fixed(value, decimals)
    assert re.fullmatch(r"-?\d{1,15}(\.\d+)?", text)
    assert not re.fullmatch(r"-[0.]+", text)
    assert abs(float(text) - value) <= 0.5 * 10**-decimals + 1e-15 * abs(value)
    assert signed(value, decimals).removeprefix("+") == text


@given(st.text(max_size=300), st.integers(0, 200))
def test_a_quotation_is_printable_and_bounded(text: str, most: int) -> None:
    written = quoted(text, most)
    assert re.fullmatch(r'"[ !#-;=?-\[\]-_a-~]*"', written)
    assert len(written) <= most + len('"..."')
