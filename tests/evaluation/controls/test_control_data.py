"""Negative controls break the link between a state and what follows it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.evaluation.controls.control_data import (
    random_signs,
    random_vectors,
    shifted_outcomes,
    shuffled_outcomes,
    wrong_symbol,
)
from llm_trader.evaluation.forecast.neighbour_search import find_neighbours
from llm_trader.index.points import COLUMN_ROW, COLUMNS, STATE, TEXT, PointTable
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import LABELS
from llm_trader.timeframe import HORIZONS, HOUR_MS
from tests.evaluation.small_market import LOOKBACK_DAYS, PER_DAY, SEARCH, asked, made_market
from tests.index.builders import copied, points_at, same_points, unit_vectors

Control = Callable[[PointTable, int], PointTable]

# An outcome and every volatility that it is ever divided by.
VOLATILITIES = ("realized_volatility_24h", *EXPECTED_VOLATILITY.values())
MOVED = [COLUMN_ROW[name] for name in (*LABELS, *VOLATILITIES)]
STAYING = [row for row in range(len(COLUMNS)) if row not in MOVED]


def of_another_symbol(points: PointTable, seed: int) -> PointTable:
    return wrong_symbol(points, made_market(1).points, seed)


OUTCOMES_MOVE: list[Control] = [shuffled_outcomes, shifted_outcomes]
VECTORS_CHANGE: list[Control] = [random_vectors, of_another_symbol]
NEGATIVE = OUTCOMES_MOVE + VECTORS_CHANGE


def numbered(n: int = 60 * PER_DAY, every: int = 1) -> PointTable:
    """Points that carry their own row as an outcome, and their hour as another."""
    slots = np.arange(0, n * every, every)
    return points_at(slots, outcome_15m=np.arange(n), outcome_1h=slots % PER_DAY / 4)


def origins(control: PointTable) -> np.ndarray:
    return control.column("outcome_15m").astype(int)


def link(points: PointTable) -> float:
    """The correlation of what followed a query's neighbours with what followed the query."""
    queries = asked(points, 4 * HOUR_MS, LOOKBACK_DAYS)
    found = find_neighbours(points, queries, SEARCH)
    theirs = points.column("outcome_4h")[found.rows].mean(axis=1)
    whole = found.complete
    return float(np.corrcoef(theirs[whole], queries.column("outcome_4h")[whole])[0, 1])


@pytest.mark.parametrize("control", NEGATIVE)
def test_the_points_given_stay_as_they_are(control: Control) -> None:
    points = made_market().points
    before = copied(points)
    control(points, 1)
    assert same_points(points, before)


@pytest.mark.parametrize("control", NEGATIVE)
def test_a_control_follows_from_its_seed(control: Control) -> None:
    points = made_market().points
    one, again, other = (control(points, seed) for seed in (1, 1, 2))
    assert same_points(one, again)
    assert not same_points(one, other)


@pytest.mark.parametrize("control", NEGATIVE)
def test_times_symbol_and_unit_vectors_are_kept(control: Control) -> None:
    points = made_market().points
    made = control(points, 1)
    assert made.symbol == points.symbol
    assert np.array_equal(made.timestamp_ms, points.timestamp_ms)
    assert np.array_equal(made.run, points.run)
    assert made.vectors[STATE].dtype == np.float32
    assert made.vectors[STATE].shape == points.vectors[STATE].shape
    np.testing.assert_allclose(np.linalg.norm(made.vectors[STATE], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("control", OUTCOMES_MOVE)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 400))
def test_everything_that_followed_moves_together_with_its_volatilities_and_nothing_else_does(
    control: Control, seed: int, n: int
) -> None:
    points = numbered(n)
    made = control(points, seed)
    rows = origins(made)
    assert np.array_equal(np.sort(rows), np.arange(n))
    assert np.array_equal(made.values[MOVED], points.values[MOVED][:, rows])
    assert np.array_equal(made.values[STAYING], points.values[STAYING])
    assert made.vectors is points.vectors


@pytest.mark.parametrize("control", VECTORS_CHANGE)
def test_other_vectors_leave_every_field_and_outcome_in_its_place(control: Control) -> None:
    points = made_market().points
    assert np.array_equal(control(points, 1).values, points.values)


@pytest.mark.parametrize("control", NEGATIVE)
def test_what_follows_neighbours_says_nothing_of_what_follows_a_query(control: Control) -> None:
    points = made_market().points
    assert link(points) > 0.5
    # 250 queries, whose neighbours' outcomes are partly the same: by chance some 0.1 each.
    assert abs(np.mean([link(control(points, seed)) for seed in range(5)])) < 0.12


