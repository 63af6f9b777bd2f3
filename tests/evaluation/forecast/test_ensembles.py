"""Forecasts and their losses, against a sum over every pair of members."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.forecast.ensembles import (
    Forecasts,
    HorizonOutcomes,
    Losses,
    all_losses,
    make_forecasts,
)
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.plan import ForecastRule
from llm_trader.index.points import PointTable
from tests.evaluation.forecast.slow_crps import crps
from tests.index.builders import points_at

RNG = np.random.default_rng(7)
MANY, ASKED, EPISODES = 240, 40, 8
PLAIN = ForecastRule(rescale=0.0)
RULES = [
    ForecastRule(rescale=rescale, neighbour_share=share, kernel=kernel)
    for rescale, share, kernel in itertools.product((0.0, 0.75, 1.0), (0.0, 0.4, 1.0), (0.0, 20.0))
]


def market(slots: range, seed: int) -> PointTable:
    rng = np.random.default_rng(seed)
    volatility = np.exp(0.5 * rng.standard_normal(len(slots)))
    outcomes = volatility * rng.standard_t(4, len(slots))
    return points_at(slots, seed, realized_volatility_24h=volatility, outcome_1h=outcomes)


POINTS, QUERIES = market(range(MANY), 1), market(range(MANY, MANY + ASKED), 2)
FIRST = np.arange(ASKED, dtype=np.intp)
LAST = np.asarray(MANY - ASKED + FIRST)


def drawn(seed: int, *, spread: float = 0.1) -> Neighbours:
    """Neighbours within each query's window, some with more alike ones than others."""
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.arange(a, b), EPISODES, replace=False)
        for a, b in zip(FIRST, LAST, strict=True)
    ]
    similarity = 0.9 - np.sort(rng.uniform(0, spread, (ASKED, EPISODES)), axis=1)
    return Neighbours(np.array(rows), similarity.astype(np.float32), FIRST, LAST)


NEAR, RANDOM = drawn(3), drawn(4)


def horizons(
    rule: ForecastRule, near: Neighbours = NEAR
) -> tuple[HorizonOutcomes, HorizonOutcomes]:
    """The 1h horizon of a rule, and the plain one."""
    both = (HorizonOutcomes(POINTS, QUERIES, near, "1h", of) for of in (rule, PLAIN))
    return next(both), next(both)


def lost(rule: ForecastRule, near: Neighbours = NEAR, random: Neighbours = RANDOM) -> Losses:
    return all_losses(*horizons(rule, near), near, random, rule)


def made(rule: ForecastRule, near: Neighbours = NEAR) -> Forecasts:
    return make_forecasts(horizons(rule, near)[0], near, rule)


def seen_from(row: int, rescale: float) -> Floats:
    """Outcomes of all points as a query would have them, straight from the definition."""
    then, now = (of.column("realized_volatility_24h") for of in (POINTS, QUERIES))
    ratio = (now[row] / then) ** rescale
    return np.asarray(POINTS.column("outcome_1h") * ratio)


def weights_of(row: int, kernel: float) -> list[float]:
    raw = [float(np.exp(kernel * s)) for s in NEAR.similarity[row].tolist()]
    return [w / sum(raw) for w in raw]


