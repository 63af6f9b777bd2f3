"""Cosine is the weighted mean of cos Δθ over the features, whatever is embedded beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.embedding.features import FEATURES, Feature
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import EmbeddingError
from llm_trader.snapshot.builder import FOUR_HOUR_REACH_MS, build_snapshots
from llm_trader.snapshot.document import sentences
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M3, M5, Timeframe
from tests.embedding.states import (
    FIXED,
    angles,
    bybit_states,
    fields_at,
    of_fields,
    real_states,
    rows_of_simulation,
    similarity,
    simulated_states,
)
from tests.snapshot.histories import BINANCE_2025_3M, BYBIT_2025, between, grid, real

TIMEFRAMES = pytest.mark.parametrize("timeframe", [M3, M5], ids=str)
weights = st.lists(
    st.floats(0.01, 10).map(lambda w: round(w, 2)), min_size=len(FEATURES), max_size=len(FEATURES)
)


def weighted(by: list[float]) -> tuple[Feature, ...]:
    return tuple(
        msgspec.structs.replace(feature, weight=w) for feature, w in zip(FEATURES, by, strict=True)
    )


@TIMEFRAMES
def test_vectors_have_norm_one_and_know_all_features(timeframe: Timeframe) -> None:
    space = StateSpace(timeframe)

    vectors, share = space.embed(simulated_states(timeframe))

    assert vectors.shape == (len(simulated_states(timeframe)), 2 * len(FEATURES))
    assert vectors.dtype == np.float32
    assert np.abs((vectors.astype(float) ** 2).sum(axis=1) - 1).max() < 1e-6
    assert (share == 1).all()


@TIMEFRAMES
@given(one=rows_of_simulation, other=rows_of_simulation)
def test_the_cosine_of_two_states_is_the_weighted_mean_over_their_features(
    timeframe: Timeframe, one: int, other: int
) -> None:
    table = simulated_states(timeframe)

    vectors, _ = StateSpace(timeframe).embed(table.take(np.array([one, other])))

    theta = [angles(fields_at(table, row), timeframe) for row in (one, other)]
    cosine = float(vectors[0].astype(float) @ vectors[1])
    assert cosine == pytest.approx(similarity(*theta), abs=1e-6)


@given(weights, rows_of_simulation, rows_of_simulation)
def test_any_weights_make_unit_vectors_whose_cosine_is_their_weighted_mean(
    by: list[float], one: int, other: int
) -> None:
    features = weighted(by)
    table = simulated_states()

    vectors, share = StateSpace(M5, features).embed(table.take(np.array([one, other])))

    theta = [angles(fields_at(table, row), M5, features) for row in (one, other)]
    cosine = float(vectors[0].astype(float) @ vectors[1])
    assert cosine == pytest.approx(similarity(*theta, features), abs=1e-6)
    assert share.tolist() == [1.0, 1.0]


@TIMEFRAMES
def test_standardised_features_are_those_of_the_table_of_features(timeframe: Timeframe) -> None:
    table = simulated_states(timeframe)

    z = StateSpace(timeframe).standardise(table)

    assert z.shape == (len(FEATURES), len(table))
    for row in range(0, len(table), 500):
        theta = angles(fields_at(table, row), timeframe)
        assert np.pi / 2 * np.tanh(z[:, row]) == pytest.approx(theta, abs=1e-12)


def test_a_feature_saturates_at_a_right_angle() -> None:
    space = StateSpace(M5)
    rsi_7 = [feature.name for feature in FEATURES].index("rsi_7")

    low, high = (space.embed(of_fields(FIXED | {"rsi_7": rsi}))[0][0] for rsi in (-1e9, 1e9))

    block = slice(2 * rsi_7, 2 * rsi_7 + 2)
    size = np.sqrt(1 / sum(feature.weight for feature in FEATURES))
    assert low[block] == pytest.approx([0, -size], abs=1e-7)
    assert high[block] == pytest.approx([0, size], abs=1e-7)


@pytest.mark.parametrize("field", ["realized_volatility_1h", "volume_ratio", "current_volume_4h"])
def test_an_hour_without_a_trade_or_a_move_is_a_state_like_others(field: str) -> None:
    space = StateSpace(M5)

    still, nearly, usual = (
        space.embed(of_fields(FIXED | {field: value})) for value in (0.0, 1e-9, FIXED[field])
    )

    assert still[1][0] == 1
    assert still[0].tobytes() == nearly[0].tobytes() != usual[0].tobytes()


@pytest.mark.parametrize("timeframe", [M3, M5], ids=str)
@pytest.mark.parametrize("custom", [False, True], ids=["own weights", "odd weights"])
def test_a_vector_is_the_same_to_the_bit_alone_and_among_thousands(
    timeframe: Timeframe, custom: bool
) -> None:
    draw = np.random.default_rng(8)
    features = weighted(draw.uniform(0.1, 3, len(FEATURES)).round(2).tolist())
    space = StateSpace(timeframe, features if custom else FEATURES)
    table = simulated_states(timeframe)
    holed = SnapshotTable(
        table.symbol,
        timeframe,
        table.as_of_ms,
        np.where(draw.random(table.scalars.shape) < 0.02, np.nan, table.scalars),
        table.series,
    )
    batch, share = space.embed(holed)
    assert 0 < (share < 1).sum() < len(table)

    for row in draw.integers(0, len(table), 300).tolist():
        alone, its_share = space.embed(holed.take(np.array([row])))
        assert alone[0].tobytes() == batch[row].tobytes()
        assert its_share[0] == share[row]


@given(st.sets(rows_of_simulation, min_size=1, max_size=40))
def test_a_vector_does_not_depend_on_which_others_are_embedded_with_it(rows: set[int]) -> None:
    space, some = StateSpace(M5), np.array(sorted(rows))
    table = simulated_states()

    together = space.embed(table.take(some))[0]

    alone = [space.embed(table.take(some[i : i + 1]))[0][0] for i in range(len(some))]
    assert np.stack(alone).tobytes() == together.tobytes()


@pytest.mark.parametrize(
    ("source", "symbol"),
    [
        pytest.param(BYBIT_2025, "BTCUSDT", id="bybit-2025-btc", marks=pytest.mark.soak),
        pytest.param(BINANCE_2025_3M, "ETHUSDT", id="binance-2025-3m-eth"),
    ],
)
def test_a_query_built_live_is_to_the_bit_the_point_that_was_ingested(
    real_data: Path, source: tuple[str, str, Timeframe], symbol: str
) -> None:
    history, space = real(real_data, source, symbol), StateSpace(source[2])
    table = build_snapshots(history, grid(history, 21))
    table = table.take(table.complete())
    points, _ = space.embed(table)

    for row in np.random.default_rng(9).integers(0, len(table), 80).tolist():
        as_of_ms = int(table.as_of_ms[row])
        live = build_snapshots(
            between(history, as_of_ms - DAY_MS - FOUR_HOUR_REACH_MS, as_of_ms + 1),
            np.array([as_of_ms]),
        )
        query = space.embed_query(live)
        assert query.vector.tobytes() == points[row].tobytes()
        assert query.present_share == query.cosine_per_similarity == 1
        assert query.features_missing == ()


@TIMEFRAMES
def test_a_state_of_other_candles_is_refused(timeframe: Timeframe) -> None:
    other = M5 if timeframe == M3 else M3
    space, table = StateSpace(timeframe), of_fields(FIXED, other)

    for embed in (space.embed, space.embed_query, space.standardise):
        with pytest.raises(EmbeddingError, match=f"a {other} snapshot .* {timeframe} vector space"):
            embed(table)


def test_a_state_in_which_nothing_is_known_has_no_share_and_warns_of_nothing() -> None:
    unknown = SnapshotTable.unknown("BTCUSDT", M5, np.array([0, 1]))

    vectors, share = StateSpace(M5).embed(unknown)

    assert share.tolist() == [0, 0]
    assert not (np.nan_to_num(vectors) != 0).any()


extreme = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.just(0.0))


@given(st.fixed_dictionaries(dict.fromkeys(SCALARS, extreme)))
def test_any_numbers_a_client_may_send_give_a_unit_vector_or_are_refused(
    fields: dict[str, float],
) -> None:
    try:
        query = StateSpace(M5).embed_query(of_fields(fields))
    except EmbeddingError:
        return
    assert np.linalg.norm(query.vector.astype(float)) == pytest.approx(1, abs=1e-6)
    assert query.present_share >= 0.25


def test_real_states_have_norm_one_too(real_data: Path) -> None:
    for table in (
        bybit_states(real_data, "SOLUSDT"),
        real_states(real_data, BINANCE_2025_3M, "ETHUSDT"),
    ):
        vectors, share = StateSpace(table.intraday).embed(table)
        assert np.abs((vectors.astype(float) ** 2).sum(axis=1) - 1).max() < 1e-6
        assert (share == 1).all()


@pytest.mark.parametrize("interval_hours", [1.0, 4.0])
def test_the_same_funding_settled_more_often_is_the_same_state(interval_hours: float) -> None:
    space = StateSpace(M5)
    often = FIXED | {
        "funding_rate": FIXED["funding_rate"] * interval_hours / 8,
        "funding_interval_hours": interval_hours,
    }
    one, other = (space.embed(of_fields(fields))[0][0] for fields in (FIXED, often))
    assert np.array_equal(one, other)
    assert sentences(of_fields(often), "detailed") == sentences(of_fields(FIXED), "detailed")


def test_a_funding_rate_without_an_interval_counts_as_one_of_8_hours() -> None:
    space = StateSpace(M5)
    without = {name: value for name, value in FIXED.items() if name != "funding_interval_hours"}
    one, other = (space.embed(of_fields(fields))[0] for fields in (FIXED, without))
    assert np.array_equal(one, other)