@pytest.mark.parametrize("every", [1, 4])
def test_shifted_stretches_last_18_to_30_hours_on_any_grid(every: int) -> None:
    n = 60 * PER_DAY // every
    rows = origins(shifted_outcomes(numbered(n, every), 3))
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    hours = np.diff(np.concatenate([[0], cuts, [n]])) * every / 4
    # The data's end cuts one stretch short; two that happen to stay together look like one.
    assert (hours < 18).sum() <= 1
    assert np.quantile(hours, 0.9) <= 30
    assert 48 <= len(hours) <= 80


def test_shifted_outcomes_keep_neither_the_hour_nor_the_order_of_days() -> None:
    points = numbered()
    hour = points.column("outcome_1h")
    turned, ranks = [], []
    for seed in range(10):
        made = shifted_outcomes(points, seed)
        apart = made.column("outcome_1h") - hour
        turned.append(abs(np.exp(2j * np.pi * apart / 24).mean()))
        ranks.append(np.corrcoef(np.arange(len(points)), origins(made))[0, 1])
    # 1 where every outcome came from its own hour, or all from one hour beside it. Sixty stretches
    # from any hour each give 0.11 in the mean.
    assert np.mean(turned) < 0.2
    # What was recent is not recent any more.
    assert abs(np.mean(ranks)) < 0.15


def test_shuffled_outcomes_come_from_any_hour() -> None:
    points = numbered()
    apart = shuffled_outcomes(points, 1).column("outcome_1h") - points.column("outcome_1h")
    assert abs(np.exp(2j * np.pi * apart / 24).mean()) < 0.05


def test_of_a_wrong_symbol_times_that_it_lacks_are_left_out() -> None:
    points, other = points_at(range(900)), points_at(range(300, 1200, 3), seed=5)
    made = wrong_symbol(points, other, 1)
    shared = np.intersect1d(points.timestamp_ms, other.timestamp_ms)
    assert np.array_equal(made.timestamp_ms, shared)
    rows = np.isin(points.timestamp_ms, shared)
    assert np.array_equal(made.values, points.values[:, rows])
    assert made.symbol == points.symbol
    theirs = other.vectors[STATE][np.isin(other.timestamp_ms, shared)]
    assert sorted(map(tuple, made.vectors[STATE].tolist())) == sorted(map(tuple, theirs.tolist()))
    assert not np.array_equal(made.vectors[STATE], theirs)


def test_a_wrong_symbol_without_a_common_time_leaves_nothing() -> None:
    assert len(wrong_symbol(points_at(range(50)), points_at(range(60, 90)), 1)) == 0


def test_text_vectors_say_nothing_either() -> None:
    def with_text(points: PointTable, seed: int) -> PointTable:
        text = unit_vectors(len(points), seed, 9)
        return replace(points, vectors={**points.vectors, TEXT: text})

    points, other = (with_text(points_at(range(400), seed), seed) for seed in (1, 2))
    for made in (random_vectors(points, 3), wrong_symbol(points, other, 3)):
        for name, vectors in points.vectors.items():
            assert made.vectors[name].shape == vectors.shape
            assert np.abs((made.vectors[name] * vectors).sum(axis=1)).mean() < 0.5
    both = wrong_symbol(points, other, 3)
    rows = [np.flatnonzero((other.vectors[STATE] == v).all(axis=1))[0] for v in both.vectors[STATE]]
    assert np.array_equal(both.vectors[TEXT], other.vectors[TEXT][rows])


def test_signs_by_chance_keep_how_far_prices_go_and_turn_whole_stretches_over() -> None:
    points = made_market().points
    turned = random_signs(points, 1)
    for name in HORIZONS:
        before, after = (of.column(f"outcome_{name}") for of in (points, turned))
        assert np.array_equal(np.abs(before), np.abs(after))
    moved = points.column("outcome_4h") != 0
    signs = (turned.column("outcome_4h") / points.column("outcome_4h"))[moved]
    changes = np.flatnonzero(np.diff(signs))
    assert 0.3 < (signs < 0).mean() < 0.7
    assert np.diff(changes).min() >= 18 * 4 - 8  # some quarter-hours did not move
    others = [row for row, name in enumerate(COLUMNS) if not name.startswith("outcome_")]
    assert np.array_equal(turned.values[others], points.values[others])
    assert link(points) > 0.5 > abs(link(turned))
