"""States without open interest or funding in an evaluation: neighbours as the server finds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llm_trader.app.evaluation import search_of
from llm_trader.embedding.state import StateSpace
from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.neighbour_search import find_neighbours, reweight_features
from llm_trader.evaluation.plan import Search
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.embedding.encoders import HashedWords
from tests.evaluation.forecast.test_served_forecast import NotingRetriever
from tests.index.builders import SYMBOL, at
from tests.index.test_partial_points import lacking_as, similarity_by_definition
from tests.retrieval.builders import COLLECTION, SPACE, outcomes_at, state_of, states_at

TEXTS = TextSpace(HashedWords(), "compact")
HELD = msgspec.structs.replace(
    COLLECTION, text_space_id=TEXTS.space_id, text_dimension=TEXTS.dimension
)
SLOTS = 1200
ASKED = np.arange(500, SLOTS, 61)


def mixed(choice: list[int]) -> PointTable:
    kinds = np.random.default_rng(1).choice(np.array(choice, np.uint8), SLOTS)
    states = lacking_as(states_at(at(range(SLOTS))), kinds)
    vectors = {STATE: SPACE.embed(states)[0], TEXT: TEXTS.embed(states)}
    values = np.concatenate([states.scalars, outcomes_at(SLOTS)])
    return PointTable.checked(SYMBOL, states.as_of_ms, values, vectors, 1)


# Any two of the three meet in a quick test.
@pytest.mark.parametrize(
    ("choice", "vector", "filters"),
    [
        pytest.param(choice, vector, filters, marks=() if is_quick else pytest.mark.soak)
        for choice, vector, filters, is_quick in (
            ([0, 1, 2, 3], "state", False, True),
            ([0, 1, 2, 3], "hybrid", True, True),
            ([3], "state", True, True),
            ([3], "hybrid", False, True),
            ([0, 1, 2, 3], "state", True, False),
            ([0, 1, 2, 3], "hybrid", False, False),
            ([3], "state", False, False),
            ([3], "hybrid", True, False),
        )
    ],
)
async def test_neighbours_of_partial_states_are_those_of_the_server(
    tmp_path: Path, choice: list[int], vector: QueryVectors, filters: bool
) -> None:
    points = mixed(choice)
    spec = SearchSpec(
        vector=vector, lookback_days=40, include_regime_filters=filters, min_similarity=0
    )
    walked = find_neighbours(points, points.take(ASKED), search_of(spec))
    texts = QueryTexts(TEXTS)
    with EmbeddedIndex.create_or_open(tmp_path / "index", HELD) as index:
        await index.upsert(points)
        retriever = NotingRetriever(index, SPACE, texts)
        for place, row in enumerate(ASKED.tolist()):
            as_of_ms = int(points.timestamp_ms[row])
            await retriever.query(state_of(points, row, as_of_ms), as_of_ms, spec)
            of_walk = walked.rows[place]
            by_time = np.argsort(of_walk)[np.count_nonzero(of_walk < 0) :]
            noted = retriever.noted
            stamps = noted.points.timestamp_ms[noted.rows]
            assert np.array_equal(points.timestamp_ms[of_walk[by_time]], stamps)
            similarity = walked.similarity[place][by_time]
            np.testing.assert_allclose(similarity, noted.similarity, atol=2e-6)
    await texts.aclose()


def test_similarities_of_partial_states_are_those_of_the_definition() -> None:
    points = mixed([0, 1, 2, 3])
    search = Search(include_regime_filters=False, neighbours=30, lookback_days=40)
    found = find_neighbours(points, points.take(ASKED), search)
    for place, row in enumerate(ASKED.tolist()):
        state = state_of(points, row, int(points.timestamp_ms[row]))
        similarity, _ = similarity_by_definition(state, points)
        expected = similarity[found.rows[place]].tolist()
        assert found.similarity[place].tolist() == pytest.approx(expected, abs=2e-6)


def test_other_weights_of_features_are_other_weights_of_partial_states_as_well() -> None:
    points, weights = mixed([0, 1, 2, 3]), {"oi_delta_pct": 5.0, "rsi_14": 0.0}
    search = Search(
        include_regime_filters=False, neighbours=30, lookback_days=40, feature_weights=weights
    )
    reweighted = reweight_features(points, SPACE, weights)
    found = find_neighbours(reweighted, reweighted.take(ASKED), search)
    features = tuple(
        feature.__class__(**{**msgspec.structs.asdict(feature), "weight": weight})
        for feature in SPACE.features
        if (weight := feature.weight * weights.get(feature.name, 1.0))
    )
    space = StateSpace(M5, features)
    z = space.standardise(_states(points))
    for place, row in enumerate(ASKED.tolist()):
        for nearest in found.rows[place].tolist()[:5]:
            both = np.isfinite(z[:, row]) & np.isfinite(z[:, nearest])
            angles = np.pi / 2 * (np.tanh(z[both, row]) - np.tanh(z[both, nearest]))
            expected = space.weights[both] @ np.cos(angles) / space.weights[both].sum()
            rank = found.rows[place].tolist().index(nearest)
            assert found.similarity[place][rank] == pytest.approx(expected, abs=3e-6)


def _states(points: PointTable) -> SnapshotTable:
    table = states_at(points.timestamp_ms)
    return replace(table, scalars=points.values[: len(table.scalars)])


def test_with_a_weight_on_open_interest_alone_states_without_it_have_no_neighbours() -> None:
    points = mixed([0, 1])
    weights = {feature.name: 0.0 for feature in SPACE.features} | {"oi_delta_pct": 1.0}
    search = Search(
        include_regime_filters=False, neighbours=30, lookback_days=40, feature_weights=weights
    )
    reweighted = reweight_features(points, SPACE, weights)
    assert np.isfinite(reweighted.vectors[STATE]).all()
    found = find_neighbours(reweighted, reweighted.take(ASKED), search)
    lacks = points.lacking() != 0
    assert not found.complete[lacks[ASKED]].any()
    assert found.complete[~lacks[ASKED]].all()
    assert not lacks[found.rows[found.complete]].any()


def test_a_data_set_says_how_many_of_its_states_are_partial() -> None:
    points = mixed([0, 1, 2, 3])
    dataset = Dataset({SYMBOL: points}, M5, None, 0, 1)
    partial = int((points.lacking() != 0).sum())
    assert 0 < partial < SLOTS
    assert dataset.partial_states() == {SYMBOL: partial}
