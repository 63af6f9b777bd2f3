"""Neighbours of many queries at once are those the server finds one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.evaluation.forecast.neighbour_search import Neighbours, find_neighbours
from llm_trader.evaluation.plan import Search
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.embedding.encoders import HashedWords
from tests.index.builders import SYMBOL, at
from tests.retrieval.builders import COLLECTION, SPACE, outcomes_at, state_of, states_at

TEXTS = TextSpace(HashedWords(), "compact")
HELD = msgspec.structs.replace(
    COLLECTION, text_space_id=TEXTS.space_id, text_dimension=TEXTS.dimension
)
SLOTS = 1600


@pytest.fixture(scope="module")
def points() -> PointTable:
    states = states_at(at(range(SLOTS)))
    values = np.concatenate([states.scalars, outcomes_at(SLOTS)])
    vectors = {STATE: SPACE.embed(states)[0], TEXT: TEXTS.embed(states)}
    return PointTable.checked(SYMBOL, states.as_of_ms, values, vectors, 1)


@pytest.fixture(scope="module")
def index(points: PointTable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedIndex]:
    path: Path = tmp_path_factory.mktemp("walk") / "index"
    with EmbeddedIndex.create_or_open(path, HELD) as opened:
        asyncio.run(opened.upsert(points))
        yield opened


def found(points: PointTable, search: Search, **more: int) -> Neighbours:
    return find_neighbours(points, points, search, **more)


@pytest.mark.parametrize("vector", ["state", "text", "hybrid"])
@pytest.mark.parametrize("filters", [False, True])
async def test_they_are_what_the_retriever_sums_up_as_evidence(
    points: PointTable, index: EmbeddedIndex, vector: str, filters: bool
) -> None:
    search = Search(
        vector=vector,  # type: ignore[arg-type]
        lookback_days=12,
        evidence_k=20,
        min_gap_hours=3,
        include_regime_filters=filters,
    )
    config = SearchSpec(
        vector=vector,  # type: ignore[arg-type]
        lookback_days=12,
        evidence_k=20,
        min_gap_hours=3,
        min_similarity=0,
        include_regime_filters=filters,
    )
    texts = QueryTexts(TEXTS)
    retriever = Retriever(index, SPACE, texts)
    neighbours = found(points, search)
    for row in range(150, SLOTS, 97):
        as_of_ms = int(points.timestamp_ms[row])
        answer = await retriever.query(state_of(points, row, as_of_ms), as_of_ms, config)
        told, rows = answer.evidence, neighbours.rows[row][neighbours.rows[row] >= 0]
        similarity = neighbours.similarity[row][: len(rows)]
        assert told.episodes == len(rows)
        assert told.similarity_mean == pytest.approx(similarity.mean(), abs=1e-6)
        for name, horizon in told.horizons.items():
            outcomes = points.column(f"outcome_{name}")[rows]
            assert horizon.mean.value == pytest.approx(outcomes.mean(), abs=1e-12)
            assert horizon.p90.value == pytest.approx(np.quantile(outcomes, 0.9), abs=1e-12)
    await texts.aclose()


@pytest.mark.parametrize("vector", ["state", "text", "hybrid", "random"])
@pytest.mark.parametrize("embargo_hours", [0, 30])
def test_no_neighbour_was_resolved_later_than_the_embargo_before_its_query(
    points: PointTable, vector: str, embargo_hours: int
) -> None:
    search = Search(
        include_regime_filters=False, vector=vector, embargo_hours=embargo_hours, evidence_k=10
    )  # type: ignore[arg-type]
    neighbours = found(points, search)
    rows = neighbours.rows
    known = rows >= 0
    latest = np.where(known, points.timestamp_ms[rows] + DAY_MS, 0).max(axis=1)
    assert (latest <= points.timestamp_ms - embargo_hours * HOUR_MS).all()
    assert neighbours.complete[-1]
    assert not neighbours.complete[0]
    assert (neighbours.last - neighbours.first)[-1] == SLOTS - 1 - 96 - embargo_hours * 4 + 1


def test_cutting_off_what_comes_later_changes_no_neighbour(points: PointTable) -> None:
    search = Search(include_regime_filters=False, evidence_k=10)
    whole = found(points, search)
    cut = find_neighbours(points.take(slice(0, 900)), points.take(slice(0, 900)), search)
    assert np.array_equal(whole.rows[:900], cut.rows)


def test_random_neighbours_depend_on_the_seed_and_the_time_only(points: PointTable) -> None:
    search = Search(include_regime_filters=False, vector="random", evidence_k=10)
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
