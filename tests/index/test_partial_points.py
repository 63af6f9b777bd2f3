"""Points without open interest or funding: compared over what both states know, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Floats, Kinds
from llm_trader.embedding.state import MIN_PRESENT_SHARE, QueryVector
from llm_trader.index.asof import Window
from llm_trader.index.points import STATE, PointTable
from llm_trader.index.protocol import FieldRange, SearchQuery
from llm_trader.snapshot.model import OPTIONAL, SCALARS
from llm_trader.snapshot.table import ROW, SnapshotTable
from llm_trader.timeframe import DAY_MS, MAX_TIME_MS
from tests.index.builders import ALWAYS, SYMBOL, at, collection, found, points_at, stored
from tests.index.conftest import FreshIndex
from tests.retrieval.builders import COLLECTION, SPACE, outcomes_at, points_of, states_at

# Scores are float32; two that lie further apart than this are in one order everywhere.
APART = 2e-6


def lacking_as(states: SnapshotTable, kinds: Kinds) -> SnapshotTable:
    """The states without the open interest and the funding that each lacks."""
    scalars = states.scalars.copy()
    for bit, fields in enumerate(OPTIONAL.values()):
        for name in fields:
            scalars[ROW[name], kinds >> bit & 1 == 1] = np.nan
    return SnapshotTable(SYMBOL, states.intraday, states.as_of_ms, scalars, states.series)


def mixed_points(kinds: Kinds, seed: int = 0) -> PointTable:
    times = at(range(len(kinds)))
    states = lacking_as(states_at(times, seed), kinds)
    return points_of(states, outcomes_at(len(kinds), seed))


def query_state(kind: int, seed: int, *unknown: str) -> SnapshotTable:
    state = lacking_as(states_at(at([5000]), seed), np.array([kind], np.uint8))
    for name in unknown:
        state.column(name)[:] = np.nan
    return state


def similarity_by_definition(state: SnapshotTable, points: PointTable) -> tuple[Floats, Floats]:
    """Σ w cos Δθ / Σ w over the features that both know, and the share of the weight they are."""
    stored_states = SnapshotTable(
        *(SYMBOL, SPACE.intraday, points.timestamp_ms, points.values[: len(SCALARS)]),
        np.full((len(points), 0, 0), np.nan),
    )
    z, own = SPACE.standardise(stored_states), SPACE.standardise(state)
    similarity, share = np.full(len(points), np.nan), np.zeros(len(points))
    for i in range(len(points)):
        both = np.isfinite(z[:, i]) & np.isfinite(own[:, 0])
        weights = SPACE.weights[both]
        angles = np.pi / 2 * (np.tanh(z[both, i]) - np.tanh(own[both, 0]))
        share[i] = weights.sum() / SPACE.weights.sum()
        similarity[i] = (weights @ np.cos(angles)) / weights.sum()
    return similarity, share


def search(probe: QueryVector, limit: int, *ranges: FieldRange, window: Window) -> SearchQuery:
    assert probe.overlap is not None
    return SearchQuery(SYMBOL, window, probe.vector, limit, ranges, scales=probe.overlap.scale)


class Case(NamedTuple):
    points: PointTable
    state: SnapshotTable
    limit: int
    window: Window
    ranges: tuple[FieldRange, ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n, seed = draw(st.integers(1, 120)), draw(st.integers(0, 2**32))
    drawn_kinds = draw(st.sets(st.integers(0, 3), min_size=1).map(sorted))
    kinds = np.random.default_rng(seed).choice(np.array(drawn_kinds, np.uint8), n)
    state = query_state(draw(st.integers(0, 3)), seed + 1)
    first = draw(st.integers(0, n - 1))
    window = Window(int(at([first])[0]), int(at([draw(st.integers(first, n))])[0]) + DAY_MS)
    ranges = draw(
        st.sampled_from(
            (
                (),
                (FieldRange("oi_delta_pct", low=0.0),),
                (FieldRange("funding_rate", high=0.0, exclusive=True),),
                (FieldRange("funding_rate"),),
            )
        )
    )
    return Case(mixed_points(kinds, seed), state, draw(st.integers(1, n + 3)), window, ranges)


@given(case=cases())
async def test_the_ranking_is_by_the_mean_over_what_both_states_know(
    fresh_index: FreshIndex, case: Case
) -> None:
    probe = SPACE.embed_query(case.state)
    async with fresh_index(COLLECTION) as index:
        await index.upsert(case.points)
        query = search(probe, case.limit, *case.ranges, window=case.window)
        hits = await index.search(query)
        unlimited = await index.search(search(probe, 1000, *case.ranges, window=case.window))
    similarity, _ = similarity_by_definition(case.state, case.points)
    inside = case.points.timestamp_ms >= case.window.earliest_timestamp_ms
    inside &= case.points.resolved_at_ms <= case.window.resolved_by_ms
    eligible = inside.copy()
    for bounds in case.ranges:
        column = case.points.column(bounds.field)  # NaN compares with nothing
        eligible &= (column > bounds.low) & (column < bounds.high)
    assert hits.eligible == unlimited.eligible == len(unlimited.rows) == eligible.sum()
    rows = np.searchsorted(case.points.timestamp_ms, found(hits).timestamp_ms)
    assert eligible[rows].all()
    told = hits.cosine / probe.cosine_per_similarity
    np.testing.assert_allclose(told, similarity[rows], atol=APART)
    best = np.sort(similarity[eligible])[::-1][: case.limit]
    np.testing.assert_allclose(told, best, atol=APART)
    if inside.any():
        greatest = similarity[inside].max()
        assert hits.best_cosine / probe.cosine_per_similarity == pytest.approx(greatest, abs=APART)
    assert found(unlimited).timestamp_ms[: len(rows)].tolist() == found(hits).timestamp_ms.tolist()


async def test_equal_states_that_lack_the_same_have_one_score_and_the_oldest_comes_first(
    fresh_index: FreshIndex,
) -> None:
    kinds = np.tile(np.arange(4, dtype=np.uint8), 30)
    one = states_at(at([0]))
    repeated = SnapshotTable(
        *(SYMBOL, one.intraday, at(range(len(kinds))), one.scalars.repeat(len(kinds), axis=1)),
        np.full((len(one.series), len(kinds), 10), np.nan),
    )
    points = points_of(lacking_as(repeated, kinds), outcomes_at(len(kinds)))
    probe = SPACE.embed_query(query_state(0, 3))
    async with fresh_index(COLLECTION) as index:
        await index.upsert(points)
        for limit in (1, 7, 31, 120):
            hits = await index.search(search(probe, limit, window=ALWAYS))
            lacked = found(hits).lacking()
            for kind in range(4):
                of_kind = lacked == kind
                assert len(set(hits.cosine[of_kind].tolist())) <= 1
                times = found(hits).timestamp_ms[of_kind]
                expected = points.timestamp_ms[kinds == kind][: len(times)]
                assert times.tolist() == expected.tolist()


async def test_unknown_fields_are_stored_as_unknown_and_counted(fresh_index: FreshIndex) -> None:
    kinds = np.array([0, 1, 2, 3, 3, 3, 0], np.uint8)
    points = mixed_points(kinds)
    async with fresh_index(COLLECTION) as index:
        await index.upsert(points)
        await index.upsert(points_of(states_at(at([9])), outcomes_at(1)))
        held = await stored(index)
        fetched = await index.fetch(SYMBOL, points.timestamp_ms[[3]], (STATE,))
        (extent,) = (await index.info()).symbols
        await index.upsert(points_of(states_at(at([3])), outcomes_at(1)))
        (replaced,) = (await index.info()).symbols
    assert held.take(slice(0, 7)).values.tobytes() == points.values.tobytes()
    assert held.lacking().tolist() == [*kinds.tolist(), 0]
    assert np.isnan(fetched.column("funding_rate")).all()
    blocks = held.vectors[STATE].reshape(len(held), -1, 2).any(axis=2)
    assert (len(SPACE.features) - blocks.sum(axis=1)).tolist() == [0, 1, 1, 2, 2, 2, 0, 0]
    assert (extent.points, extent.without_open_interest, extent.without_funding) == (8, 4, 4)
    assert (replaced.without_open_interest, replaced.without_funding) == (3, 3)


async def test_a_range_without_end_leaves_out_points_that_do_not_know_its_field(
    fresh_index: FreshIndex,
) -> None:
    points = mixed_points(np.array([0, 1, 2, 3] * 5, np.uint8))
    probe = SPACE.embed_query(query_state(0, 3))
    async with fresh_index(COLLECTION) as index:
        await index.upsert(points)
        wanted = FieldRange("oi_delta_pct")
        hits = await index.search(search(probe, 50, wanted, window=ALWAYS))
    assert hits.eligible == len(hits.rows) == 10
    assert set(found(hits).lacking().tolist()) == {0, 2}


# Nine features of 33, two of which points may lack: 27 % of the weight, and 24 % without one.
JUST_ENOUGH = (
    *("price", "hour_of_day", "oi_delta_pct", "funding_rate", "rsi_7", "rsi_14", "rsi_14_4h"),
    *("funding_interval_hours", "ema_ratio", "price_slope", "ema_20_slope"),
)


async def test_a_point_with_too_little_in_common_is_no_candidate(fresh_index: FreshIndex) -> None:
    state = query_state(0, 8, *(name for name in SCALARS if name not in JUST_ENOUGH))
    kinds = np.array([0, 1, 2, 3] * 10, np.uint8)
    points = mixed_points(kinds)
    _, share = similarity_by_definition(state, points)
    comparable = share >= MIN_PRESENT_SHARE
    assert 0 < comparable.sum() < len(points)
    probe = SPACE.embed_query(state)
    async with fresh_index(COLLECTION) as index:
        await index.upsert(points)
        hits = await index.search(search(probe, 100, window=ALWAYS))
        lacking_states = states_at(at(range(100, 130)), 5)
        lacking_both = lacking_as(lacking_states, np.full(30, 3, np.uint8))
        await index.upsert(points_of(lacking_both, outcomes_at(30, 5)))
        later = Window(int(at([100])[0]), MAX_TIME_MS)
        none = await index.search(search(probe, 100, window=later))
    assert hits.eligible == len(hits.rows) == comparable.sum()
    assert comparable[np.searchsorted(points.timestamp_ms, found(hits).timestamp_ms)].all()
    assert (none.eligible, len(none.rows), len(none.points)) == (0, 0, 30)
    assert np.isnan(none.best_cosine)


async def test_a_search_without_scales_compares_vectors_as_they_are(
    fresh_index: FreshIndex,
) -> None:
    points = points_at(range(40), oi_delta_pct=np.where(np.arange(40) % 2, 1.0, np.nan))
    query = points.vectors[STATE][7]
    async with fresh_index(collection()) as index:
        await index.upsert(points)
        hits = await index.search(SearchQuery(SYMBOL, ALWAYS, query, 5))
    best = np.argsort(-(points.vectors[STATE] @ query))[:5]
    assert found(hits).timestamp_ms.tolist() == points.timestamp_ms[best].tolist()


async def test_points_that_lack_something_are_seen_as_soon_as_they_are_written(
    fresh_index: FreshIndex,
) -> None:
    """What a reader knew before a search says which kinds there are; new ones come with it."""
    first = mixed_points(np.zeros(50, np.uint8))
    probe = SPACE.embed_query(query_state(0, 3))
    async with fresh_index(COLLECTION) as index:
        await index.upsert(first)
        await index.search(search(probe, 5, window=ALWAYS))
        later = lacking_as(states_at(at(range(60, 90)), 4), np.full(30, 3, np.uint8))
        await index.upsert(points_of(later, outcomes_at(30, 4)))
        hits = await index.search(search(probe, 80, window=ALWAYS))
        held = await stored(index)
    similarity, _ = similarity_by_definition(query_state(0, 3), held)
    rows = np.searchsorted(held.timestamp_ms, found(hits).timestamp_ms)
    assert len(rows) == 80
    np.testing.assert_allclose(
        hits.cosine / probe.cosine_per_similarity, similarity[rows], atol=APART
    )
