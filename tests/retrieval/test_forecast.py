"""The forecast: exact quantiles of a weighted mixture, in units of expected volatility."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.index.points import COLUMN_ROW
from llm_trader.retrieval.forecast import (
    FORECAST_LEVELS,
    SIZE_STEPS,
    ForecastBase,
    barrier_shares,
    mixture_quantiles,
    size_numbers,
)
from llm_trader.snapshot.outcome import EXTREMES, TURNS
from tests.retrieval.builders import past

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


weights = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])


def alone(
    base: np.ndarray, neighbours: np.ndarray, weight: float
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """One row, whose neighbours weigh the same."""
    shares = np.arange(1, len(neighbours) + 1)[None] / len(neighbours)
    return [base], neighbours[None], np.array([weight]), shares


@given(outcomes, outcomes, weights)
def test_quantiles_are_those_of_the_weighted_outcomes(
    base: np.ndarray, neighbours: np.ndarray, weight: float
) -> None:
    quantiles = mixture_quantiles(*alone(base, neighbours, weight))

    expected = [by_definition(base, neighbours, weight, level) for level in FORECAST_LEVELS]
    assert quantiles.tolist() == [expected]


@given(outcomes, outcomes, weights, st.integers(0, 2**32))
def test_a_neighbour_of_n_times_the_weight_is_one_that_is_there_n_times(
    base: np.ndarray, neighbours: np.ndarray, weight: float, seed: int
) -> None:
    times = np.random.default_rng(seed).integers(1, 5, len(neighbours))
    shares = np.cumsum(times)[None] / times.sum()
    weighted = mixture_quantiles([base], neighbours[None], np.array([weight]), shares)
    repeated = mixture_quantiles(*alone(base, np.repeat(neighbours, times), weight))
    assert weighted.tolist() == repeated.tolist()


def test_rows_are_mixed_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    base, neighbours = (np.sort(rng.standard_normal((4, n)), axis=1) for n in (500, 60))
    weight = np.array([0.25, 0.0, 1.0, 0.5])
    shares = np.arange(1, 61)[None] / 60
    together = mixture_quantiles(base, neighbours, weight, shares)
    for row in range(4):
        one = mixture_quantiles(*alone(base[row], neighbours[row], float(weight[row])))
        assert together[row].tolist() == one[0].tolist()


def test_sizes_of_a_base_are_those_of_its_outcomes() -> None:
    rows = np.sort(np.random.default_rng(0).standard_t(3, (4, 1000)), axis=1)
    base = ForecastBase.of_ascending(rows, rows.mean(axis=1)).numbers
    sizes = size_numbers(rows)
    assert base.size_mean[:, 0] == pytest.approx(sizes.mean(axis=1))
    assert base.size_variance[:, 0] == pytest.approx(sizes.var(axis=1))
    assert base.share_up[:, 0] == pytest.approx((rows > 0).mean(axis=1))
    assert 0 < sizes.min() + 1 < sizes.max() == len(SIZE_STEPS)


@given(st.floats(0.1, 3), st.floats(0.1, 3))
def test_chances_of_barriers_are_shares_of_paths_in_expected_moves(
    stop: float, target: float
) -> None:
    points = past(range(200))
    expected_pct = points.column("expected_volatility_24h")
    low, before = (points.column(f"path_{side}_{TURNS}") for side in ("low", "high"))
    highest = points.column(f"path_high_{TURNS + 1}")
    first = []
    for i in range(200):
        if low[i] >= stop * expected_pct[i] and before[i] < target * expected_pct[i]:
            first.append("stop")
        elif highest[i] >= target * expected_pct[i]:
            first.append("target")
    shares = first.count("stop") / 200, first.count("target") / 200
    assert barrier_shares(points, stop, target) == shares


def test_points_that_do_not_know_their_path_have_no_part_in_the_chances_of_barriers() -> None:
    points = past(range(200))
    values = points.values.copy()
    unknown = np.arange(200) % 3 == 0
    values[np.ix_([COLUMN_ROW[name] for name in EXTREMES], unknown)] = np.nan
    holed = replace(points, values=values)
    assert barrier_shares(holed, 0.5, 0.7) == barrier_shares(points.take(~unknown), 0.5, 0.7)
    assert np.isnan(barrier_shares(holed.take(unknown), 0.5, 0.7)).all()
