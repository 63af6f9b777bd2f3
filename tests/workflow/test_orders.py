from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llm_trader.errors import InvalidInputError
from llm_trader.workflow.instrument import InstrumentRules, exact
from llm_trader.workflow.orders import client_order_id, is_our_order_id
from tests.workflow.builders import intent

decimals = st.decimals(min_value=Decimal("1e-8"), max_value=Decimal("1e12"), places=8)
steps = st.sampled_from([Decimal(text) for text in ("1e-8", "0.001", "0.25", "1", "1000")])


@given(st.text(), st.text(), st.sampled_from("ocstx"))
def test_an_order_id_is_one_that_both_venues_take(run: str, symbol: str, role: str) -> None:
    text = client_order_id(run, symbol, role)
    assert text == client_order_id(run, symbol, role)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,36}", text)
    assert is_our_order_id(text)
    assert not is_our_order_id(text[:-1] + "7")


def test_order_ids_differ_by_run_symbol_and_role() -> None:
    runs = [(run, symbol, role) for run in "12" for symbol in ("AB", "B") for role in "oc"]
    assert len({client_order_id(*run) for run in runs}) == 8
    # What belongs to the run and what to the symbol is told apart.
    assert client_order_id("1", "2B", "o") != client_order_id("12", "B", "o")


@pytest.mark.parametrize("quantity", ["0", "NaN", "Infinity"])
def test_an_order_of_no_quantity_is_refused(quantity: str) -> None:
    with pytest.raises(InvalidInputError, match="not above 0"):
        replace(intent("run", "1"), quantity=Decimal(quantity))


@given(decimals, steps)
def test_a_floored_quantity_is_the_largest_multiple_that_is_not_above(
    quantity: Decimal, step: Decimal
) -> None:
    rules = InstrumentRules(symbol="X", quantity_step=step)
    floored = rules.floor_quantity(quantity)
    assert floored % step == 0
    assert floored <= quantity < floored + step


@given(decimals, steps)
def test_a_rounded_price_is_a_multiple_of_the_tick_and_the_nearest(
    price: Decimal, tick: Decimal
) -> None:
    rounded = InstrumentRules(symbol="X", price_tick=tick).round_price(price)
    assert rounded % tick == 0
    assert abs(rounded - price) <= tick / 2


@given(st.floats(min_value=1e-12, max_value=1e15))
def test_a_float_becomes_the_decimal_that_is_written_for_it(value: float) -> None:
    assert float(exact(value)) == value
    assert str(exact(0.1)) == "0.1"


def test_a_small_order_may_reduce_a_position() -> None:
    rules = InstrumentRules(symbol="X", min_notional=Decimal(5))
    assert rules.refusal(Decimal(1), Decimal(4), reduces=True) is None
    assert "below the least of 5" in (rules.refusal(Decimal(1), Decimal(4), reduces=False) or "")
