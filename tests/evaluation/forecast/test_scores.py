"""Scores against their definitions: brute force, exact integrals, closed forms."""

from __future__ import annotations

from itertools import pairwise
from math import erf, exp, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.forecast.probabilities import brier, reliability_bins
from tests.evaluation.forecast.slow_crps import crps, crps_as_issued

SEEDS = st.integers(0, 2**32 - 1)
MEMBERS = st.integers(2, 12)
numbers = st.floats(-100, 100)


def integral(members: Floats, weights: Floats, y: float) -> float:
    """The fair score as ∫ (F − 1{z ≥ y})² − F (1 − F) s / (1 − s) dz, s = Σ w², piece by piece."""
    w = weights / weights.sum()
    s = (w**2).sum()
    at = np.unique(np.append(members, y))
    total = 0.0
    for start, end in pairwise(at):
        f = w[members <= start].sum()
        total += (end - start) * ((f - (start >= y)) ** 2 - f * (1 - f) * s / (1 - s))
    return total


def normal_crps(y: float) -> float:
    """Of the standard normal distribution (Gneiting and Raftery 2007)."""
    return y * erf(y / sqrt(2)) + sqrt(2 / pi) * exp(-y * y / 2) - 1 / sqrt(pi)


# --- ensembles, which quicker scores are held against


@pytest.mark.parametrize(
    ("members", "observed", "score"),
    [([0, 1], 0, 0.0), ([1, 2, 3, 4], 2.5, 1 - 20 / 24), ([5, 5, 5], 7, 2.0), ([0, 2], 1, 0.0)],
)
def test_the_score_of_a_small_ensemble_is_as_worked_out_by_hand(
    members: list[float], observed: float, score: float
) -> None:
    got = crps(np.array([members], np.float64), np.array([observed], np.float64))
    assert got[0] == pytest.approx(score, abs=1e-12)


@given(SEEDS, MEMBERS)
def test_the_score_is_the_integral_over_the_squared_distance_of_distributions(
    seed: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    members = np.round(rng.standard_normal((3, k)), int(rng.integers(0, 4)))
    observed, weights = rng.standard_normal(3), rng.uniform(0.1, 1, (3, k))
    even = [integral(x, np.ones(k), y) for x, y in zip(members, observed, strict=True)]
    np.testing.assert_allclose(crps(members, observed), even, atol=1e-12)
    uneven = [integral(x, w, y) for x, w, y in zip(members, weights, observed, strict=True)]
    np.testing.assert_allclose(crps(members, observed, weights), uneven, atol=1e-12)


@given(SEEDS, MEMBERS)
def test_the_score_as_issued_is_that_of_every_pair_a_member_with_itself_included(
    seed: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    members = np.round(rng.standard_normal(k), int(rng.integers(0, 4)))
    weights, y = rng.uniform(0.1, 1, k), float(rng.standard_normal())
    w = weights / weights.sum()
    weighted = list(zip(w.tolist(), members.tolist(), strict=True))
    away = sum(a * abs(x - y) for a, x in weighted)
    pairs = sum(a * b * abs(x - z) for a, x in weighted for b, z in weighted)
    assert crps_as_issued(members, weights, y) == pytest.approx(away - pairs / 2, abs=1e-12)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 5.0], [1.0, 1.0, 20.0]])
@pytest.mark.parametrize("observed", [0.0, 0.7, -2.5])
def test_three_members_score_on_average_as_the_distribution_they_come_from(
    weights: list[float] | None, observed: float
) -> None:
    n = 200_000
    ensemble = np.random.default_rng(5).standard_normal((n, 3))
    w = None if weights is None else np.tile(weights, (n, 1))
    scores = crps(ensemble, np.full(n, observed), w)
    error = scores.std() / sqrt(n)
    assert abs(scores.mean() - normal_crps(observed)) < 4 * error
    # What the score would be too high by without its correction is well beyond that.
    share = 1 / 3 if weights is None else float((np.array(weights) ** 2).sum() / sum(weights) ** 2)
    assert share / sqrt(pi) > 40 * error


