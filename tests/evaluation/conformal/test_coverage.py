"""A corrected band holds what it promises, by nothing that was not known."""

from __future__ import annotations

from collections import defaultdict
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
    measure_band_cells,
)
from llm_trader.evaluation.forecast.skills import ScoredForecasts, WalkForward, score_forecasts
from llm_trader.evaluation.plan import ForecastRule, Search, StudyPlan
from llm_trader.evaluation.results import BandCell
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS
from tests.evaluation.conformal.made_up import made_up
from tests.evaluation.small_market import walk_through
from tests.index.builders import START_MS

DAYS, FIRST_DAY = 70, 9
SEARCH = Search(include_regime_filters=False, lookback_days=8, neighbours=10)
# A band of ten outcomes is too narrow: it lies between the first and the ninth.
RULE = ForecastRule(weight_of_neighbours=1.0)
HORIZON = "1h"
ROW = COLUMN_ROW["outcome_1h"]


@cache
def points() -> PointTable:
    return made_up(3, days=DAYS)


@cache
def walk() -> WalkForward:
    return walk_through(points(), SEARCH, first_day=FIRST_DAY)


def scored(of: WalkForward, horizon: str = HORIZON) -> ScoredForecasts:
    (found,) = score_forecasts(of, {horizon: RULE})
    return found


@cache
def made() -> BandCoverage:
    return cover(scored(walk()))


def with_other_outcomes(table: PointTable, rows: np.ndarray) -> PointTable:
    values = table.values.copy()
    values[ROW, rows] = 40 * np.random.default_rng(1).standard_normal(rows.sum())
    return replace(table, values=values)


def test_of_exchangeable_outcomes_it_holds_four_in_five_where_before_it_held_fewer() -> None:
    before, after = made()
    assert np.nanmean(before) < 0.76  # 10 to 90 % of 10 neighbours are 8 of the 11 gaps
    assert np.nanmean(after) == pytest.approx(0.8, abs=0.03)


def test_before_correction_it_is_the_forecasts_band_counted_query_by_query() -> None:
    then, now = (of.column("expected_volatility_1h") for of in (points(), walk().queries))
    rows, observed = walk().neighbours.rows, walk().queries.column("outcome_1h")
    members = (points().column("outcome_1h") / then)[rows] * now[:, None]
    low, high = np.quantile(members, [0.1, 0.9], axis=1, method="inverted_cdf")
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
    other = cover(scored(changed))
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
    other = cover(scored(walk_through(changed, SEARCH, first_day=FIRST_DAY)))
    past = stamps <= now_ms - DAY_MS
    for one, whole in zip(other, made(), strict=True):
        assert np.array_equal(one[past], whole[past], equal_nan=True)


def test_a_band_s_shares_have_intervals_over_stretches_of_time() -> None:
    band = measure_band(scored(walk()), made(), StudyPlan(reps=200, seed=1))
    block = walk().block(HORIZON)
    assert (band.symbol, band.horizon) == (points().symbol, HORIZON)
    assert band.before == significance.mean_interval(made().before, block, 200, 1)
    assert band.after == significance.mean_interval(made().after, block, 200, 1)
    assert band.queries == np.isfinite(made().after).sum()
    assert band.after.low < 0.8 < band.after.high


def by_division(cells: list[BandCell]) -> dict[str, list[BandCell]]:
    found: dict[str, list[BandCell]] = defaultdict(list)
    for cell in cells:
        found[cell.by].append(cell)
    return found


def test_each_condition_divides_the_queries_of_the_band() -> None:
    known = np.isfinite(made().after)
    found = by_division(measure_band_cells(scored(walk()), made()))
    assert list(found) == ["expected / last 24h", "hour (UTC)"]
    for cells in found.values():
        assert {(of.symbol, of.horizon) for of in cells} == {(points().symbol, HORIZON)}
        assert sum(of.queries for of in cells) == known.sum()
        for name, column in made()._asdict().items():
            hits = sum(of.queries * getattr(of, name) for of in cells)
            assert hits == pytest.approx(np.nansum(column))


def test_cells_are_fifths_of_the_ratio_in_order_and_parts_of_the_day() -> None:
    queries, known = walk().queries, np.isfinite(made().after)
    found = by_division(measure_band_cells(scored(walk()), made()))
    fifths, parts = found["expected / last 24h"], found["hour (UTC)"]
    assert [of.value for of in fifths] == [f"fifth {number} of 5" for number in range(1, 6)]
    assert [of.queries for of in fifths] == pytest.approx([known.sum() / 5] * 5, abs=1)
    ratio = queries.column("expected_volatility_1h") / queries.column("realized_volatility_24h")
    ascending = np.flatnonzero(known)[np.argsort(ratio[known])]
    lowest, highest = ascending[: fifths[0].queries], ascending[-fifths[4].queries :]
    assert fifths[0].after == pytest.approx(made().after[lowest].mean())
    assert fifths[4].before == pytest.approx(made().before[highest].mean())
    assert [of.value for of in parts] == ["00-04", "04-08", "08-12", "12-16", "16-20", "20-24"]
    hour = queries.timestamp_ms % DAY_MS // HOUR_MS
    for cell, start in zip(parts, range(0, 24, 4), strict=True):
        chosen = known & (hour >= start) & (hour < start + 4)
        assert cell.queries == chosen.sum()
        assert cell.after == pytest.approx(made().after[chosen].mean())


def test_with_too_few_days_nothing_is_counted_and_nothing_is_zero() -> None:
    short = walk_through(points().take(slice(0, 96 * (FIRST_DAY + 2))), SEARCH, first_day=FIRST_DAY)
    for name in HORIZONS:
        of_horizon = scored(short, name)
        inside = cover(of_horizon)
        band = measure_band(of_horizon, inside, StudyPlan(reps=100, seed=1))
        assert np.isnan(inside).all()
        assert (band.queries, band.after.value) == (0, None)
        assert measure_band_cells(of_horizon, inside) == []
