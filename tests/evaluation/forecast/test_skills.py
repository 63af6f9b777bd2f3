"""Skills are those of the scores and tests beneath them, over stretches that are long enough."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.skills import (
    ScoredForecasts,
    WalkForward,
    measure_direction,
    measure_skills,
    score_forecasts,
)
from llm_trader.evaluation.plan import ForecastRule, StudyPlan
from llm_trader.evaluation.results import VERDICT_REFERENCE
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, MINUTE_MS
from tests.evaluation.forecast.slow_crps import crps, crps_as_issued
from tests.evaluation.small_market import (
    RULE,
    SEARCH,
    early_walk,
    made_market,
    made_score,
    made_walk,
    walk_through,
)

REPS, SEED = 200, 3
RESAMPLING = StudyPlan(reps=REPS, seed=SEED)


def with_median(scored: ScoredForecasts, median: np.ndarray) -> ScoredForecasts:
    return scored._replace(forecasts=scored.forecasts._replace(median=median))


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("minutes", [5, 15, 25, 50, 60, 240, 700, 1440])
def test_a_stretch_covers_a_day_and_four_horizons_at_any_step_and_hardly_more(
    minutes: int, horizon: str
) -> None:
    step_ms = minutes * MINUTE_MS
    block = made_walk()._replace(step_ms=step_ms).block(horizon)
    least_ms = max(DAY_MS, 4 * HORIZONS[horizon])
    assert least_ms <= block * step_ms < least_ms + step_ms


@pytest.mark.parametrize(
    ("horizon", "minutes", "block"),
    [("1h", 120, 12), ("4h", 60, 24), ("24h", 60, 96)],
)
def test_intervals_and_p_values_are_those_of_a_direct_call_with_these_stretches(
    horizon: str, minutes: int, block: int
) -> None:
    scored = made_score(horizon, step_ms=minutes * MINUTE_MS)
    loss = scored.losses.forecast
    against = scored.references()
    skills = measure_skills(scored, "state", RESAMPLING)
    assert [skill.reference for skill in skills] == list(against)
    for skill in skills:
        reference = against[skill.reference]
        interval = significance.skill_interval(loss, reference, block, REPS, SEED)
        test = significance.diebold_mariano(loss, reference, block)
        least = significance.minimum_detectable_effect(reference - loss, block)
        assert skill.variant == "state"
        assert skill.skill == interval
        assert skill.verdict == significance.verdict(interval)
        assert skill.p_value == test.p_value
        assert skill.p_adjusted is None
        potential = 1 - scored.losses.potential.mean() / reference.mean()
        assert skill.potential == pytest.approx(potential)
        assert skill.detectable == pytest.approx(least / np.nanmean(reference))
        assert skill.skill.low < skill.skill.value < skill.skill.high
    hits = measure_direction(scored, "state", RESAMPLING).accuracy
    plain = np.sign(scored.forecasts.median) == np.sign(scored.forecasts.observed)
    assert hits == significance.mean_interval(plain.astype(float), block, REPS, SEED)


def test_the_potential_counts_what_both_forecast_and_reference_answer() -> None:
    (scored,) = score_forecasts(early_walk(), {"4h": RULE})
    known = scored.walk.neighbours.complete & scored.walk.random.complete
    for skill in measure_skills(scored, "state", RESAMPLING):
        losses = scored.losses.potential[known], scored.references()[skill.reference][known]
        assert skill.potential == pytest.approx(1 - losses[0].mean() / losses[1].mean())
        assert skill.potential > skill.skill.value
    nothing = scored.where(np.zeros(len(known), np.bool_))
    assert {of.potential for of in measure_skills(nothing, "state", RESAMPLING)} == {None}


def test_what_follows_a_signal_is_forecast_better_than_by_any_reference() -> None:
    for skill in measure_skills(made_score("4h"), "state", RESAMPLING):
        assert skill.verdict == "better", skill
        assert skill.p_value is not None
        assert skill.p_value < 0.01
        assert skill.detectable is not None
        assert 0 < skill.detectable < skill.skill.value
    assert measure_direction(made_score("4h"), "state", RESAMPLING).accuracy.low > 0.5


def test_a_forecast_equal_to_its_reference_has_no_skill_and_no_evidence() -> None:
    scored = made_score()
    for name, reference in scored.references().items():
        same = scored._replace(losses=scored.losses._replace(forecast=reference))
        skill = {of.reference: of for of in measure_skills(same, "state", RESAMPLING)}[name]
        assert (skill.skill.value, skill.skill.low, skill.skill.high) == (0, 0, 0)
        assert skill.verdict == "no evidence"
        assert skill.p_value is None
        assert skill.detectable == 0
        msgspec.json.encode(skill)


def test_without_a_weight_of_neighbours_a_forecast_is_exactly_the_volatility_model() -> None:
    walk = early_walk()
    (scored,) = score_forecasts(walk, {"4h": ForecastRule(weight_of_neighbours=0)})
    assert np.isfinite(scored.losses.forecast).any()
    same = {of.reference: of for of in measure_skills(scored, "state", RESAMPLING)}[
        VERDICT_REFERENCE
    ]
    assert (same.skill.value, same.skill.low, same.skill.high) == (0, 0, 0)
    assert same.potential == 0
    assert same.p_value is None
    assert same.verdict == "no evidence"


def test_neighbours_alone_are_scored_as_their_ensemble_is_issued_and_fairly() -> None:
    walk = early_walk()
    rule = ForecastRule(scale="none", weight_of_neighbours=1)
    (scored,) = score_forecasts(walk, {"4h": rule})
    losses, whole = scored.losses, walk.neighbours.complete & walk.random.complete
    outcomes, observed = (of.column("outcome_4h") for of in (walk.points, walk.queries))
    fair = np.where(whole, crps(outcomes[walk.neighbours.rows], observed), np.nan)
    np.testing.assert_allclose(losses.potential, fair, atol=1e-12)
    assert np.array_equal(np.isfinite(losses.base), whole)
    even = np.ones(SEARCH.neighbours)
    for row in np.flatnonzero(whole)[::37]:
        for of, loss in ((walk.neighbours, losses.forecast), (walk.random, losses.random)):
            plain = crps_as_issued(outcomes[of.rows[row]], even, observed[row])
            assert loss[row] == pytest.approx(plain, abs=1e-12)
        window = outcomes[walk.neighbours.first[row] : walk.neighbours.last[row]]
        plain = crps_as_issued(window, np.ones(len(window)), observed[row])
        assert losses.base[row] == pytest.approx(plain, abs=1e-12)


def test_queries_without_all_neighbours_are_left_out_against_every_reference_alike() -> None:
    (scored,) = score_forecasts(early_walk(), {"4h": RULE})
    walk = scored.walk
    whole = walk.neighbours.complete & walk.random.complete
    assert 0 < whole.sum() < len(walk.queries)
    for loss in scored.losses:
        assert np.array_equal(np.isfinite(loss), whole)
    for skill in measure_skills(scored, "state", RESAMPLING):
        assert skill.queries == whole.sum()
    part = np.flatnonzero(whole)
    alone = WalkForward(
        walk.points,
        walk.queries.take(part),
        *(type(of)(*(array[part] for array in of)) for of in (walk.neighbours, walk.random)),
        walk.intraday,
        walk.step_ms,
    )
    (again,) = score_forecasts(alone, {"4h": RULE})
    for one, other in zip(
        measure_skills(again, "state", RESAMPLING),
        measure_skills(scored, "state", RESAMPLING),
        strict=True,
    ):
        assert one.queries == other.queries
        bounds = [(of.skill.value, of.skill.low, of.skill.high) for of in (one, other)]
        np.testing.assert_allclose(*bounds, rtol=1e-9)


def test_with_too_little_time_there_is_a_skill_but_neither_interval_nor_p_value() -> None:
    points = made_market().points.take(slice(0, 96 * 29 + 1))
    (scored,) = score_forecasts(walk_through(points), {"4h": RULE})
    for skill in measure_skills(scored, "state", RESAMPLING):
        assert skill.queries == 9 * 24 + 1
        assert skill.skill.value is not None
        assert skill.skill.low is None
        assert skill.p_value is skill.detectable is None
        assert skill.verdict == "no evidence"


def test_a_perfect_median_is_always_right_and_its_inverse_never() -> None:
    scored = made_score()
    observed = scored.forecasts.observed
    perfect = measure_direction(with_median(scored, observed), "state", RESAMPLING).accuracy
    inverse = measure_direction(with_median(scored, -observed), "state", RESAMPLING).accuracy
    assert (perfect.value, perfect.low, perfect.high) == (1, 1, 1)
    assert (inverse.value, inverse.low, inverse.high) == (0, 0, 0)


def test_an_unknown_median_is_neither_right_nor_wrong() -> None:
    scored = made_score()
    observed = scored.forecasts.observed
    half = np.where(np.arange(len(observed)) % 2, observed, np.nan)
    assert measure_direction(with_median(scored, half), "state", RESAMPLING).accuracy.value == 1


def test_random_neighbours_see_the_window_of_the_others_and_other_points() -> None:
    search = msgspec.structs.replace(SEARCH, embargo_hours=30.0, gap_hours=6.0)
    walk = walk_through(made_market().points, search, step_ms=6 * HOUR_MS)
    assert np.array_equal(walk.random.first, walk.neighbours.first)
    assert np.array_equal(walk.random.last, walk.neighbours.last)
    rows = walk.random.rows
    assert (rows >= walk.random.first[:, None]).all()
    assert (rows < walk.random.last[:, None]).all()
    apart = np.diff(np.sort(walk.points.timestamp_ms[rows], axis=1), axis=1)
    assert apart.min() >= 6 * HOUR_MS
    assert (rows == walk.neighbours.rows).mean() < 0.05


def test_where_neighbours_are_too_unlike_the_volatility_model_is_scored_and_nothing_told() -> None:
    walk = made_walk()
    least = float(np.median(walk.mean_similarity))
    plain, (careful,) = made_score(), score_forecasts(walk, {"4h": RULE}, least)
    unlike = walk.mean_similarity < least
    assert 0 < unlike.sum() < len(unlike)
    for name, loss in careful.losses._asdict().items():
        usual = getattr(plain.losses, name)
        replaced = name in ("forecast", "potential", "random")
        instead = plain.losses.volatility_model if replaced else usual
        assert np.array_equal(loss, np.where(unlike, instead, usual))
    for name in ("p_up", "p10", "median", "p90"):
        told, usual = (getattr(of.forecasts, name) for of in (careful, plain))
        assert np.isnan(told[unlike]).all()
        assert np.array_equal(told[~unlike], usual[~unlike])


def test_queries_that_are_not_kept_have_no_loss_of_any_kind() -> None:
    scored = made_score()
    kept = np.arange(len(scored.losses.forecast)) % 3 == 0
    for part, whole in zip(scored.where(kept).losses, scored.losses, strict=True):
        assert np.isnan(part[~kept]).all()
        assert np.array_equal(part[kept], whole[kept])


def test_neighbours_whose_outcomes_overlap_are_fewer_and_those_of_none_unknown() -> None:
    walk = early_walk()
    few = ~walk.neighbours.complete
    assert np.array_equal(np.isnan(walk.mean_similarity), few)
    apart, overlapping = (walk.effective_episodes(name, walk.neighbours) for name in ("4h", "24h"))
    assert np.array_equal(np.isnan(apart), few)
    assert (apart[~few] == SEARCH.neighbours).all()  # the gap is 4 hours
    assert (overlapping[~few] <= SEARCH.neighbours).all()
    assert np.nanmean(overlapping) < SEARCH.neighbours
