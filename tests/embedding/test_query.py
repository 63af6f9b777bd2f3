"""A query that lacks fields searches the same vectors, exactly, and says what it lacks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Floats, Vectors
from llm_trader.embedding.features import FEATURES
from llm_trader.embedding.state import MIN_PRESENT_SHARE, QueryVector, StateSpace
from llm_trader.errors import EmbeddingError
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M3, M5, M15, Timeframe
from tests.embedding.states import (
    FIXED,
    WIRE_FIELDS,
    angles,
    bybit_states,
    fields_at,
    of_fields,
    rows_of_simulation,
    similarity,
    simulated_states,
    z_of,
)

TIMEFRAMES = pytest.mark.parametrize("timeframe", [M3, M5], ids=str)
TOTAL = sum(feature.weight for feature in FEATURES)

# The hour of day is known from the request's time.
FEATURES_OF_THE_WIRE = {
    *("rsi_7", "rsi_14", "macd_of_price", "above_ema_20", "ema_ratio", "above_ema_20_4h"),
    *("above_ema_50_4h", "oi_delta_pct", "funding_rate", "hour_sine", "hour_cosine"),
}


@cache
def simulated_points() -> Vectors:
    return StateSpace(M5).embed(simulated_states())[0]


def query_for(table: SnapshotTable, row: int, names: tuple[str, ...]) -> QueryVector:
    fields = fields_at(table, row)
    sent = SnapshotTable.of_fields(
        table.symbol,
        table.intraday,
        int(table.as_of_ms[row]),
        {name: fields[name] for name in names},
    )
    return StateSpace(table.intraday).embed_query(sent)


def plainly(table: SnapshotTable, row: int, present: set[str]) -> Floats:
    """Similarity of every state to one of them, over some features only."""
    states = [fields_at(table, other) for other in range(len(table))]
    total, weight = np.zeros(len(table)), 0.0
    for feature in FEATURES:
        if feature.name in present:
            z = [z_of(feature, fields, table.intraday) for fields in states]
            theta = np.pi / 2 * np.tanh(np.array(z, dtype=float))
            total += feature.weight * np.cos(theta - theta[row])
            weight += feature.weight
    return total / weight


def check_ranking(table: SnapshotTable, row: int, query: QueryVector, present: set[str]) -> None:
    points, _ = StateSpace(table.intraday).embed(table)
    found = points.astype(float) @ query.vector.astype(float) / query.cosine_per_similarity
    exact = plainly(table, row, present)

    assert found.argmax() == row
    assert found[row] == pytest.approx(1, abs=1e-6)
    assert found == pytest.approx(exact, abs=1e-6)
    in_order = exact[np.argsort(-found, kind="stable")]
    assert (np.diff(in_order) <= 1e-6).all()


@TIMEFRAMES
@pytest.mark.parametrize("row", [0, pytest.param(777, marks=pytest.mark.soak), 3210])
def test_the_wires_ten_fields_rank_as_an_exact_search_over_their_features_does(
    timeframe: Timeframe, row: int
) -> None:
    table = simulated_states(timeframe).take(np.arange(0, 4000))

    query = query_for(table, row, WIRE_FIELDS)

    check_ranking(table, row, query, FEATURES_OF_THE_WIRE)


@pytest.mark.parametrize("symbol", ["BTCUSDT", pytest.param("SOLUSDT", marks=pytest.mark.soak)])
def test_the_wires_ten_fields_rank_real_states_exactly(real_data: Path, symbol: str) -> None:
    table = bybit_states(real_data, symbol).take(np.arange(5000, 9000))

    for row in (12, 2345):
        check_ranking(table, row, query_for(table, row, WIRE_FIELDS), FEATURES_OF_THE_WIRE)


@given(rows_of_simulation)
def test_a_query_of_ten_fields_finds_its_own_point_first(row: int) -> None:
    table, points = simulated_states(), simulated_points()

    query = query_for(table, row, WIRE_FIELDS)

    found = points @ query.vector / query.cosine_per_similarity
    assert found.argmax() == row
    assert found[row] == pytest.approx(1, abs=1e-6)


@TIMEFRAMES
def test_a_query_of_ten_fields_says_exactly_what_it_lacks(timeframe: Timeframe) -> None:
    query = query_for(simulated_states(timeframe), 5, WIRE_FIELDS)

    assert len(WIRE_FIELDS) == 10
    assert query.features_missing == tuple(
        feature.name for feature in FEATURES if feature.name not in FEATURES_OF_THE_WIRE
    )
    assert query.present_share == pytest.approx(10 / 33)
    assert query.present_share >= 0.25
    assert query.cosine_per_similarity == pytest.approx((10 / 33) ** 0.5)
    assert np.linalg.norm(query.vector.astype(float)) == pytest.approx(1, abs=1e-6)


@given(rows_of_simulation, rows_of_simulation, st.sets(st.sampled_from(SCALARS)))
def test_whatever_a_query_lacks_its_similarity_is_exact_and_its_list_complete(
    row: int, other: int, missing: set[str]
) -> None:
    table = simulated_states()
    fields = fields_at(table, row)
    incomplete = table.take(np.array([row]))
    for name in missing:
        incomplete.column(name)[:] = np.nan
    theirs = angles(fields_at(table, other))
    ours = angles({name: value for name, value in fields.items() if name not in missing})
    lacking = tuple(f.name for f, angle in zip(FEATURES, ours, strict=True) if angle is None)
    share = 1 - sum(f.weight for f in FEATURES if f.name in lacking) / TOTAL
    space = StateSpace(M5)

    if share < 0.25:
        with pytest.raises(EmbeddingError) as refused:
            space.embed_query(incomplete)
        assert refused.value.details["features_missing"] == list(lacking)
        return
    query = space.embed_query(incomplete)
    point = space.embed(table.take(np.array([other])))[0][0]

    assert query.features_missing == lacking
    assert query.present_share == pytest.approx(share)
    found = float(point.astype(float) @ query.vector) / query.cosine_per_similarity
    assert found == pytest.approx(similarity(ours, theirs), abs=2e-6)


@given(st.sets(st.sampled_from(FEATURES)))
def test_an_unknown_feature_is_a_block_of_zeros(missing: set) -> None:
    unknown = {name for f in missing for name in (f.plus, f.minus, f.over)} & set(SCALARS)
    fields = {name: np.nan if name in unknown else value for name, value in FIXED.items()}
    table = SnapshotTable.unknown("BTCUSDT", M5, np.array([0]))
    for name, value in fields.items():
        table.column(name)[0] = value

    vectors, share = StateSpace(M5).embed(table)

    absent = [i for i, angle in enumerate(angles(fields)) if angle is None]
    blocks = vectors[0].reshape(-1, 2)
    if len(absent) < len(FEATURES):
        zero = np.flatnonzero((blocks == 0).all(axis=1)).tolist()
        assert zero == absent
    assert share[0] == pytest.approx(1 - sum(FEATURES[i].weight for i in absent) / TOTAL)


def test_a_query_that_knows_less_than_a_quarter_is_refused_with_what_it_lacks() -> None:
    little = {"price": 60_000.0, "rsi_7": 61.0, "rsi_14": 55.0}

    with pytest.raises(
        EmbeddingError, match="9% of the feature weight is known, 25% is needed"
    ) as e:
        StateSpace(M5).embed_query(of_fields(little))

    known = {"rsi_7", "rsi_14", "hour_sine", "hour_cosine"}
    assert set(e.value.details["features_missing"]) == {f.name for f in FEATURES} - known


def test_a_quarter_is_enough_and_a_little_less_is_not() -> None:
    """Of 33: the hour, and as many plain fields as it takes."""
    plain = [f.name for f in FEATURES if f.name == f.plus and f.name in SCALARS and f.over == "1"]
    fields = {name: FIXED[name] for name in plain[:8]}
    assert len(fields) == 8

    enough = StateSpace(M5).embed_query(of_fields(fields))
    fields.popitem()
    with pytest.raises(EmbeddingError):
        StateSpace(M5).embed_query(of_fields(fields))

    assert MIN_PRESENT_SHARE == 0.25
    assert enough.present_share == pytest.approx(9 / 33)


def test_states_embedded_together_are_those_of_each_or_its_own_error() -> None:
    table = simulated_states()
    space = StateSpace(table.intraday)
    other = replace(table.take(np.array([7])), intraday=M15)
    poor = SnapshotTable.of_fields(table.symbol, table.intraday, 0, {"price": 1.0})
    ones = [table.take(np.array([row])) for row in range(0, 200, 5)]
    first, second, *results = space.embed_queries([other, poor, *ones])
    assert isinstance(first, EmbeddingError)
    assert "15m snapshot cannot enter" in str(first)
    assert isinstance(second, EmbeddingError)
    assert "too few known fields" in str(second)
    for result, one in zip(results, ones, strict=True):
        assert isinstance(result, QueryVector)
        assert result.vector.tolist() == space.embed_query(one).vector.tolist()
