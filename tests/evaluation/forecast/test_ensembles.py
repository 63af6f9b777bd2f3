"""Forecasts and their losses, against the definitions, member by member."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.forecast.ensembles import (
    Forecasts,
    HorizonOutcomes,
    Losses,
    all_losses,
    forecast_and_model_losses,
    make_forecasts,
    neighbour_weights,
)
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.plan import ForecastRule, Scale
from llm_trader.index.points import PointTable
from tests.evaluation.forecast.slow_crps import crps, crps_as_issued
from tests.index.builders import points_at

RNG = np.random.default_rng(7)
MANY, ASKED, NEIGHBOURS = 240, 40, 8
SCALES: tuple[Scale, ...] = ("expected", "last_24h", "none")
ALONE = ForecastRule(weight_of_neighbours=1.0)
RULES = [
    ForecastRule(scale=scale, weight_of_neighbours=weight, kernel=kernel)
    for scale, weight, kernel in itertools.product(SCALES, (0.0, 0.4, 1.0), (0.0, 20.0))
]


def market(slots: range, seed: int) -> PointTable:
    rng = np.random.default_rng(seed)
    volatility, expected = np.exp(0.5 * rng.standard_normal((2, len(slots))))
    outcomes = volatility * rng.standard_t(4, len(slots))
    return points_at(
        slots,
        seed,
        realized_volatility_24h=volatility,
        expected_volatility_1h=expected,
        outcome_1h=outcomes,
    )


POINTS, QUERIES = market(range(MANY), 1), market(range(MANY, MANY + ASKED), 2)
OBSERVED = np.array(QUERIES.column("outcome_1h"))
FIRST = np.arange(ASKED, dtype=np.intp)
LAST = np.asarray(MANY - ASKED + FIRST)


def drawn(seed: int, *, spread: float = 0.1) -> Neighbours:
    """Neighbours within each query's window, some with more alike ones than others."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.arange(a, b), NEIGHBOURS, replace=False)
        for a, b in zip(FIRST, LAST, strict=True)
    ]
    similarity = 0.9 - np.sort(rng.uniform(0, spread, (ASKED, NEIGHBOURS)), axis=1)
    return Neighbours(np.array(rows), similarity.astype(np.float32), FIRST, LAST)


NEAR, RANDOM = drawn(3), drawn(4)


def lost(rule: ForecastRule, near: Neighbours = NEAR, random: Neighbours = RANDOM) -> Losses:
    return all_losses(POINTS, QUERIES, near, random, "1h", rule)


def made(rule: ForecastRule, near: Neighbours = NEAR) -> Forecasts:
    outcomes = HorizonOutcomes(POINTS, QUERIES, near, "1h", rule.scale)
    return make_forecasts(outcomes, near, rule)


def seen_from(row: int, scale: Scale = "expected") -> Floats:
    """Outcomes of all points as a query would have them, straight from the definition."""
    if scale == "none":
        return np.array(POINTS.column("outcome_1h"))
    names = {"expected": "expected_volatility_1h", "last_24h": "realized_volatility_24h"}
    then, now = (of.column(names[scale]) for of in (POINTS, QUERIES))
    return np.asarray(POINTS.column("outcome_1h") * now[row] / then)


def weights_of(row: int, kernel: float, near: Neighbours = NEAR) -> Floats:
    raw = np.array([float(np.exp(kernel * s)) for s in near.similarity[row].tolist()])
    return np.asarray(raw / raw.sum())


class Mixed(NamedTuple):
    """A forecast, one row for each neighbour and each point of the window."""

    members: Floats
    weights: Floats