@given(SEEDS, MEMBERS, st.floats(0.01, 1000))
def test_equal_weights_of_any_scale_are_no_weights(seed: int, k: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    ensemble, observed = rng.standard_normal((4, k)), rng.standard_normal(4)
    weighted = crps(ensemble, observed, np.full((4, k), scale))
    np.testing.assert_allclose(weighted, crps(ensemble, observed), atol=1e-12)


@given(SEEDS, MEMBERS)
def test_a_member_of_no_weight_is_as_if_absent(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    ensemble, observed = rng.standard_normal((4, k)), rng.standard_normal(4)
    weights = rng.uniform(0.1, 1, (4, k))
    padded = np.column_stack([ensemble, rng.standard_normal(4)])
    without = crps(padded, observed, np.column_stack([weights, np.zeros(4)]))
    np.testing.assert_allclose(without, crps(ensemble, observed, weights), atol=1e-12)


@given(SEEDS, st.floats(-1e6, 1e6), st.floats(0.001, 1000))
def test_the_score_moves_with_the_unit_and_not_with_the_origin(
    seed: int, shift: float, unit: float
) -> None:
    rng = np.random.default_rng(seed)
    ensemble, observed = rng.standard_normal((4, 7)), rng.standard_normal(4)
    moved = crps(ensemble * unit + shift, observed * unit + shift)
    np.testing.assert_allclose(moved, unit * crps(ensemble, observed), atol=1e-8 + 1e-8 * unit)


def test_a_score_is_nan_where_a_member_or_the_outcome_is_or_where_one_member_is_alone() -> None:
    ensemble = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0], [1.0, 2.0, 3.0]])
    scores = crps(ensemble, np.array([2.0, 2.0, np.nan]))
    assert np.isnan(scores).tolist() == [False, True, True]
    assert np.isnan(crps(np.array([[1.0]]), np.array([1.0]))).all()
    alone = np.array([[0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    assert np.isnan(crps(ensemble[[0, 0]], np.array([2.0, 2.0]), alone)).all()
    weightless = crps(ensemble[1:2], np.array([2.0]), np.array([[1.0, 0.0, 1.0]]))
    assert np.isnan(weightless).all()


# --- probabilities


def test_briers_score_is_the_squared_error_and_unknown_where_either_is() -> None:
    happened = np.array([1.0, 0.0, 1.0, np.nan])
    scores = brier(np.array([0.8, 0.3, np.nan, 0.5]), happened)
    np.testing.assert_allclose(scores, [0.04, 0.09, np.nan, np.nan])
    assert brier(np.array([0.25]), np.array([True])).tolist() == [0.5625]


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1)), st.integers(1, 12), SEEDS)
def test_each_bin_has_the_mean_and_frequency_of_a_run_of_the_ordered_forecasts(
    probability: Floats, bins: int, seed: int
) -> None:
    happened = np.random.default_rng(seed).random(len(probability)) < 0.5
    order = np.argsort(probability, kind="stable")
    probability, events = probability[order], happened[order].astype(float)
    table = reliability_bins(probability, events, bins)
    assert 0 < len(table) <= bins
    ends = np.cumsum([row.count for row in table])
    assert ends[-1] == len(probability)
    for row, end in zip(table, ends.tolist(), strict=True):
        run = slice(end - row.count, end)
        assert row.count > 0
        assert end == len(probability) or probability[end - 1] < probability[end]
        assert row.forecast == pytest.approx(probability[run].mean())
        assert row.observed == pytest.approx(events[run].mean())


def test_bins_by_quantile_hold_about_equally_many() -> None:
    rng = np.random.default_rng(0)
    table = reliability_bins(rng.beta(2, 5, 1000), (rng.random(1000) < 0.3).astype(float), 10)
    assert len(table) == 10
    assert all(98 <= row.count <= 102 for row in table)


def test_forecasts_of_few_values_get_a_bin_for_each() -> None:
    probability = np.repeat([0.1, 0.5, 0.9], [90, 5, 5])
    events = (np.random.default_rng(0).random(100) < probability).astype(float)
    table = reliability_bins(probability, events, 10)
    assert [row.count for row in table] == [90, 5, 5]
    assert [row.forecast for row in table] == pytest.approx([0.1, 0.5, 0.9])


def test_fewer_than_one_bin_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="bins"):
        reliability_bins(np.array([0.1, 0.7]), np.array([1.0, 0.0]), 0)


def test_no_forecasts_make_no_bins() -> None:
    assert reliability_bins(np.array([]), np.array([])) == []
