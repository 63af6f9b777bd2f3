"""Probabilities are scored as plain counting would score them."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.probabilities import measure_barriers, measure_rises
from llm_trader.evaluation.forecast.skills import ScoredForecasts, WalkForward, score_forecasts
from llm_trader.evaluation.plan import ForecastRule, StudyPlan
from llm_trader.evaluation.results import Probability
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.snapshot.outcome import NO_BARRIER, STOP_FIRST, TARGET_FIRST, TURNS
from tests.evaluation.small_market import made_score, made_walk, small_walk
from tests.index.builders import points_at

CHANCE = {"reps": 100, "seed": 1}
RESAMPLING = StudyPlan(**CHANCE)
POINTS, NEIGHBOURS, WIDTH = 60, 4, 25
RULE = ForecastRule(weight_of_neighbours=0.3)
CODES = {"stop first": STOP_FIRST, "target first": TARGET_FIRST}


def paths(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Paths whose every turn goes further than the one before."""
    lows, highs = (
        np.cumsum(rng.exponential(0.6, (turns, n)), axis=0) for turns in (TURNS, TURNS + 1)
    )
    return {f"path_low_{turn}": low for turn, low in enumerate(lows, 1)} | {
        f"path_high_{turn}": high for turn, high in enumerate(highs, 1)
    }


def chance_walk(seed: int) -> WalkForward:
    """Neighbours drawn from each query's window, and none where that is too small."""
    rng = np.random.default_rng(seed)
    points = points_at(
        range(POINTS),
        seed % 1000,
        first_barrier=rng.choice([NO_BARRIER, STOP_FIRST, TARGET_FIRST], POINTS),
        realized_volatility_24h=rng.uniform(1, 3, POINTS),
        expected_volatility_1h=rng.uniform(1, 3, POINTS),
        expected_volatility_24h=rng.uniform(1, 3, POINTS),
        **paths(rng, POINTS),
    )
    own = np.arange(0, POINTS, 3)
    rows = np.full((len(own), NEIGHBOURS), -1)
    for i, row in enumerate(own):
        seen = rng.permutation(np.arange(max(row - WIDTH, 0), row))[:NEIGHBOURS]
        rows[i, : len(seen)] = seen
    return small_walk(points, points.take(own), rows, WIDTH)


def scored_of(walk: WalkForward, rule: ForecastRule = RULE) -> ScoredForecasts:
    (scored,) = score_forecasts(walk, {"1h": rule})
    return scored


def unknown_in(table: PointTable, name: str, rows: object) -> PointTable:
    values = table.values.copy()
    values[COLUMN_ROW[name], rows] = nan
    return replace(table, values=values)


def plainly(
    walk: WalkForward, happened: np.ndarray, asked: np.ndarray
) -> tuple[list[float], list[float]]:
    """Brier scores of the mixture and of the base rate, query by query."""
    made, usual = [], []
    for i, rows in enumerate(walk.neighbours.rows.tolist()):
        window = happened[walk.neighbours.first[i] : walk.neighbours.last[i]].tolist()
        if -1 in rows or not window:
            continue
        base = sum(window) / len(window)
        near = sum(bool(happened[row]) for row in rows) / len(rows)
        p = RULE.weight_of_neighbours * near + (1 - RULE.weight_of_neighbours) * base
        made.append((p - float(asked[i])) ** 2)
        usual.append((base - float(asked[i])) ** 2)
    return made, usual


def agrees(found: Probability, made: list[float], usual: list[float]) -> None:
    assert found.brier == pytest.approx(np.mean(made))
    assert found.base_brier == pytest.approx(np.mean(usual))
    assert found.skill.value == pytest.approx(1 - np.mean(made) / np.mean(usual))
    assert sum(one.count for one in found.bins) == len(made)


@given(seed=st.integers(0, 2**32))
def test_rises_are_scored_as_by_counting_query_by_query(seed: int) -> None:
    walk = chance_walk(seed)
    found = measure_rises(scored_of(walk), RESAMPLING)
    up = walk.points.column("outcome_1h") > 0
    agrees(found, *plainly(walk, up, walk.queries.column("outcome_1h") > 0))
    assert found.event == "up over 1h"


def first_of_path(points: PointTable, row: int, stop_pct: float, target_pct: float) -> str:
    """Which of two barriers the stored path of a point touched first."""
    lows, highs = (
        [float(points.column(f"path_{side}_{turn}")[row]) for turn in range(1, TURNS + extra)]
        for side, extra in (("low", 1), ("high", 2))
    )
    risen = highs[-1] >= target_pct
    if lows[-1] < stop_pct:
        return "target first" if risen else "neither"
    turn = next(turn for turn, low in enumerate(lows) if low >= stop_pct)
    return "target first" if highs[turn] >= target_pct else "stop first"


