from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_trader.arrays import Floats
from llm_trader.index.points import COLUMN_ROW, STATE, PointTable
from llm_trader.retrieval.reference import (
    QUANTILE_LEVELS,
    BaseRates,
    LruCache,
    SimilarityReference,
)
from llm_trader.timeframe import DAY_MS, HORIZONS
from tests.index.builders import at
from tests.retrieval.builders import SPACE, outcome_table, past

SIZES = st.one_of(st.sampled_from([1, 2, 1000, 2000]), st.integers(3, 1100))


def spread(rng: np.random.Generator, n: int) -> Floats:
    return rng.standard_normal((4, n))


def ties(rng: np.random.Generator, n: int) -> Floats:
    return np.round(rng.standard_normal((4, n)), 1)


def few_values(rng: np.random.Generator, n: int) -> Floats:
    return rng.choice([-1.0, 0.0, 0.25], (4, n))


def mostly_one_value(rng: np.random.Generator, n: int) -> Floats:
    return np.where(rng.random((4, n)) < 0.97, 0.5, rng.standard_normal((4, n)))


def constant(rng: np.random.Generator, n: int) -> Floats:
    return np.repeat(rng.choice([0.0, 1.0, -3.7, 1e-9], (4, 1)), n, axis=1)


def one_constant_row(rng: np.random.Generator, n: int) -> Floats:
    values = rng.standard_normal((4, n))
    values[rng.integers(4)] = 0.0
    return values


def outliers(rng: np.random.Generator, n: int) -> Floats:
    values = rng.standard_normal((4, n))
    values[:, rng.integers(n, size=3)] = rng.choice([-1e6, 1e6], (4, 3))
    return values


def heavy_tails(rng: np.random.Generator, n: int) -> Floats:
    return rng.standard_cauchy((4, n))


def tiny(rng: np.random.Generator, n: int) -> Floats:
    return 1e-300 * rng.standard_normal((4, n))


def next_to_each_other(rng: np.random.Generator, n: int) -> Floats:
    return 1.0 + np.finfo(np.float64).eps * rng.integers(0, 4, (4, n))


KINDS = (
    spread,
    ties,
    few_values,
    mostly_one_value,
    constant,
    one_constant_row,
    outliers,
    heavy_tails,
    tiny,
    next_to_each_other,
)


def base_quantiles(outcomes: Floats) -> Floats:
    columns = {f"outcome_{h}": row for h, row in zip(HORIZONS, outcomes, strict=True)}
    return BaseRates.of(outcome_table(at(range(outcomes.shape[1])), **columns)).quantiles


@given(kind=st.sampled_from(KINDS), n=SIZES, seed=st.integers(0, 2**32))
@example(kind=constant, n=1000, seed=0)
@example(kind=outliers, n=2000, seed=0)
@example(kind=tiny, n=1000, seed=0)
def test_base_quantiles_are_numpys(kind: type, n: int, seed: int) -> None:
    outcomes = kind(np.random.default_rng(seed), n)
    expected = np.quantile(outcomes, QUANTILE_LEVELS, axis=1).T
    size = np.abs(expected).max()
    np.testing.assert_allclose(base_quantiles(outcomes), expected, rtol=1e-12, atol=1e-14 * size)


def test_base_rates_leave_their_window_as_it_was() -> None:
    window = past(range(1500))
    values = window.values.copy()
    BaseRates.of(window)
    assert np.array_equal(window.values, values)


@pytest.mark.parametrize("n", [1, 2, 50, 1500])
def test_base_rates_are_those_of_all_points_of_the_window(n: int) -> None:
    window = past(range(n), seed=3)
    rates = BaseRates.of(window)
    assert rates.points == n
    for row, horizon in enumerate(HORIZONS):
        values = window.column(f"outcome_{horizon}").tolist()
        assert rates.mean[row] == pytest.approx(sum(values) / n)
        assert rates.p_up[row] == sum(1 for v in values if v > 0) / n
        np.testing.assert_allclose(rates.quantiles[row], np.quantile(values, QUANTILE_LEVELS))
    barriers = window.column("first_barrier").tolist()
    assert rates.stop_first == barriers.count(1.0) / n
    assert rates.target_first == barriers.count(2.0) / n