def mixture(row: int, rows: npt.NDArray[np.intp], rule: ForecastRule) -> Mixed:
    outcomes, share = seen_from(row, rule.scale), rule.weight_of_neighbours
    window = outcomes[FIRST[row] : LAST[row]]
    of_window = np.full(len(window), (1 - share) / len(window))
    return Mixed(
        np.append(outcomes[rows], window),
        np.append(share * weights_of(row, rule.kernel), of_window),
    )


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_losses_are_the_scores_of_the_weighted_mixtures_as_they_are_issued(
    rule: ForecastRule,
) -> None:
    found = lost(rule)
    for loss, of in ((found.forecast, NEAR), (found.random, RANDOM)):
        for row in range(0, ASKED, 5):
            mixed = mixture(row, of.rows[row], rule)
            assert loss[row] == pytest.approx(crps_as_issued(*mixed, OBSERVED[row]), abs=1e-10)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_references_are_the_window_in_each_unit_whatever_the_rule(rule: ForecastRule) -> None:
    found = lost(rule)
    losses = found.volatility_model, found.rescaled_base, found.base
    for loss, scale in zip(losses, SCALES, strict=True):
        window_alone = ForecastRule(scale=scale, weight_of_neighbours=0.0)
        for row in range(0, ASKED, 5):
            mixed = mixture(row, NEAR.rows[row], window_alone)
            assert loss[row] == pytest.approx(crps_as_issued(*mixed, OBSERVED[row]), abs=1e-10)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_potential_score_pairs_each_neighbour_only_with_others(rule: ForecastRule) -> None:
    """What one neighbour is paired with is another, however few there are; a window is as it is."""
    share, found = rule.weight_of_neighbours, lost(rule)
    for row in range(0, ASKED, 5):
        outcomes, weights = seen_from(row, rule.scale), weights_of(row, rule.kernel)
        members = list(zip(weights.tolist(), outcomes[NEAR.rows[row]].tolist(), strict=True))
        pairs = [(v * w, abs(x - z)) for (v, x), (w, z) in itertools.permutations(members, 2)]
        different = sum(w * d for w, d in pairs) / sum(w for w, _ in pairs)
        every = sum(w * d for w, d in pairs)
        mixed = mixture(row, NEAR.rows[row], rule)
        expected = crps_as_issued(*mixed, OBSERVED[row]) - share**2 * (different - every) / 2
        assert found.potential[row] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_forecast_and_its_window_alone_lose_the_same_however_they_are_asked_for(
    rule: ForecastRule,
) -> None:
    outcomes = HorizonOutcomes(POINTS, QUERIES, NEAR, "1h", rule.scale)
    forecast, window = forecast_and_model_losses(outcomes, NEAR, rule)
    whole = lost(rule)
    reference = {"expected": whole.volatility_model, "last_24h": whole.rescaled_base}
    np.testing.assert_allclose(forecast, whole.forecast, rtol=0, atol=1e-10)
    np.testing.assert_allclose(window, reference.get(rule.scale, whole.base), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel", [0.0, 5.0, 80.0])
def test_the_potential_of_neighbours_alone_is_the_fair_score_of_their_ensemble(
    kernel: float,
) -> None:
    found = lost(ForecastRule(weight_of_neighbours=1.0, kernel=kernel))
    members = np.array([seen_from(row)[NEAR.rows[row]] for row in range(ASKED)])
    weights = np.array([weights_of(row, kernel) for row in range(ASKED)])
    expected = crps(members, OBSERVED, weights)
    np.testing.assert_allclose(found.potential, expected, rtol=0, atol=1e-10)
    assert (found.potential < found.forecast).all()


@given(scale=st.sampled_from(SCALES), kernel=st.floats(0, 300))
def test_without_a_weight_neighbours_make_no_difference(scale: Scale, kernel: float) -> None:
    found = lost(ForecastRule(scale=scale, weight_of_neighbours=0.0, kernel=kernel))
    losses = {"expected": found.volatility_model, "last_24h": found.rescaled_base}
    window_alone = losses.get(scale, found.base)
    for loss in (found.forecast, found.potential, found.random):
        assert np.array_equal(loss, window_alone)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_loss_of_one_query_does_not_depend_on_the_others(rule: ForecastRule) -> None:
    whole, part = lost(rule), np.array([3, 17, 18, 31])
    near, random = (Neighbours(*(np.asarray(field[part]) for field in of)) for of in (NEAR, RANDOM))
    some = all_losses(POINTS, QUERIES.take(part), near, random, "1h", rule)
    for alone, together in zip(some, whole, strict=True):
        np.testing.assert_allclose(alone, together[part], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_forecast_for_one_query_does_not_depend_on_the_others(rule: ForecastRule) -> None:
    whole = made(rule)
    for row in (0, 17, 39):
        query, near = QUERIES.take([row]), NEAR.take(slice(row, row + 1))
        outcomes = HorizonOutcomes(POINTS, query, near, "1h", rule.scale)
        for alone, together in zip(make_forecasts(outcomes, near, rule), whole, strict=True):
            np.testing.assert_allclose(alone, together[[row]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "rule",
    [
        ForecastRule(weight_of_neighbours=0.4),
        ForecastRule(weight_of_neighbours=1.0, kernel=30.0),
    ],
)
def test_neighbours_in_another_order_with_their_similarity_make_the_same_forecast(
    rule: ForecastRule,
) -> None:
    order = RNG.permutation(NEIGHBOURS)
    turned = NEAR._replace(rows=NEAR.rows[:, order], similarity=NEAR.similarity[:, order])
    np.testing.assert_allclose(lost(rule, turned).forecast, lost(rule).forecast, atol=1e-12)
    for one, other in zip(made(rule, turned), made(rule), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("kernel", [0.0, 30.0])
def test_only_differences_of_similarity_count(kernel: float) -> None:
    rule = ForecastRule(weight_of_neighbours=1.0, kernel=kernel)
    lower = NEAR._replace(similarity=NEAR.similarity - np.float32(0.25))
    np.testing.assert_allclose(lost(rule, lower).forecast, lost(rule).forecast, atol=1e-4)


def test_random_neighbours_are_weighted_by_rank_not_by_their_own_similarity() -> None:
    rule = ForecastRule(weight_of_neighbours=1.0, kernel=50.0)
    other = RANDOM._replace(similarity=RANDOM.similarity[:, ::-1])
    assert np.array_equal(lost(rule, random=other).random, lost(rule).random)


def least_reaching(mixed: Mixed, level: float) -> float:
    """The least outcome at or below which at least `level` of the weight lies."""
    for value in np.sort(mixed.members).tolist():
        if mixed.weights[mixed.members <= value].sum() >= level - 1e-9:
            return float(value)
    raise AssertionError


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_forecast_counts_its_members_by_weight(rule: ForecastRule) -> None:
    found = made(rule)
    for row in range(0, ASKED, 3):
        mixed = mixture(row, NEAR.rows[row], rule)
        assert found.p_up[row] == pytest.approx(mixed.weights[mixed.members > 0].sum())
        quantiles = [least_reaching(mixed, level) for level in (0.1, 0.5, 0.9)]
        told = [found.p10[row], found.median[row], found.p90[row]]
        assert told == pytest.approx(quantiles, abs=1e-12)
    assert np.array_equal(found.observed, OBSERVED)


@pytest.mark.parametrize("kernel", [0.0, 25.0])
def test_an_ensemble_is_ascending_and_each_member_keeps_its_weight(kernel: float) -> None:
    outcomes = HorizonOutcomes(POINTS, QUERIES, NEAR, "1h")
    ensemble = outcomes.ensemble(NEAR.rows, neighbour_weights(NEAR, kernel))
    np.testing.assert_allclose(ensemble.weights.sum(axis=1), 1)
    assert (np.diff(ensemble.outcomes) >= 0).all()
    for row in range(ASKED):
        members = seen_from(row)[NEAR.rows[row]] / outcomes.scale_pct[row]
        weights = weights_of(row, kernel)
        order = np.argsort(members)
        np.testing.assert_allclose(ensemble.outcomes[row], members[order])
        np.testing.assert_allclose(ensemble.weights[row], weights[order])


@pytest.mark.parametrize("neighbours", [2, 5, 8])
def test_the_quantiles_of_equal_weights_are_the_plain_ones(neighbours: int) -> None:
    near = NEAR._replace(rows=NEAR.rows[:, :neighbours], similarity=NEAR.similarity[:, :neighbours])
    members = np.array([seen_from(row)[near.rows[row]] for row in range(ASKED)])
    plain = np.quantile(members, [0.1, 0.5, 0.9], axis=1, method="inverted_cdf")
    nearly = ForecastRule(weight_of_neighbours=1.0, kernel=1e-12)
    for found in (made(ALONE, near), made(nearly, near)):
        np.testing.assert_allclose([found.p10, found.median, found.p90], plain)


def test_of_very_unequal_weights_the_nearest_has_its_way_and_the_score_stays_finite() -> None:
    rule = ForecastRule(weight_of_neighbours=1.0, kernel=300.0)
    far = drawn(5, spread=1.8)
    nearest = np.array([seen_from(row)[far.rows[row, 0]] for row in range(ASKED)])
    alone = np.diff(far.similarity[:, :2])[:, 0] < -0.05
    assert alone.sum() > 10
    np.testing.assert_allclose(made(rule, far).median[alone], nearest[alone])
    assert np.isfinite([lost(rule, far).forecast, lost(rule, far).potential]).all()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("kernel", [0.0, 10.0])
def test_a_query_that_lacks_a_neighbour_has_no_forecast_and_no_loss(
    kernel: float, weight: float
) -> None:
    rows, similarity = NEAR.rows.copy(), NEAR.similarity.copy()
    rows[4, -1], similarity[4, -1] = -1, np.nan
    few = NEAR._replace(rows=rows, similarity=similarity)
    rule = ForecastRule(weight_of_neighbours=weight, kernel=kernel)
    others = np.arange(ASKED) != 4
    for one, whole in zip(lost(rule, few), lost(rule), strict=True):
        assert np.isnan(one[4])
        np.testing.assert_allclose(one[others], whole[others])
    for one, whole in zip(made(rule, few)[:4], made(rule)[:4], strict=True):
        assert np.isnan(one[4])
        np.testing.assert_allclose(one[others], whole[others])


def test_forecasts_that_are_not_wanted_are_unknown_and_what_followed_is_not() -> None:
    wanted = np.arange(ASKED) % 3 == 0
    whole, part = made(RULES[2]), made(RULES[2]).where(wanted)
    for one, other in zip(part[:4], whole[:4], strict=True):
        assert np.isnan(one[~wanted]).all()
        assert np.array_equal(one[wanted], other[wanted])
    assert np.array_equal(part.observed, whole.observed)
    assert np.array_equal(part.scale_pct, whole.scale_pct)


def test_an_unknown_horizon_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no horizon '2h'; known: 15m, 1h, 4h, 24h"):
        HorizonOutcomes(POINTS, QUERIES, NEAR, "2h")
