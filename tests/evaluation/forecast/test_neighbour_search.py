"""Neighbours of many queries at once: what each of them may see, and what it follows from.

That they are those of the server is in `test_served_forecast`.
"""

from __future__ import annotations

import numpy as np
import pytest

from llm_trader.embedding.text import TextSpace
from llm_trader.evaluation.forecast.neighbour_search import Neighbours, find_neighbours
from llm_trader.evaluation.plan import Search
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.embedding.encoders import HashedWords
from tests.index.builders import SLOT_MS, SYMBOL, at
from tests.retrieval.builders import SPACE, outcomes_at, states_at

TEXTS = TextSpace(HashedWords(), "compact")
SLOTS = 1600


@pytest.fixture(scope="module")
def points() -> PointTable:
    states = states_at(at(range(SLOTS)))
    values = np.concatenate([states.scalars, outcomes_at(SLOTS)])
    vectors = {STATE: SPACE.embed(states)[0], TEXT: TEXTS.embed(states)}
    return PointTable.checked(SYMBOL, states.as_of_ms, values, vectors, 1)


def found(points: PointTable, search: Search, **more: int) -> Neighbours:
    return find_neighbours(points, points, search, **more)


@pytest.mark.parametrize("vector", ["state", "text", "hybrid", "random"])
@pytest.mark.parametrize("embargo_hours", [0, 30])
def test_no_neighbour_was_resolved_later_than_the_embargo_before_its_query(
    points: PointTable, vector: str, embargo_hours: int
) -> None:
    search = Search(
        include_regime_filters=False,
        vector=vector,  # type: ignore[arg-type]
        embargo_hours=embargo_hours,
        neighbours=10,
    )
    neighbours = found(points, search)
    rows = neighbours.rows
    known = rows >= 0
    latest = np.where(known, points.timestamp_ms[rows] + DAY_MS, 0).max(axis=1)
    assert (latest <= points.timestamp_ms - embargo_hours * HOUR_MS).all()
    assert neighbours.complete[-1]
    assert not neighbours.complete[0]
    assert (neighbours.last - neighbours.first)[-1] == SLOTS - 1 - 96 - embargo_hours * 4 + 1


def test_cutting_off_what_comes_later_changes_no_neighbour(points: PointTable) -> None:
    search = Search(include_regime_filters=False, neighbours=10)
    whole = found(points, search)
    cut = find_neighbours(points.take(slice(0, 900)), points.take(slice(0, 900)), search)
    assert np.array_equal(whole.rows[:900], cut.rows)


def test_random_neighbours_depend_on_the_seed_and_the_time_only(points: PointTable) -> None:
    search = Search(include_regime_filters=False, vector="random", neighbours=10)
    one, again, other = (found(points, search, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.rows, again.rows)
    assert not np.array_equal(one.rows, other.rows)
    later = points.take(slice(700, 800))
    part = find_neighbours(points, later, search, seed=1)
    assert np.array_equal(part.rows, one.rows[700:800])


def test_every_query_is_told_of(points: PointTable) -> None:
    told: list[int] = []
    find_neighbours(points, points, Search(include_regime_filters=False), progress=told.append)
    assert sum(told) == SLOTS


@pytest.mark.parametrize("gap_hours", [0.0, 1.0, 6.0])
def test_neighbours_are_the_gap_apart(points: PointTable, gap_hours: float) -> None:
    search = Search(include_regime_filters=False, neighbours=20, gap_hours=gap_hours)
    neighbours = found(points, search)
    times_ms = np.sort(points.timestamp_ms[neighbours.rows[neighbours.complete]], axis=1)
    assert len(times_ms) > 500
    assert np.diff(times_ms, axis=1).min() == max(gap_hours * HOUR_MS, SLOT_MS)