@given(seed=st.integers(0, 2**32))
def test_barriers_are_scored_in_expected_moves_as_by_counting_query_by_query(seed: int) -> None:
    walk = chance_walk(seed)
    expected_pct = walk.points.column("expected_volatility_24h")
    for found in measure_barriers(walk, RESAMPLING):
        made, usual = [], []
        for i, rows in enumerate(walk.neighbours.rows.tolist()):
            window = range(walk.neighbours.first[i], walk.neighbours.last[i])
            if -1 in rows or not window:
                continue
            now_pct = walk.queries.column("expected_volatility_24h")[i]
            moved = [
                first_of_path(walk.points, row, *(x / now_pct * expected_pct[row] for x in (2, 3)))
                for row in window
            ]
            happened = walk.queries.column("first_barrier")[i] == CODES[found.event]
            made.append((moved.count(found.event) / len(window) - happened) ** 2)
            barriers = walk.points.column("first_barrier")[window.start : window.stop]
            usual.append(((barriers == CODES[found.event]).mean() - happened) ** 2)
        agrees(found, made, usual)


def test_intervals_are_over_the_stretches_of_each_horizon() -> None:
    walk = made_walk()
    found = measure_rises(made_score("4h"), RESAMPLING)
    p, observed = (getattr(made_score("4h").forecasts, name) for name in ("p_up", "observed"))
    up = walk.points.column("outcome_4h") > 0
    windows = zip(walk.neighbours.first, walk.neighbours.last, strict=True)
    base = np.array([up[first:last].mean() for first, last in windows])
    losses = [(of - (observed > 0)) ** 2 for of in (p, base)]
    expected = significance.skill_interval(*losses, 24, **CHANCE)
    assert found.skill.value == pytest.approx(expected.value)
    assert (found.skill.low, found.skill.high) == pytest.approx((expected.low, expected.high))
    assert found.skill.low > 0
    blocks = []

    def noted(loss: np.ndarray, base: np.ndarray, block: int, *more: int) -> significance.Interval:
        blocks.append(block)
        return honest(loss, base, block, *more)

    honest = significance.skill_interval
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "skill_interval", noted)
        measure_barriers(walk, RESAMPLING)
    assert blocks == [96, 96]


@given(seed=st.integers(0, 2**32))
def test_only_one_barrier_can_be_touched_first(seed: int) -> None:
    walk = chance_walk(seed)
    events = measure_barriers(walk, RESAMPLING)
    # With one bin a query at most, bins show each query's own probability.
    for row in np.flatnonzero(walk.neighbours.complete):
        part = [row]
        alone = small_walk(walk.points, walk.queries.take(part), walk.neighbours.rows[part], WIDTH)
        one = measure_barriers(alone, RESAMPLING)
        assert 0 <= sum(of.bins[0].forecast for of in one) <= 1 + 1e-12
        assert sum(of.bins[0].observed for of in one) <= 1
    assert len(events) == 2


def test_the_base_rate_of_an_empty_window_is_unknown_and_such_a_query_is_left_out() -> None:
    points = points_at(range(40), first_barrier=NO_BARRIER)
    rows = np.tile(np.arange(4), (3, 1))
    walk = small_walk(points, points.take([0, 20, 30]), rows, 10)
    for found in (
        measure_rises(scored_of(walk), RESAMPLING),
        *measure_barriers(walk, RESAMPLING),
    ):
        assert sum(one.count for one in found.bins) == 2


def test_where_nothing_is_known_there_is_no_score_and_no_bin() -> None:
    points = points_at(range(40))
    walk = small_walk(points, points.take([0]), np.full((1, 4), -1), 10)
    for found in (
        measure_rises(scored_of(walk), RESAMPLING),
        *measure_barriers(walk, RESAMPLING),
    ):
        assert found.brier is None
        assert found.base_brier is None
        assert found.skill.value is None
        assert found.bins == []


@pytest.mark.parametrize("name", ["outcome_1h", "first_barrier"])
def test_what_did_not_become_known_is_not_taken_for_what_did_not_happen(name: str) -> None:
    walk = chance_walk(2)
    known = walk.neighbours.complete.nonzero()[0][::2]
    unknown = np.setdiff1d(np.arange(len(walk.queries)), known)
    part = walk._replace(queries=unknown_in(walk.queries, name, unknown))
    found = (
        [measure_rises(scored_of(part), RESAMPLING)]
        if name == "outcome_1h"
        else measure_barriers(part, RESAMPLING)
    )
    for one in found:
        assert sum(of.count for of in one.bins) == len(known)


def test_bins_hold_each_known_query_once_and_mean_what_was_forecast() -> None:
    scored = made_score()
    found = measure_rises(scored, RESAMPLING)
    p = scored.forecasts.p_up
    counts = np.array([one.count for one in found.bins])
    assert counts.sum() == np.isfinite(p).sum()
    assert counts @ [one.forecast for one in found.bins] == pytest.approx(np.nansum(p))
    assert all(0 <= one.observed <= 1 for one in found.bins)
