"""Closed formulas against independent ones, and against textbooks' tables."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.retrieval.intervals import Interval, student_t, t_as_normal, wilson

Z90 = NormalDist().inv_cdf(0.95)
sizes = st.floats(1, 500)


def t_above(t: float, freedom: float) -> float:
    """P(T > t), by integrating the density over the angle with T = √f·tan."""
    angle = np.linspace(math.atan(t / math.sqrt(freedom)), math.pi / 2, 20_001)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return math.exp(log_scale) * float(np.trapezoid(np.cos(angle) ** (freedom - 1), angle))


@pytest.mark.parametrize(
    ("freedom", "tabulated"),
    [(5, 2.0150), (10, 1.8125), (30, 1.6973), (49, 1.6766), (100, 1.6602), (1e9, 1.6449)],
)
def test_students_quantile_is_that_of_the_tables(freedom: float, tabulated: float) -> None:
    assert student_t(Z90, freedom) == pytest.approx(tabulated, abs=1.5e-3)


@given(st.floats(9, 500), st.floats(-5, 5))
def test_a_t_and_its_normal_deviate_are_as_unlikely_as_each_other(freedom: float, t: float) -> None:
    beyond = 1 - NormalDist().cdf(abs(t_as_normal(t, freedom)))
    assert beyond == pytest.approx(t_above(abs(t), freedom), rel=0.05, abs=1e-9)
    assert math.copysign(1, t_as_normal(t, freedom)) == math.copysign(1, t)


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [
        (0.5, 100, 0.41885, 0.58115),
        (0.0, 10, 0.0, 0.21295),
        (1.0, 10, 0.78705, 1.0),
        (0.2, 25, 0.10091, 0.35768),
    ],
)
def test_wilsons_interval_at_90_percent_is_as_worked_out_by_hand(
    share: float, n: float, low: float, high: float
) -> None:
    assert wilson(share, n, Z90) == pytest.approx((low, high), abs=1e-4)


@given(st.floats(0, 1), sizes, st.floats(0.5, 4))
def test_wilsons_bounds_are_the_rates_a_score_test_just_accepts(
    share: float, n: float, z: float
) -> None:
    # (share - p)² = z² p (1 - p) / n, as a quadratic in p
    low, high = sorted(np.roots([1 + z * z / n, -(2 * share + z * z / n), share * share]).real)
    assert wilson(share, n, z) == pytest.approx((low, high), abs=1e-7)


@given(st.floats(0, 1), sizes)
def test_wilsons_interval_is_of_shares_and_holds_the_share(share: float, n: float) -> None:
    low, high = wilson(share, n, Z90)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_an_interval_of_unknown_numbers_lies_neither_above_nor_below() -> None:
    unknown = Interval.of(0.1)
    assert unknown == Interval(0.1, None, None)
    assert not unknown.above(0)
    assert not unknown.below(1)


def test_an_interval_lies_above_or_below_only_as_a_whole() -> None:
    interval = Interval.of(0.1, 0.05, 0.2)
    assert interval.above(0.04)
    assert not interval.above(0.05)
    assert interval.below(0.21)
    assert not interval.below(0.2)
