from __future__ import annotations

import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import InvalidInputError
from llm_trader.index.points import COLUMNS, STATE, PointTable, point_id
from llm_trader.snapshot.model import OPTIONAL_FIELDS, words_of_lacking
from llm_trader.snapshot.outcome import EXTREMES
from llm_trader.timeframe import DAY_MS, MAX_TIME_MS, MIN_TIME_MS
from tests.index.builders import SYMBOL, at, points_at, unit_vectors

GOLDEN = "2ad23c7b-02a7-5b29-a2d6-39d13c7ea0d6"

symbols = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=2, max_size=20)
stamps = st.integers(MIN_TIME_MS, MAX_TIME_MS)
versions = st.sampled_from(["v1_3m4h", "v1_5m4h", "v2_3m4h"])
identities = st.tuples(symbols, stamps, versions)


def test_the_id_of_a_point_is_the_same_in_every_release() -> None:
    assert point_id("BTCUSDT", 1_704_067_200_000, "v1_3m4h") == GOLDEN


@given(identities)
def test_an_id_is_the_name_based_uuid_of_what_identifies_the_point(
    identity: tuple[str, int, str],
) -> None:
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, "urn:llm-trader-rag:point")
    expected = uuid.uuid5(namespace, ":".join(map(str, identity)))
    assert point_id(*identity) == str(expected)
    assert uuid.UUID(point_id(*identity)).version == 5


@given(st.lists(identities, min_size=2, max_size=20, unique=True))
def test_points_of_another_symbol_time_or_version_have_other_ids(
    several: list[tuple[str, int, str]],
) -> None:
    assert len({point_id(*identity) for identity in several}) == len(several)


@pytest.mark.parametrize(
    "other",
    [
        ("ETHUSDT", 1_704_067_200_000, "v1_3m4h"),
        ("BTCUSDT", 1_704_067_200_001, "v1_3m4h"),
        ("BTCUSDT", 1_704_067_200_000, "v1_5m4h"),
    ],
    ids=["symbol", "time", "feature version"],
)
def test_each_part_of_the_identity_changes_the_id(other: tuple[str, int, str]) -> None:
    assert point_id(*other) != GOLDEN


@pytest.mark.parametrize("column", range(len(COLUMNS)), ids=COLUMNS)
@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_a_point_that_lacks_a_field_it_may_not_lack_is_refused(column: int, missing: float) -> None:
    plain = points_at(range(4))
    values = plain.values.copy()
    values[column, 2] = missing
    if COLUMNS[column] in {*OPTIONAL_FIELDS, *EXTREMES} and np.isnan(missing):
        PointTable.checked(SYMBOL, plain.timestamp_ms, values, plain.vectors, 1)
        return
    with pytest.raises(InvalidInputError, match="incomplete"):
        PointTable.checked(SYMBOL, plain.timestamp_ms, values, plain.vectors, 1)


def test_a_point_without_open_interest_or_funding_says_what_it_lacks() -> None:
    unknown = np.nan
    points = points_at(
        range(4),
        oi_delta_pct=[0.0, unknown, 1.0, unknown],
        funding_rate=[0.0, 1e-4, unknown, unknown],
    )
    assert points.lacking().tolist() == [0, 1, 2, 3]
    assert [words_of_lacking(kind) for kind in range(4)] == [
        *("", "open interest", "funding", "open interest and funding"),
    ]


def test_a_vector_that_is_not_finite_is_refused() -> None:
    plain = points_at(range(4))
    vectors = plain.vectors[STATE].copy()
    vectors[1, 0] = np.nan
    with pytest.raises(InvalidInputError, match="incomplete"):
        PointTable.checked(SYMBOL, plain.timestamp_ms, plain.values, {STATE: vectors}, 1)


@pytest.mark.parametrize("size", [0.0, 0.99, 1.01, 2.0])
def test_a_vector_whose_norm_is_not_one_is_refused(size: float) -> None:
    plain = points_at(range(4))
    vectors = plain.vectors[STATE].copy()
    vectors[3] *= size
    with pytest.raises(InvalidInputError, match="norm 1"):
        PointTable.checked(SYMBOL, plain.timestamp_ms, plain.values, {STATE: vectors}, 1)


@pytest.mark.parametrize("slots", [[1, 1], [2, 1], [1, 3, 2]])
def test_points_that_do_not_increase_in_time_are_refused(slots: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="increase"):
        points_at(slots)


def test_arrays_of_different_lengths_are_refused() -> None:
    plain = points_at(range(4))
    for values, vectors in (
        (plain.values[:, :3], plain.vectors[STATE]),
        (plain.values, plain.vectors[STATE][:3]),
        (plain.values[:-1], plain.vectors[STATE]),
    ):
        with pytest.raises(InvalidInputError, match="length"):
            PointTable.checked(SYMBOL, plain.timestamp_ms, values, {STATE: vectors}, 1)


def test_a_point_is_resolved_a_day_after_its_time() -> None:
    assert points_at([0, 7]).resolved_at_ms.tolist() == (at([0, 7]) + DAY_MS).tolist()


def test_a_column_is_the_field_of_its_name() -> None:
    numbers = np.arange(3.0)
    points = points_at(range(3), funding_rate=numbers, vectors=unit_vectors(3, 0))
    assert points.column("funding_rate").tolist() == numbers.tolist()
    for row, name in enumerate(COLUMNS):
        assert np.array_equal(points.column(name), points.values[row])
