"""A vector space has an id: equal for equal, another for anything that changes a vector."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.embedding import state
from llm_trader.embedding.features import FEATURES, Feature
from llm_trader.embedding.state import StateSpace
from llm_trader.snapshot.model import EXPECTED_VOLATILITY, SCALARS
from llm_trader.timeframe import M1, M3, M5, M15, Timeframe
from tests.embedding.states import FIXED, angles, of_fields

# A change of any of these means a new vector space: stored collections of the old one are refused
# from then on, and must be ingested again. Never adjust them in passing.
PINNED_IDS = {M3: "state-7b28e386d07c", M5: "state-8272a084ac3c"}
PINNED_BLOCKS = {
    M3: {
        "rsi_7": (0.1301940, 0.1155532),
        "macd_of_price": (0.1605523, 0.0672755),
        "above_ema_20_in_atr": (0.1091327, 0.1356211),
        "price_slope": (0.1621095, 0.0634314),
        "rsi_7_slope": (0.1731269, 0.0181693),
        "ema_ratio": (0.0987688, 0.1433449),
        "hour_sine": (0.0809288, 0.0927472),
    },
    M5: {
        "rsi_7": (0.1301940, 0.1155532),
        "macd_of_price": (0.1657781, 0.0531099),
        "above_ema_20_in_atr": (0.1301940, 0.1155532),
        "price_slope": (0.1547665, 0.0796891),
        "rsi_7_slope": (0.1714546, 0.0301057),
        "ema_ratio": (0.0987688, 0.1433449),
        "return_4h": (0.0792679, 0.1549827),
        "volatility_1h_ratio": (0.1730412, 0.0189680),
        "volume_4h_ratio": (0.1544771, 0.0802488),
        "funding_rate": (0.1120951, 0.1331831),
        "hour_sine": (0.0809288, 0.0927472),
        "hour_cosine": (0.0626080, -0.1059800),
    },
}

numbers = range(len(FEATURES))
changes = st.one_of(
    st.tuples(st.just("name"), st.just("another")),
    st.tuples(st.sampled_from(["plus", "minus", "over"]), st.sampled_from(SCALARS)),
    st.tuples(st.just("shape"), st.sampled_from(["linear", "log", "sine", "cosine"])),
    st.tuples(
        st.sampled_from(["centre", "scale", "weight", "length_exponent"]), st.floats(0.001, 100)
    ),
)


def one_changed(number: int, field: str, value: object) -> tuple[Feature, ...]:
    changed = msgspec.structs.replace(FEATURES[number], **{field: value})
    return (*FEATURES[:number], changed, *FEATURES[number + 1 :])


@given(st.sampled_from(numbers), changes)
def test_a_change_of_any_name_formula_constant_or_weight_makes_another_space(
    number: int, change: tuple[str, object]
) -> None:
    features = one_changed(number, *change)

    same = StateSpace(M5, features).space_id == StateSpace(M5).space_id

    assert same == (features == FEATURES)


def test_a_change_in_the_ninth_digit_of_any_constant_makes_another_space() -> None:
    constants = ("centre", "scale", "weight", "length_exponent")
    nudged = [
        one_changed(number, name, getattr(FEATURES[number], name) + 1e-9)
        for number in numbers
        for name in constants
    ]

    ids = {StateSpace(M5, features).space_id for features in (FEATURES, *nudged)}

    assert len(ids) == 1 + len(FEATURES) * len(constants)


@given(st.permutations(numbers))
def test_the_order_of_features_counts(order: list[int]) -> None:
    space = StateSpace(M5, tuple(FEATURES[i] for i in order))

    assert (space.space_id == StateSpace(M5).space_id) == (order == list(numbers))


@given(st.permutations(numbers))
def test_features_in_another_order_give_the_same_blocks_in_that_order(order: list[int]) -> None:
    usual = StateSpace(M5).embed(of_fields(FIXED))[0].reshape(-1, 2)

    other = StateSpace(M5, tuple(FEATURES[i] for i in order)).embed(of_fields(FIXED))[0]

    assert other.reshape(-1, 2) == pytest.approx(usual[order], abs=1e-7)


def test_a_feature_more_or_less_makes_another_space() -> None:
    fewer = [StateSpace(M5, FEATURES[:count]) for count in range(1, len(FEATURES) + 1)]

    assert len({space.space_id for space in fewer}) == len(FEATURES)
    for space in fewer:
        vectors, share = space.embed(of_fields(FIXED))
        assert vectors.shape == (1, 2 * len(space.features))
        assert share[0] == 1


@pytest.mark.parametrize(
    ("constant", "value"),
    [("VOLATILITY_FLOOR", 2e-3), ("FLOORED", state.FLOORED[:2]), ("_ALGORITHM", "another")],
)
def test_a_change_of_a_constant_of_the_formulas_makes_another_space(
    monkeypatch: pytest.MonkeyPatch, constant: str, value: object
) -> None:
    before = StateSpace(M5).space_id

    monkeypatch.setattr(state, constant, value)

    assert StateSpace(M5).space_id != before


def test_each_length_of_candle_has_its_own_space_and_version() -> None:
    spaces = [StateSpace(timeframe) for timeframe in (M1, M3, M5, M15)]

    assert len({space.space_id for space in spaces}) == 4
    assert [space.feature_version for space in spaces] == [
        *("v2_1m4h", "v2_3m4h", "v2_5m4h", "v2_15m4h")
    ]


def test_equal_spaces_have_equal_ids_in_any_process() -> None:
    program = (
        "from llm_trader.embedding.state import StateSpace; from llm_trader.timeframe import M5;"
        "print(StateSpace(M5).space_id)"
    )

    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()

    assert told == StateSpace(M5).space_id == StateSpace(M5, (*FEATURES,)).space_id


@pytest.mark.parametrize("timeframe", PINNED_IDS, ids=str)
def test_the_ids_of_the_spaces_are_those_of_stored_collections(timeframe: Timeframe) -> None:
    assert StateSpace(timeframe).space_id == PINNED_IDS[timeframe]


@pytest.mark.parametrize("timeframe", PINNED_BLOCKS, ids=str)
def test_the_vector_of_a_fixed_state_is_that_of_stored_collections(timeframe: Timeframe) -> None:
    """Blocks of √w·(cos θ, sin θ) / √33, worked out with a calculator from the formulas."""
    vectors, _ = StateSpace(timeframe).embed(of_fields(FIXED, timeframe))

    blocks = dict(zip([f.name for f in FEATURES], vectors[0].reshape(-1, 2), strict=True))
    for name, block in PINNED_BLOCKS[timeframe].items():
        assert blocks[name] == pytest.approx(block, abs=2e-7), name


def test_the_fixed_state_has_every_field_and_no_feature_at_its_centre() -> None:
    """Otherwise a changed scale would not show in the pinned vector."""
    assert FIXED.keys() == set(SCALARS) - set(EXPECTED_VOLATILITY.values())
    assert min(abs(angle) for angle in angles(FIXED)) > 0.01


def test_the_state_vector_has_thirty_to_forty_features_and_twice_as_many_dimensions() -> None:
    space = StateSpace(M5)

    assert 30 <= len(FEATURES) <= 40
    assert space.dimension == 2 * len(FEATURES)
    assert space.weights.sum() == 33
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    assert all(
        {feature.plus, feature.minus, feature.over} <= {"0", "1", *SCALARS} for feature in FEATURES
    )
    assert np.isfinite(space.standardise(of_fields(FIXED))).all()