def mixed_by_hand(row: int, rows: npt.NDArray[np.intp], rule: ForecastRule) -> float:
    """Pair by pair: two draws of the neighbours are of different ones, so are two of the base."""
    outcomes, y = seen_from(row, rule.rescale), float(QUERIES.column("outcome_1h")[row])
    base = outcomes[FIRST[row] : LAST[row]]
    weights, share = weights_of(row, rule.kernel), rule.neighbour_share
    members = list(zip(weights, outcomes[rows].tolist(), strict=True))
    near = sum(w * abs(x - y) for w, x in members)
    pairs = [(v * w, abs(x - z)) for (v, x), (w, z) in itertools.permutations(members, 2)]
    within = sum(w * d for w, d in pairs) / sum(w for w, _ in pairs)
    across = sum(w * float(np.abs(base - x).mean()) for w, x in members)
    m = len(base)
    spread = float(np.abs(base[:, None] - base).sum()) / (m * (m - 1))
    away = share * near + (1 - share) * float(np.abs(base - y).mean())
    return away - 0.5 * (
        share**2 * within + 2 * share * (1 - share) * across + (1 - share) ** 2 * spread
    )


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_losses_are_those_of_a_sum_over_every_pair_of_members(rule: ForecastRule) -> None:
    found = lost(rule)
    rows = range(0, ASKED, 5)
    for loss, of in ((found.forecast, NEAR), (found.random, RANDOM)):
        expected = [mixed_by_hand(row, of.rows[row], rule) for row in rows]
        np.testing.assert_allclose(loss[::5], expected, rtol=0, atol=1e-10)
    for loss, rescale in ((found.rescaled_base, rule.rescale), (found.base, 0.0)):
        alone = ForecastRule(rescale=rescale, neighbour_share=0.0)
        expected = [mixed_by_hand(row, NEAR.rows[row], alone) for row in rows]
        np.testing.assert_allclose(loss[::5], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel", [0.0, 5.0, 80.0])
def test_neighbours_alone_have_the_score_of_their_weighted_ensemble(kernel: float) -> None:
    found = lost(ForecastRule(kernel=kernel))
    members = np.array([seen_from(row, 1.0)[NEAR.rows[row]] for row in range(ASKED)])
    weights = np.array([weights_of(row, kernel) for row in range(ASKED)])
    expected = crps(members, np.array(QUERIES.column("outcome_1h")), weights)
    np.testing.assert_allclose(found.forecast, expected, rtol=0, atol=1e-10)


@given(rescale=st.floats(0, 1), kernel=st.floats(0, 300))
@settings(max_examples=20)
def test_without_a_share_neighbours_make_no_difference(rescale: float, kernel: float) -> None:
    found = lost(ForecastRule(rescale=rescale, neighbour_share=0.0, kernel=kernel))
    np.testing.assert_allclose(found.forecast, found.rescaled_base, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.random, found.rescaled_base, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_loss_of_one_query_does_not_depend_on_the_others(rule: ForecastRule) -> None:
    whole, part = lost(rule), np.array([3, 17, 18, 31])
    near, random = (Neighbours(*(np.asarray(field[part]) for field in of)) for of in (NEAR, RANDOM))
    queries = QUERIES.take(part)
    horizon, plain = (HorizonOutcomes(POINTS, queries, near, "1h", of) for of in (rule, PLAIN))
    for alone, together in zip(all_losses(horizon, plain, near, random, rule), whole, strict=True):
        np.testing.assert_allclose(alone, together[part], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", [ForecastRule(neighbour_share=0.4), ForecastRule(kernel=30.0)])
def test_neighbours_in_another_order_with_their_similarity_make_the_same_forecast(
    rule: ForecastRule,
) -> None:
    order = RNG.permutation(EPISODES)
    turned = NEAR._replace(rows=NEAR.rows[:, order], similarity=NEAR.similarity[:, order])
    np.testing.assert_allclose(lost(rule, turned).forecast, lost(rule).forecast, atol=1e-12)
    for one, other in zip(made(rule, turned)[1:], made(rule)[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("kernel", [0.0, 30.0])
def test_only_differences_of_similarity_count(kernel: float) -> None:
    rule = ForecastRule(kernel=kernel)
    lower = NEAR._replace(similarity=NEAR.similarity - np.float32(0.25))
    np.testing.assert_allclose(lost(rule, lower).forecast, lost(rule).forecast, atol=1e-4)


def test_random_neighbours_are_weighted_by_rank_not_by_their_own_similarity() -> None:
    rule = ForecastRule(kernel=50.0)
    other = RANDOM._replace(similarity=RANDOM.similarity[:, ::-1])
    assert np.array_equal(lost(rule, random=other).random, lost(rule).random)


def test_a_forecast_counts_its_members_by_weight() -> None:
    rule = ForecastRule(neighbour_share=0.7, kernel=25.0)
    found = made(rule)
    for row in range(ASKED):
        outcomes, weights = seen_from(row, 1.0), weights_of(row, rule.kernel)
        members = list(zip(weights, outcomes[NEAR.rows[row]].tolist(), strict=True))
        up = sum(w for w, x in members if x > 0)
        usual = float((outcomes[FIRST[row] : LAST[row]] > 0).mean())
        assert found.p_up[row] == pytest.approx(0.7 * up + 0.3 * usual)
        median = found.median[row]
        tied = [w for w, x in members if abs(x - median) < 1e-9]
        below = sum(w for w, x in members if x < median - 1e-9)
        assert below <= 0.5 <= below + sum(tied)
    np.testing.assert_allclose(found.ensemble.weights.sum(axis=1), 1)
    assert (np.diff(found.ensemble.outcomes) >= 0).all()


@pytest.mark.parametrize("episodes", [2, 5, 8])
def test_the_median_of_equal_weights_is_the_plain_one(episodes: int) -> None:
    near = NEAR._replace(rows=NEAR.rows[:, :episodes], similarity=NEAR.similarity[:, :episodes])
    members = np.array([seen_from(row, 1.0)[near.rows[row]] for row in range(ASKED)])
    np.testing.assert_allclose(made(ForecastRule(), near).median, np.median(members, axis=1))
    nearly = made(ForecastRule(kernel=1e-12), near)
    np.testing.assert_allclose(nearly.median, np.median(members, axis=1))


def test_of_very_unequal_weights_the_nearest_has_its_way_and_the_score_stays_finite() -> None:
    rule = ForecastRule(kernel=300.0)
    far = drawn(5, spread=1.8)
    nearest = np.array([seen_from(row, 1.0)[far.rows[row, 0]] for row in range(ASKED)])
    alone = np.diff(far.similarity[:, :2])[:, 0] < -0.05
    np.testing.assert_allclose(made(rule, far).median[alone], nearest[alone])
    assert np.isfinite(lost(rule, far).forecast).all()


@pytest.mark.parametrize("kernel", [0.0, 10.0])
def test_a_query_that_lacks_an_episode_has_no_forecast_and_no_loss(kernel: float) -> None:
    rows, similarity = NEAR.rows.copy(), NEAR.similarity.copy()
    rows[4, -1], similarity[4, -1] = -1, np.nan
    few, rule = NEAR._replace(rows=rows, similarity=similarity), ForecastRule(kernel=kernel)
    others = np.arange(ASKED) != 4
    for one, whole in zip(lost(rule, few), lost(rule), strict=True):
        assert np.isnan(one[4])
        np.testing.assert_allclose(one[others], whole[others])
    assert np.isnan([made(rule, few).p_up[4], made(rule, few).median[4]]).all()


def test_an_unknown_horizon_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no horizon '2h'; known: 15m, 1h, 4h, 24h"):
        HorizonOutcomes(POINTS, QUERIES, NEAR, "2h", PLAIN)
