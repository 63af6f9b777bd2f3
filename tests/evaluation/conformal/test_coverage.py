"""A corrected band holds what it promises, by nothing that was not known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from llm_trader.evaluation import significance
from llm_trader.evaluation.conformal.bands import (
    MIN_EFFECTIVE_SCORES,
    BandCoverage,
    cover,
    measure_band,
)
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.plan import Search, StudyPlan
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.retrieval.statistics import quantiles
from llm_trader.timeframe import DAY_MS, HORIZONS
from tests.evaluation.small_market import walk_through
from tests.index.builders import START_MS, at
from tests.retrieval.builders import outcomes_at, points_of, states_at

DAYS, FIRST_DAY = 70, 9
SEARCH = Search(include_regime_filters=False, lookback_days=8, evidence_k=10)
HORIZON = "1h"
ROW = COLUMN_ROW["outcome_1h"]


@cache
def points() -> PointTable:
    """Outcomes in proportion to the volatility, so that rescaled ones are exchangeable."""
    states = states_at(at(range(DAYS * 96)), 3)
    outcomes = outcomes_at(DAYS * 96, 3)
    outcomes[:4] *= states.column("realized_volatility_24h") / 2
    return points_of(states, outcomes)


@cache
def walk() -> WalkForward:
    return walk_through(points(), SEARCH, first_day=FIRST_DAY)


@cache
def made() -> BandCoverage:
    return cover(walk(), HORIZON)


def with_other_outcomes(table: PointTable, rows: np.ndarray) -> PointTable:
    values = table.values.copy()
    values[ROW, rows] = 40 * np.random.default_rng(1).standard_normal(rows.sum())
    return replace(table, values=values)


def test_of_exchangeable_outcomes_it_holds_four_in_five_where_before_it_held_fewer() -> None:
    before, after = made()
    assert np.nanmean(before) < 0.76  # p10 to p90 of 10 neighbours hold 8 of 11 gaps, or less
    assert np.nanmean(after) == pytest.approx(0.8, abs=0.03)


def test_before_correction_it_is_the_served_band_counted_query_by_query() -> None:
    then, now = (of.column("realized_volatility_24h") for of in (points(), walk().queries))
    rows, observed = walk().neighbours.rows, walk().queries.column("outcome_1h")
    served = (points().column("outcome_1h") / then)[rows] * now[:, None]
    low, high = quantiles(np.sort(served, axis=1), np.array([[0.1, 0.9]])).T
    inside = (low <= observed) & (observed <= high)
    known = np.isfinite(made().before)
    assert np.array_equal(made().before[known], inside[known])


def test_both_are_counted_from_the_first_day_with_enough_outcomes_before_it() -> None:
    before, after = made()
    assert np.array_equal(np.isnan(before), np.isnan(after))
    day = (walk().queries.timestamp_ms - START_MS) // DAY_MS - FIRST_DAY
    # An outcome is known after a day: of the first 24 hours, at the second midnight.
    assert MIN_EFFECTIVE_SCORES < 24
    assert np.array_equal(np.isfinite(after), day >= 2)


@pytest.mark.parametrize("day", [20, 41])
def test_what_is_not_known_at_midnight_makes_no_margin_of_the_day(day: int) -> None:
    midnight = START_MS + day * DAY_MS
    stamps = walk().queries.timestamp_ms
    unknown = (stamps > midnight - DAY_MS) & (stamps < midnight)
    changed = walk()._replace(queries=with_other_outcomes(walk().queries, unknown))
    other = cover(changed, HORIZON)
    same = ~unknown & (stamps < midnight + DAY_MS)
    assert np.array_equal(other.after[same], made().after[same], equal_nan=True)
    assert not np.array_equal(other.after[unknown], made().after[unknown])
    # A day later all of them are known, and make the band wider.
    later = stamps >= midnight + DAY_MS
    assert other.after[later].mean() > made().after[later].mean()


def test_changing_what_follows_later_changes_nothing_earlier() -> None:
    now_ms = START_MS + 30 * DAY_MS
    stamps = walk().queries.timestamp_ms
    changed = with_other_outcomes(points(), points().resolved_at_ms > now_ms)
    other = cover(walk_through(changed, SEARCH, first_day=FIRST_DAY), HORIZON)
    past = stamps <= now_ms - DAY_MS
    for one, whole in zip(other, made(), strict=True):
        assert np.array_equal(one[past], whole[past], equal_nan=True)


def test_a_band_s_shares_have_intervals_over_stretches_of_time() -> None:
    band = measure_band(walk(), HORIZON, made(), StudyPlan(reps=200, seed=1))
    block = walk().block(HORIZON)
    assert band.before == significance.mean_interval(made().before, block, 200, 1)
    assert band.after == significance.mean_interval(made().after, block, 200, 1)
    assert band.queries == np.isfinite(made().after).sum()
    assert band.after.low < 0.8 < band.after.high


def test_with_too_few_days_nothing_is_counted_and_nothing_is_zero() -> None:
    short = walk_through(points().take(slice(0, 96 * (FIRST_DAY + 2))), SEARCH, first_day=FIRST_DAY)
    for name in HORIZONS:
        inside = cover(short, name)
        band = measure_band(short, name, inside, StudyPlan(reps=100, seed=1))
        assert np.isnan(inside).all()
        assert (band.queries, band.after.value) == (0, None)