def test_base_rates_of_barriers_are_of_the_points_that_know_theirs() -> None:
    window = past(range(300))
    values = window.values.copy()
    unknown = np.arange(300) % 4 == 0
    values[COLUMN_ROW["first_barrier"], unknown] = np.nan
    rates, known = (
        BaseRates.of(points) for points in (replace(window, values=values), window.take(~unknown))
    )
    assert (rates.stop_first, rates.target_first) == (known.stop_first, known.target_first)
    assert rates.points == 300
    none_known = BaseRates.of(replace(window, values=values).take(unknown))
    assert np.isnan([none_known.stop_first, none_known.target_first]).all()


def test_a_market_that_stood_still_went_up_never() -> None:
    still = {f"outcome_{h}": 0.0 for h in HORIZONS}
    rates = BaseRates.of(outcome_table(at(range(1200)), **still))
    assert rates.p_up.tolist() == [0, 0, 0, 0]
    assert rates.mean.tolist() == [0, 0, 0, 0]
    assert (rates.quantiles == 0).all()


def naive_similarities(window: PointTable, missing: tuple[str, ...]) -> Floats:
    """Between all pairs at least a day apart, over the features that are not missing."""
    present = [i for i, f in enumerate(SPACE.features) if f.name not in missing]
    blocks = window.vectors[STATE].astype(np.float64).reshape(len(window), -1, 2)[:, present]
    share = SPACE.weights[present].sum() / SPACE.weights.sum()
    similarity = np.einsum("ifc,jfc->ij", blocks, blocks) / share
    distance_ms = np.abs(window.timestamp_ms[:, None] - window.timestamp_ms)
    return np.where(distance_ms >= DAY_MS, similarity, np.nan)


def reference_of(window: PointTable, missing: tuple[str, ...]) -> SimilarityReference:
    present = np.repeat([f.name not in missing for f in SPACE.features], 2).astype(np.float32)
    share = float(SPACE.weights @ present[::2] / SPACE.weights.sum())
    return SimilarityReference.of(window, STATE, present, share)


@pytest.mark.parametrize("missing", [(), ("rsi_7", "return_1h", "hour_sine")])
@pytest.mark.parametrize("step", [1, 5, 96, 200])
def test_novelty_is_the_share_of_states_whose_nearest_other_is_nearer(
    step: int, missing: tuple[str, ...]
) -> None:
    window = past(range(0, 120 * step, step))
    similarity = naive_similarities(window, missing)
    nearest = sorted(max(row[~np.isnan(row)]) for row in similarity if not np.isnan(row).all())
    reference = reference_of(window, missing)
    between = [(a + b) / 2 for a, b in pairwise(nearest) if b - a > 1e-5]
    assert len(between) > 5
    for similar in between:
        nearer = sum(1 for other in nearest if other > similar)
        assert reference.novelty_percentile(similar) == pytest.approx(100 * nearer / len(nearest))
    assert reference.novelty_percentile(-1.0) == 100
    assert reference.novelty_percentile(2.0) == 0
    np.testing.assert_allclose(reference.nearest, nearest, atol=1e-5)


def test_pairs_rank_a_similarity_among_all_pairs_a_day_apart() -> None:
    window = past(range(0, 500, 5))
    similarity = naive_similarities(window, ())
    pairs = np.sort(similarity[~np.isnan(similarity)])
    levels = np.linspace(0.01, 0.99, 50)
    rates = reference_of(window, ()).percentiles(np.quantile(pairs, levels))
    np.testing.assert_allclose(rates, 100 * levels, atol=0.3)


def test_in_a_window_of_less_than_a_day_nothing_is_usual_or_novel() -> None:
    for window in (past(range(96)), past([])):
        reference = reference_of(window, ())
        assert reference.novelty_percentile(0.5) is None
        assert reference.percentiles(np.array([0.5, 0.9])) == [None, None]


def test_states_a_day_apart_to_the_millisecond_are_a_pair() -> None:
    reference = reference_of(past([0, 96]), ())
    assert reference.novelty_percentile(-1.0) == 100
    assert len(reference.nearest) == 2


def test_results_used_last_are_kept_and_made_once() -> None:
    computed: list[str] = []

    def make(key: str) -> str:
        computed.append(key)
        return key.upper()

    kept: LruCache[str, str] = LruCache(2)
    for key in "abacab":
        assert kept.get(key, lambda key=key: make(key)) == key.upper()
    # `c` pushed out `b`, as `a` was used after it.
    assert "".join(computed) == "abcb"
