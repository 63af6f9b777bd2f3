"""The forecast: exact quantiles of a weighted mixture, in units of expected volatility."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.retrieval.forecast import (
    FORECAST_LEVELS,
    mixture_quantiles,
)

outcomes = st.lists(st.integers(-50, 50), min_size=1, max_size=60).map(
    lambda values: np.sort(np.array(values) / 8)
)


def by_definition(base: np.ndarray, neighbours: np.ndarray, weight: float, level: float) -> float:
    """The least outcome at or below which at least `level` of the weight lies."""
    for value in np.unique(np.concatenate([base, neighbours])):
        share = (1 - weight) * (base <= value).mean() + weight * (neighbours <= value).mean()
        if share >= level - 1e-9:
            return float(value)
    raise AssertionError


@given(outcomes, outcomes, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]))
def test_quantiles_are_those_of_the_weighted_outcomes(
    base: np.ndarray, neighbours: np.ndarray, weight: float
) -> None:
    quantiles = mixture_quantiles(base, neighbours, weight)

    expected = [by_definition(base, neighbours, weight, level) for level in FORECAST_LEVELS]
    assert quantiles.tolist() == expected


@given(outcomes, st.floats(0.01, 0.99))
def test_what_is_without_weight_may_be_empty(ascending: np.ndarray, level: float) -> None:
    nothing, levels = np.empty(0), np.array([level])
    alone = by_definition(ascending, ascending, 0.5, level)
    assert mixture_quantiles(ascending, nothing, 0.0, levels) == [alone]
    assert mixture_quantiles(nothing, ascending, 1.0, levels) == [alone]
