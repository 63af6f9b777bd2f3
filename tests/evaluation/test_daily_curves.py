"""What drifts is drawn day by day, and days of which nothing is known are gaps."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import nan

import numpy as np
import pytest

from llm_trader.arrays import Floats
from llm_trader.evaluation.backtest.strategies import Market, run_backtest
from llm_trader.evaluation.conformal.bands import BandCoverage
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.result_files import drift_curves, equity_curve, similarity_histogram
from llm_trader.evaluation.results import Curve
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.evaluation.small_market import (
    NO_FUNDING,
    RULE,
    SEARCH,
    early_walk,
    made_market,
    made_walk,
    walk_through,
)

WEEK = 7


@cache
def walk() -> WalkForward:
    """Whose first query is asked at five in the morning."""
    whole = made_walk()
    kept = np.arange(5, len(whole.queries))
    near, random = (
        type(of)(*(array[kept] for array in of)) for of in (whole.neighbours, whole.random)
    )
    return whole._replace(queries=whole.queries.take(kept), neighbours=near, random=random)


def days_of(of: WalkForward) -> list[int]:
    stamps = of.queries.timestamp_ms
    return list(range(int(stamps[0] // DAY_MS), int(stamps[-1] // DAY_MS) + 1))


def mean_of_days(of: WalkForward, values: Floats, last: int, days: int) -> float | None:
    day = of.queries.timestamp_ms // DAY_MS
    known = values[(day <= last) & (day > last - days) & np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def matches(curve: Curve, of: WalkForward, values: Floats, days: int = 1) -> None:
    assert curve.time_ms == [day * DAY_MS for day in days_of(of)]
    expected = [mean_of_days(of, values, day, days) for day in days_of(of)]
    assert [one is None for one in curve.value] == [one is None for one in expected]
    assert curve.value == pytest.approx(expected)


def random_inside(of: WalkForward) -> BandCoverage:
    chances = np.random.default_rng(1)
    inside = (chances.random(len(of.queries)) < 0.8).astype(float)
    inside[: 12 * 24] = nan  # no correction could be made yet
    return BandCoverage(inside, inside)


@pytest.mark.parametrize("of", [walk, early_walk])
def test_each_day_is_the_mean_of_what_is_known_of_its_queries(of: object) -> None:
    made: WalkForward = of()  # type: ignore[operator]
    likeness, episodes = drift_curves(made, {}, "24h")
    assert (likeness.kind, episodes.kind) == ("similarity", "effective episodes")
    matches(likeness, made, made.mean_similarity)
    matches(episodes, made, made.effective_episodes("24h", made.neighbours))


def test_coverage_is_the_mean_of_a_week_and_unknown_before_there_is_a_correction() -> None:
    made, inside = walk(), random_inside(walk())
    *_, curve = drift_curves(made, {"4h": inside}, "4h")
    assert (curve.kind, curve.name, curve.symbol) == ("coverage", "over 4h", "BTCUSDT")
    matches(curve, made, inside.after, WEEK)
    assert curve.value[:12] == [None] * 12
    assert all(one is not None for one in curve.value[13:])


def test_days_without_a_query_are_gaps() -> None:
    made = walk()
    day = made.queries.timestamp_ms // DAY_MS - made.queries.timestamp_ms[0] // DAY_MS
    kept = np.flatnonzero((day < 5) | (day > 7))
    near = type(made.neighbours)(*(array[kept] for array in made.neighbours))
    holed = made._replace(queries=made.queries.take(kept), neighbours=near, random=near)
    likeness, _ = drift_curves(holed, {}, "4h")
    matches(likeness, holed, holed.mean_similarity)
    assert likeness.value[5:8] == [None] * 3


def test_equity_starts_at_1_and_is_the_last_of_each_day() -> None:
    plan = StudyPlan(step_minutes=60, search=SEARCH, rules={"4h": RULE})
    market = Market(made_market().candles, NO_FUNDING)
    made = walk_through(made_market().points.take(slice(0, 96 * 27)))
    simulation = run_backtest("macd-sign", made, market, plan).simulation
    curve = equity_curve("BTCUSDT", "macd-sign", simulation)
    assert (curve.time_ms[0], curve.value[0]) == (int(simulation.time_ms[0]), 1.0)
    for stamp, value in zip(curve.time_ms[1:], curve.value[1:], strict=True):
        day = np.flatnonzero(simulation.time_ms // DAY_MS == stamp // DAY_MS)
        assert simulation.time_ms[day[-1]] == stamp
        assert simulation.equity[day[-1]] == value
    assert len(curve.time_ms) == 1 + len(set(simulation.time_ms // DAY_MS))
    assert np.unique(curve.value).size > 3
    single = replace(simulation, time_ms=simulation.time_ms[:1], equity=simulation.equity[:1])
    assert equity_curve("X", "a", single).time_ms == [int(simulation.time_ms[0])]


def test_a_histogram_holds_every_query_whose_neighbours_are_known() -> None:
    made = early_walk()
    known = made.mean_similarity[np.isfinite(made.mean_similarity)]
    found = similarity_histogram(made)
    assert sum(found.counts) == len(known) < len(made.queries)
    assert len(found.edges) == len(found.counts) + 1
    assert (found.edges[0], found.edges[-1]) == pytest.approx((known.min(), known.max()))


def test_a_walk_without_neighbours_has_gaps_and_an_empty_histogram() -> None:
    nothing = walk_through(made_market().points.take(slice(0, 96)), step_ms=HOUR_MS, first_day=0)
    assert drift_curves(nothing, {}, "4h")[0].value == [None]
    assert sum(similarity_histogram(nothing).counts) == 0
