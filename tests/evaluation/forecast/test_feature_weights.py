"""Reweighted points are what embedding with those weights would have made."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.embedding.features import FEATURES
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.forecast.neighbour_search import reweight_features
from llm_trader.evaluation.plan import Search
from llm_trader.index.points import STATE, PointTable
from llm_trader.timeframe import M5
from tests.index.builders import SYMBOL, at
from tests.retrieval.builders import SPACE, outcomes_at, past, states_at

NAMES = [feature.name for feature in FEATURES]
POINTS = past(range(200))
MULTIPLES = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 8.0]), max_size=len(NAMES)
)


def space_of(weights: dict[str, float]) -> StateSpace:
    changed = (
        msgspec.structs.replace(f, weight=f.weight * weights.get(f.name, 1.0)) for f in FEATURES
    )
    return StateSpace(M5, tuple(changed))


@given(MULTIPLES.filter(lambda weights: len(weights) < len(NAMES)))
def test_they_equal_points_embedded_with_those_weights(weights: dict[str, float]) -> None:
    expected, _ = space_of(weights).embed(states_at(at(range(200))))
    made = reweight_features(POINTS, SPACE, weights).vectors[STATE]
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-7)
    assert made.dtype == np.float32


def test_a_state_that_lacks_a_feature_is_reweighted_over_those_it_has() -> None:
    states = states_at(at(range(200)))
    states.column("funding_rate")[::2] = np.nan
    weights = {"funding_rate": 8.0, "rsi_7": 0.0, "volatility_24h": 2.0}
    values = np.concatenate([np.zeros_like(states.scalars), outcomes_at(200)])
    partial = {STATE: SPACE.embed(states)[0]}
    points = PointTable.checked(SYMBOL, states.as_of_ms, values, partial, 1)
    expected, _ = space_of(weights).embed(states)
    made = reweight_features(points, SPACE, weights).vectors[STATE]
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-7)


@given(MULTIPLES.filter(lambda weights: len(weights) < len(NAMES)))
def test_all_weights_times_the_same_change_nothing(weights: dict[str, float]) -> None:
    tripled = {name: 3.0 * weights.get(name, 1.0) for name in NAMES}
    one, other = (reweight_features(POINTS, SPACE, of).vectors[STATE] for of in (weights, tripled))
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-7)


def test_without_weights_they_are_the_points_themselves_and_others_are_left_alone() -> None:
    before = POINTS.vectors[STATE].copy()
    assert reweight_features(POINTS, SPACE, {}) is POINTS
    made = reweight_features(POINTS, SPACE, {"rsi_7": 4.0})
    assert np.array_equal(POINTS.vectors[STATE], before)
    assert np.array_equal(made.values, POINTS.values)
    assert np.array_equal(made.timestamp_ms, POINTS.timestamp_ms)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"rsi_8": 1.0}, r"no feature rsi_8; known: rsi_7, rsi_14, .*hour_cosine$"),
        ({"rsi_7": -1.0}, "weight -1.0 of the feature rsi_7 must be a number of 0 or more"),
        ({"rsi_7": np.nan}, "weight nan of the feature rsi_7"),
        ({"rsi_7": np.inf}, "weight inf of the feature rsi_7"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        reweight_features(POINTS, SPACE, weights)
    with pytest.raises(InvalidInputError, match=said):
        Search(feature_weights=weights)


def test_a_state_of_no_weight_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no feature has a weight above 0"):
        reweight_features(POINTS, SPACE, dict.fromkeys(NAMES, 0.0))


def test_a_search_with_weights_is_read_back_as_it_was_written() -> None:
    search = Search(feature_weights={"rsi_7": 0.5})
    assert msgspec.json.decode(msgspec.json.encode(search), type=Search) == search
    assert Search().feature_weights == {}
