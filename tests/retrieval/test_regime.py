from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.index.protocol import FieldRange
from llm_trader.retrieval.regime import regime_ranges

NAN = math.nan


def ranges(oi_delta_pct: float = NAN, funding_rate: float = NAN) -> dict[str, FieldRange]:
    return regime_ranges(oi_delta_pct, funding_rate)


@pytest.mark.parametrize("delta", [-80.0, -5.000001, 5.000001, 7.5, 300.0])
def test_open_interest_that_moved_keeps_points_within_ten_points_of_it(delta: float) -> None:
    assert ranges(oi_delta_pct=delta) == {
        "oi_delta": FieldRange("oi_delta_pct", delta - 10, delta + 10)
    }


@pytest.mark.parametrize("delta", [-5.0, -1.0, 0.0, 4.999, 5.0])
def test_open_interest_that_hardly_moved_keeps_all_points(delta: float) -> None:
    assert ranges(oi_delta_pct=delta) == {}


@pytest.mark.parametrize("rate", [0.000100001, 0.0005, 0.01])
def test_funding_paid_by_the_longs_keeps_points_where_they_paid(rate: float) -> None:
    assert ranges(funding_rate=rate) == {
        "funding_sign": FieldRange("funding_rate", low=0.0, exclusive=True)
    }


@pytest.mark.parametrize("rate", [-0.000100001, -0.0005, -0.01])
def test_funding_paid_by_the_shorts_keeps_points_where_they_paid(rate: float) -> None:
    assert ranges(funding_rate=rate) == {
        "funding_sign": FieldRange("funding_rate", high=0.0, exclusive=True)
    }


@pytest.mark.parametrize("rate", [-0.0001, 0.0, 0.00005, 0.0001])
def test_funding_near_nothing_keeps_all_points(rate: float) -> None:
    assert ranges(funding_rate=rate) == {}


def test_what_is_unknown_calls_for_no_filter() -> None:
    assert ranges() == {}
    assert ranges(oi_delta_pct=NAN, funding_rate=0.001).keys() == {"funding_sign"}
    assert ranges(oi_delta_pct=20.0, funding_rate=NAN).keys() == {"oi_delta"}


@given(st.floats(-50, 50), st.floats(-0.003, 0.003))
def test_a_state_passes_its_own_filters(delta: float, rate: float) -> None:
    values = {"oi_delta_pct": delta, "funding_rate": rate}
    for r in ranges(**values).values():
        value = values[r.field]
        assert r.low < value < r.high if r.exclusive else r.low <= value <= r.high
