"""What every index backend does. A backend joins by its line in `conftest.BACKENDS`."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.index.asof import Window, visible_window
from llm_trader.index.points import COLUMNS, STATE, TEXT, PointTable
from llm_trader.index.protocol import Collection, FieldRange, IngestionRun, SearchQuery
from llm_trader.market.series_changes import DataMark
from llm_trader.timeframe import DAY_MS, MAX_TIME_MS
from tests.index.builders import (
    ALWAYS,
    DIMENSION,
    SYMBOL,
    at,
    collection,
    found,
    merged,
    points_at,
    same_points,
    stored,
    unit_vectors,
)
from tests.index.conftest import FreshIndex
from tests.index.qdrant_places import fresh_in_memory

OI_DELTAS = (-10.0, -5.0, 0.0, 5.0, 10.0)
FUNDING_RATES = (-0.0001, 0.0, 0.0001)

slot_sets = st.sets(st.integers(0, 250), min_size=1, max_size=40).map(sorted)
seeds = st.integers(0, 2**32)


def bounds(values: tuple[float, ...]) -> st.SearchStrategy[tuple[float, float]]:
    ends = st.sampled_from((-np.inf, *values, np.inf))
    return st.tuples(ends, ends)


@st.composite
def field_ranges(draw: st.DrawFn) -> tuple[FieldRange, ...]:
    """Up to two ranges; points often lie exactly on their bounds, and some ranges are empty."""
    fields = {"oi_delta_pct": OI_DELTAS, "funding_rate": FUNDING_RATES}
    return tuple(
        FieldRange(field, *draw(bounds(values)), exclusive=draw(st.booleans()))
        for field, values in fields.items()
        if draw(st.booleans())
    )


class Case(NamedTuple):
    points: PointTable
    query: SearchQuery


@st.composite
def cases(draw: st.DrawFn, kinds: int | None = None) -> Case:
    """Points and a search whose window's ends lie on, or a millisecond beside, points.

    With `kinds`, there are that many different vectors and many ties.
    """
    slots, seed = draw(slot_sets), draw(seeds)
    rng = np.random.default_rng(seed)
    vectors = None
    if kinds:
        vectors = unit_vectors(kinds, seed)[rng.integers(0, kinds, len(slots))]
    points = points_at(
        slots,
        seed,
        vectors=vectors,
        oi_delta_pct=rng.choice(OI_DELTAS, len(slots)),
        funding_rate=rng.choice(FUNDING_RATES, len(slots)),
    )
    beside = st.sampled_from((-1, 0, 1))
    first, last = draw(st.sampled_from(slots)), draw(st.sampled_from(slots))
    window = Window(int(at([first])[0]) + draw(beside), int(at([last])[0]) + DAY_MS + draw(beside))
    query = SearchQuery(
        SYMBOL,
        window,
        unit_vectors(1, seed + 2)[0],
        draw(st.integers(1, len(slots) + 3)),
        draw(field_ranges()),
    )
    return Case(points, query)


def admitted(case: Case) -> npt.NDArray[np.intp]:
    """Rows of the points that window and ranges admit, told one by one."""
    query, points = case.query, case.points
    rows = []
    for row, stamp in enumerate(points.timestamp_ms.tolist()):
        inside = stamp >= query.window.earliest_timestamp_ms
        inside &= stamp + 24 * 3600 * 1000 <= query.window.resolved_by_ms
        for r in query.ranges:
            value = float(points.column(r.field)[row])
            if r.exclusive:
                inside &= r.low < value < r.high
            else:
                inside &= r.low <= value <= r.high
        if inside:
            rows.append(row)
    return np.array(rows, np.intp)


def exact_cosine(case: Case) -> npt.NDArray[np.float64]:
    return case.points.vectors[STATE].astype(np.float64) @ case.query.vector.astype(np.float64)


@given(case=cases())
async def test_a_search_without_limit_finds_exactly_what_window_and_ranges_admit(
    fresh_index: FreshIndex, case: Case
) -> None:
    everything = case.query.__class__(
        SYMBOL, case.query.window, case.query.vector, 1000, case.query.ranges
    )
    async with fresh_index(collection()) as index:
        await index.upsert(case.points)
        hits = await index.search(everything)
    expected = case.points.take(admitted(case))
    in_time_order = found(hits).take(np.argsort(found(hits).timestamp_ms))
    assert in_time_order.timestamp_ms.tolist() == expected.timestamp_ms.tolist()
    assert np.array_equal(in_time_order.values, expected.values)
    assert np.array_equal(in_time_order.run, expected.run)


@given(case=cases())
async def test_a_limit_keeps_the_most_similar_and_all_eligible_are_counted(
    fresh_index: FreshIndex, case: Case
) -> None:
    async with fresh_index(collection()) as index:
        await index.upsert(case.points)
        hits = await index.search(case.query)
    rows = admitted(case)
    assert hits.eligible == len(rows)
    assert len(hits.rows) == len(hits.cosine) == min(case.query.limit, len(rows))
    best = np.sort(exact_cosine(case)[rows])[::-1][: case.query.limit]
    np.testing.assert_allclose(hits.cosine, best, atol=1e-5)


@given(case=cases())
async def test_scores_are_cosines_and_descend(fresh_index: FreshIndex, case: Case) -> None:
    async with fresh_index(collection()) as index:
        await index.upsert(case.points)
        hits = await index.search(case.query)
    rows = np.searchsorted(case.points.timestamp_ms, found(hits).timestamp_ms)
    np.testing.assert_allclose(hits.cosine, exact_cosine(case)[rows], atol=1e-5)
    assert (np.diff(hits.cosine) <= 0).all()


@given(case=cases(), seed=seeds, limits=st.lists(st.integers(1, 60), min_size=1, max_size=6))
async def test_many_searches_find_exactly_what_each_finds(
    fresh_index: FreshIndex, case: Case, seed: int, limits: list[int]
) -> None:
    if fresh_index is fresh_in_memory:
        del limits[2:]  # it looks at each point in Python, and took three minutes
    vectors, window = unit_vectors(len(limits), seed), case.query.window
    queries = [
        replace(
            case.query,
            vector=vector,
            limit=limit,
            window=Window(window.earliest_timestamp_ms + i * DAY_MS // 8, window.resolved_by_ms),
            ranges=case.query.ranges if i % 2 else (),
        )
        for i, (vector, limit) in enumerate(zip(vectors, limits, strict=True))
    ]
    async with fresh_index(collection()) as index:
        await index.upsert(case.points)
        together = await index.search_many(queries)
        for query, hits in zip(queries, together, strict=True):
            alone = await index.search(query)
            assert same_points(found(hits), found(alone))
            assert hits.eligible == alone.eligible
            # The local mode of Qdrant's client sums in another order beside other searches.
            tolerance = 1e-6 if fresh_index is fresh_in_memory else 0
            np.testing.assert_allclose(hits.cosine, alone.cosine, rtol=0, atol=tolerance)
            np.testing.assert_allclose(hits.best_cosine, alone.best_cosine, rtol=0, atol=tolerance)


@given(case=cases(kinds=3))
async def test_equally_similar_points_come_oldest_first_also_where_the_limit_cuts(
    fresh_index: FreshIndex, case: Case
) -> None:
    cosine = np.round(exact_cosine(case), 9)
    assume((np.diff(np.unique(cosine)) > 1e-3).all())
    async with fresh_index(collection()) as index:
        await index.upsert(case.points)
        hits = await index.search(case.query)
    rows = sorted(admitted(case), key=lambda row: (-cosine[row], row))[: case.query.limit]
    assert found(hits).timestamp_ms.tolist() == case.points.timestamp_ms[rows].tolist()


@given(count=st.integers(2, 60), limit=st.integers(1, 60), seed=seeds)
async def test_points_of_one_vector_have_one_score_wherever_they_lie(
    fresh_index: FreshIndex, count: int, limit: int, seed: int
) -> None:
    dimension = 68
    vector, query = unit_vectors(2, seed, dimension)
    points = points_at(range(count), vectors=np.tile(vector, (count, 1)))
    async with fresh_index(collection(dimension=dimension)) as index:
        await index.upsert(points)
        hits = await index.search(SearchQuery(SYMBOL, ALWAYS, query, limit))
    assert found(hits).timestamp_ms.tolist() == points.timestamp_ms[:limit].tolist()
    assert len(set(hits.cosine.tolist())) == 1


@pytest.mark.parametrize("kinds", [3, 400, 3000])
async def test_a_smaller_limit_finds_the_beginning_of_what_a_greater_one_finds(
    fresh_index: FreshIndex, many: int, kinds: int
) -> None:
    rng = np.random.default_rng(kinds)
    pool = unit_vectors(kinds, kinds)
    points = points_at(range(many), vectors=pool[rng.integers(0, kinds, many)])
    # Sorted by similarity, so that what is near lies together, as in a trend.
    query = unit_vectors(1, 1)[0]
    half = points.vectors[STATE][: many // 2]
    points.vectors[STATE][: many // 2] = half[np.argsort(half @ query)]
    async with fresh_index(collection()) as index:
        await index.upsert(points)
        every = found(await index.search(SearchQuery(SYMBOL, ALWAYS, query, many)))
        for limit in (1, 2, 7, 50, many // 8, many * 7 // 15, many * 8 // 15, many - 1):
            hits = await index.search(SearchQuery(SYMBOL, ALWAYS, query, limit))
            assert found(hits).timestamp_ms.tolist() == every.timestamp_ms[:limit].tolist()
            assert hits.eligible == many


@given(case=cases())
async def test_a_scan_gives_the_points_of_the_window_in_time_order(
    fresh_index: FreshIndex, case: Case
) -> None:
    async with fresh_index(collection()) as index:
        await index.upsert(case.points)
        scanned = await index.scan(SYMBOL, case.query.window, (STATE,))
    without_ranges = SearchQuery(SYMBOL, case.query.window, case.query.vector, 1)
    expected = case.points.take(admitted(Case(case.points, without_ranges)))
    assert scanned.timestamp_ms.tolist() == expected.timestamp_ms.tolist()
    assert np.array_equal(scanned.values, expected.values)
    assert np.array_equal(scanned.run, expected.run)
    np.testing.assert_allclose(scanned.vectors[STATE], expected.vectors[STATE], atol=1e-6)


@pytest.mark.parametrize(
    "window",
    [
        Window(int(at([50])[0]), MAX_TIME_MS),
        Window(0, int(at([0])[0]) + DAY_MS - 1),
        Window(int(at([7])[0]), int(at([3])[0]) + DAY_MS),
    ],
    ids=["after all", "before all", "ends before it starts"],
)
async def test_an_empty_window_is_an_answer_and_no_error(
    fresh_index: FreshIndex, window: Window
) -> None:
    async with fresh_index(collection()) as index:
        await index.upsert(points_at(range(10)))
        hits = await index.search(SearchQuery(SYMBOL, window, unit_vectors(1, 0)[0], 5))
        scanned = await index.scan(SYMBOL, window, (STATE,))
    assert (len(hits.rows), len(hits.cosine), hits.eligible) == (0, 0, 0)
    assert len(found(hits)) == 0
    assert len(scanned) == 0
    assert scanned.values.shape == (len(COLUMNS), 0)
    assert scanned.vectors[STATE].shape == (0, DIMENSION)


@pytest.mark.parametrize("crowd", ["not resolved yet", "too old", "out of range", "of another"])
async def test_points_that_may_not_be_seen_take_no_place_however_near_they_are(
    fresh_index: FreshIndex, crowd: str
) -> None:
    query = unit_vectors(1, 1)[0]
    near = query + 0.1 * unit_vectors(120, 2)
    near /= np.linalg.norm(near, axis=1)[:, None]
    slots = range(300, 420) if crowd == "not resolved yet" else range(120)
    symbol = "ETHUSDT" if crowd == "of another" else SYMBOL
    crowding = points_at(slots, 3, symbol=symbol, vectors=near, oi_delta_pct=50.0)
    inside = points_at(range(200, 230), 4, oi_delta_pct=1.0)
    first = 0 if crowd == "out of range" else 200
    window = Window(int(at([first])[0]), int(at([300])[0]) + DAY_MS - 1)
    ranges = (FieldRange("oi_delta_pct", high=10.0),) if crowd == "out of range" else ()
    async with fresh_index(collection()) as index:
        for points in (crowding, inside):
            await index.upsert(points)
        hits = await index.search(SearchQuery(SYMBOL, window, query, 7, ranges))
    best = np.argsort(-(inside.vectors[STATE] @ query))[:7]
    assert found(hits).timestamp_ms.tolist() == inside.timestamp_ms[best].tolist()
    assert hits.eligible == 30


async def test_hits_stand_among_all_points_of_the_window_whatever_the_ranges(
    fresh_index: FreshIndex,
) -> None:
    points = points_at(range(300), 7)
    window = Window(int(at([20])[0]), int(at([180])[0]) + DAY_MS)
    query = points.vectors[STATE][100]
    near = FieldRange("oi_delta_pct", float(points.column("oi_delta_pct")[100]), exclusive=True)
    async with fresh_index(collection()) as index:
        await index.upsert(points)
        hits = await index.search(SearchQuery(SYMBOL, window, query, 5, (near,)))
        nothing = FieldRange("oi_delta_pct", 1e9)
        none = await index.search(SearchQuery(SYMBOL, window, query, 5, (nothing,)))
    for each in (hits, none):
        assert each.points.timestamp_ms.tolist() == points.timestamp_ms[20:181].tolist()
        assert np.array_equal(each.points.values, points.values[:, 20:181])
        assert each.best_cosine == pytest.approx(1.0, abs=1e-6)
    assert 80 not in hits.rows
    assert hits.cosine.max() < 0.999
    assert (len(none.rows), none.eligible) == (0, 0)


async def test_a_range_without_end_admits_everything_and_one_beyond_all_nothing(
    fresh_index: FreshIndex,
) -> None:
    points = points_at(range(20))
    told = {}
    async with fresh_index(collection()) as index:
        await index.upsert(points)
        for low, high in [(-np.inf, np.inf), (np.inf, np.inf), (-np.inf, -np.inf), (1.0, -1.0)]:
            wanted = (FieldRange("oi_delta_pct", low, high),)
            query = SearchQuery(SYMBOL, ALWAYS, points.vectors[STATE][0], 50, wanted)
            hits = await index.search(query)
            told[low, high] = (len(hits.rows), hits.eligible)
    assert list(told.values()) == [(20, 20), (0, 0), (0, 0), (0, 0)]


TEXT_DIMENSION = 10


def with_text() -> Collection:
    return collection(text_space_id="text-of-tests", text_dimension=TEXT_DIMENSION)


def described(points: PointTable, seed: int) -> PointTable:
    """The same points with a text vector each."""
    text = unit_vectors(len(points), seed, TEXT_DIMENSION)
    return replace(points, vectors={**points.vectors, TEXT: text})


@pytest.mark.parametrize("name", [STATE, TEXT])
async def test_a_search_compares_with_the_vectors_of_the_name_it_gives(
    fresh_index: FreshIndex, name: str
) -> None:
    points = described(points_at(range(120), 2), 3)
    query = unit_vectors(1, 4, points.vectors[name].shape[1])[0]
    async with fresh_index(with_text()) as index:
        await index.upsert(points)
        hits = await index.search(SearchQuery(SYMBOL, ALWAYS, query, 7, name=name))
    cosine = points.vectors[name].astype(np.float64) @ query
    best = np.argsort(-cosine)[:7]
    assert found(hits).timestamp_ms.tolist() == points.timestamp_ms[best].tolist()
    np.testing.assert_allclose(hits.cosine, cosine[best], atol=1e-5)
    assert hits.best_cosine == hits.cosine[0]


async def test_a_scan_and_a_fetch_bring_the_vectors_that_they_name(
    fresh_index: FreshIndex,
) -> None:
    points = described(points_at(range(50), 5), 6)
    async with fresh_index(with_text()) as index:
        await index.upsert(points)
        scanned = await index.scan(SYMBOL, ALWAYS, (TEXT, STATE))
        fetched = await index.fetch(SYMBOL, points.timestamp_ms[[30, 4, 9]], (STATE, TEXT))
        only_text = await index.scan(SYMBOL, ALWAYS, (TEXT,))
    for name in (STATE, TEXT):
        np.testing.assert_allclose(scanned.vectors[name], points.vectors[name], atol=1e-6)
        wanted = points.vectors[name][[4, 9, 30]]
        np.testing.assert_allclose(fetched.vectors[name], wanted, atol=1e-6)
    np.testing.assert_allclose(only_text.vectors[TEXT], points.vectors[TEXT], atol=1e-6)


async def test_a_fetch_gives_the_points_that_are_there_in_time_order(
    fresh_index: FreshIndex,
) -> None:
    points = points_at(range(0, 40, 2), 8, run=3)
    async with fresh_index(collection()) as index:
        await index.upsert(points)
        await index.upsert(points_at([0, 4], symbol="ETHUSDT"))
        fetched = await index.fetch(SYMBOL, at([8, 3, 0, 1000, 8, 38]))
        nothing = await index.fetch(SYMBOL, at([1, 3]))
        with pytest.raises(SymbolNotFoundError, match="BTCUSDT, ETHUSDT"):
            await index.fetch("XRPUSDT", at([0]))
    expected = points.take([0, 4, 19])
    assert fetched.timestamp_ms.tolist() == expected.timestamp_ms.tolist()
    assert np.array_equal(fetched.values, expected.values)
    assert fetched.run.tolist() == [3, 3, 3]
    assert len(nothing) == 0


async def test_a_vector_of_a_name_that_is_not_stored_is_refused(fresh_index: FreshIndex) -> None:
    query = SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 0, TEXT_DIMENSION)[0], 5, name=TEXT)
    async with fresh_index(collection()) as index:
        await index.upsert(points_at([1, 2]))
        with pytest.raises(InvalidInputError, match="no text vectors"):
            await index.search(query)
        with pytest.raises(InvalidInputError, match="vectors"):
            await index.upsert(described(points_at([3]), 1))
    async with fresh_index(with_text()) as index:
        with pytest.raises(InvalidInputError, match="vectors"):
            await index.upsert(points_at([1, 2]))


async def test_only_points_of_the_symbol_are_found(fresh_index: FreshIndex) -> None:
    query = unit_vectors(1, 5)[0]
    own = points_at([0, 1, 2], 1)
    twins = points_at([0, 1, 2, 3], 2, symbol="ETHUSDT", vectors=np.tile(query, (4, 1)))
    async with fresh_index(collection()) as index:
        await index.upsert(twins)
        await index.upsert(own)
        hits = await index.search(SearchQuery(SYMBOL, ALWAYS, query, 10))
        other = await stored(index, "ETHUSDT")
    assert sorted(found(hits).timestamp_ms.tolist()) == own.timestamp_ms.tolist()
    assert hits.eligible == 3
    assert found(hits).symbol == SYMBOL
    assert other.symbol == "ETHUSDT"
    assert np.array_equal(other.values, twins.values)


async def test_a_perfect_twin_from_the_future_never_comes_back(fresh_index: FreshIndex) -> None:
    as_of_ms = int(at([500])[0])
    twin = unit_vectors(1, 9)[0]
    known, canary = as_of_ms - DAY_MS, as_of_ms - DAY_MS + 1
    past = points_at(range(100), 3)
    values = past.values[:, :2]
    twins = PointTable.checked(
        SYMBOL, np.array([known, canary]), values, {STATE: np.tile(twin, (2, 1))}, run=1
    )
    later = points_at(range(405, 600), 4, vectors=np.tile(twin, (195, 1)))
    async with fresh_index(collection()) as index:
        for points in (past, twins, later):
            await index.upsert(points)
        window = visible_window(as_of_ms, 90)
        for limit in (1, 5, 1000):
            hits = await index.search(SearchQuery(SYMBOL, window, twin, limit))
            assert found(hits).timestamp_ms[0] == known
            assert found(hits).resolved_at_ms.max() == as_of_ms
            assert hits.eligible == 101
        scanned = await index.scan(SYMBOL, window)
        one_later = await index.scan(SYMBOL, visible_window(as_of_ms + 1, 90))
    assert scanned.timestamp_ms[-1] == known
    assert one_later.timestamp_ms[-1] == canary


async def test_upserting_the_same_points_again_adds_and_changes_nothing(
    fresh_index: FreshIndex,
) -> None:
    points = points_at(range(0, 40, 2), 1)
    async with fresh_index(collection()) as index:
        assert await index.upsert(points) == 20
        before = await stored(index)
        assert await index.upsert(points) == 0
        assert await index.upsert(points.take(slice(5, 9))) == 0
        assert same_points(await stored(index), before)


async def test_upserting_nothing_adds_nothing(fresh_index: FreshIndex) -> None:
    async with fresh_index(collection()) as index:
        assert await index.upsert(points_at([])) == 0
        assert (await index.info()).symbols == []


@given(parts=st.lists(st.tuples(slot_sets, seeds), min_size=2, max_size=6))
async def test_upserts_add_what_is_new_and_replace_what_was_there(
    fresh_index: FreshIndex, parts: list[tuple[list[int], int]]
) -> None:
    expected = points_at([])
    async with fresh_index(collection()) as index:
        for run, (slots, seed) in enumerate(parts, start=1):
            points = points_at(slots, seed, run=run)
            grown = merged(expected, points)
            assert await index.upsert(points) == len(grown) - len(expected)
            expected = grown
            held = await stored(index)
            assert held.timestamp_ms.tolist() == expected.timestamp_ms.tolist()
            assert np.array_equal(held.values, expected.values)
            assert np.array_equal(held.run, expected.run)
            np.testing.assert_allclose(held.vectors[STATE], expected.vectors[STATE], atol=1e-6)
            assert (await index.timestamps(SYMBOL)).tolist() == expected.timestamp_ms.tolist()
            query = SearchQuery(SYMBOL, ALWAYS, expected.vectors[STATE][0], 1000)
            hits = await index.search(query)
            assert hits.eligible == len(expected)
            rows = np.searchsorted(expected.timestamp_ms, found(hits).timestamp_ms)
            exact = expected.vectors[STATE][rows].astype(np.float64) @ expected.vectors[STATE][0]
            np.testing.assert_allclose(hits.cosine, exact, atol=1e-5)


async def test_a_symbol_without_points_is_refused_with_the_symbols_there_are(
    fresh_index: FreshIndex,
) -> None:
    query = SearchQuery("XRPUSDT", ALWAYS, unit_vectors(1, 0)[0], 5)
    async with fresh_index(collection()) as index:
        with pytest.raises(SymbolNotFoundError, match="available: none"):
            await index.search(query)
        await index.upsert(points_at([1]))
        await index.upsert(points_at([1], symbol="ADAUSDT"))
        with pytest.raises(SymbolNotFoundError, match="XRPUSDT") as searched:
            await index.search(query)
        with pytest.raises(SymbolNotFoundError) as scanned:
            await index.scan("XRPUSDT", ALWAYS)
        assert searched.value.details["available"] == ["ADAUSDT", "BTCUSDT"]
        assert scanned.value.details["available"] == ["ADAUSDT", "BTCUSDT"]


async def test_timestamps_are_those_of_the_symbol_and_none_for_an_unknown_one(
    fresh_index: FreshIndex,
) -> None:
    async with fresh_index(collection()) as index:
        assert (await index.timestamps(SYMBOL)).tolist() == []
        await index.upsert(points_at([9, 12]))
        await index.upsert(points_at([3], symbol="ETHUSDT"))
        await index.upsert(points_at([4, 10]))
        assert (await index.timestamps(SYMBOL)).tolist() == at([4, 9, 10, 12]).tolist()
        assert (await index.timestamps("XRPUSDT")).tolist() == []


async def test_runs_are_numbered_from_one_and_told(fresh_index: FreshIndex) -> None:
    started = "2026-03-20T12:00:00Z"
    async with fresh_index(collection()) as index:
        numbers = [await index.begin_run(f"build {i}", "bybit", started) for i in range(3)]
        last = await index.begin_run("build 3", None, started)
        assert [*numbers, last] == [1, 2, 3, 4]
        assert (await index.info()).runs == [
            IngestionRun(run=1, build_id="build 0", exchange="bybit", started_at=started),
            IngestionRun(run=2, build_id="build 1", exchange="bybit", started_at=started),
            IngestionRun(run=3, build_id="build 2", exchange="bybit", started_at=started),
            IngestionRun(run=4, build_id="build 3", exchange=None, started_at=started),
        ]


async def test_info_tells_the_collection_and_the_extent_of_each_symbol(
    fresh_index: FreshIndex,
) -> None:
    held = collection(exchange="binance")
    async with fresh_index(held) as index:
        assert (await index.info()).symbols == []
        await index.upsert(points_at([4, 2000], symbol="SOLUSDT"))
        await index.upsert(points_at([7, 8, 9]))
        await index.upsert(points_at([5]))
        info = await index.info()
        assert index.collection == info.collection == held
    told = [(s.symbol, s.points, s.first_timestamp_ms, s.last_timestamp_ms) for s in info.symbols]
    assert told == [
        ("BTCUSDT", 4, *at([5, 9]).tolist()),
        ("SOLUSDT", 2, *at([4, 2000]).tolist()),
    ]
    assert info.backend
    assert info.location


async def test_points_of_another_dimension_are_refused_and_nothing_is_written(
    fresh_index: FreshIndex,
) -> None:
    wrong = points_at([1, 2], vectors=unit_vectors(2, 0, DIMENSION + 2))
    async with fresh_index(collection()) as index:
        with pytest.raises(InvalidInputError, match="dimension"):
            await index.upsert(wrong)
        assert (await index.info()).symbols == []


async def test_a_version_token_changes_with_the_points_of_its_symbol_and_with_nothing_else(
    fresh_index: FreshIndex,
) -> None:
    async with fresh_index(collection()) as index:
        await index.upsert(points_at(range(30)))
        first = await index.scan(SYMBOL, ALWAYS)
        hits = await index.search(SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 0)[0], 5))
        part = await index.scan(SYMBOL, Window(int(at([10])[0]), MAX_TIME_MS))
        assert hits.points.version_token == part.version_token == first.version_token
        await index.upsert(points_at(range(5), symbol="ETHUSDT"))
        assert (await index.scan(SYMBOL, ALWAYS)).version_token == first.version_token
        earlier = {first.version_token}
        for changed in (points_at([30]), points_at([4], 7), points_at([4], 8)):
            await index.upsert(changed)
            scanned, fetched = await index.scan(SYMBOL, ALWAYS), await index.fetch(SYMBOL, at([0]))
            assert not earlier & {scanned.version_token, fetched.version_token}
            earlier |= {scanned.version_token, fetched.version_token}


@given(slots=slot_sets, data=st.data())
async def test_removed_points_are_gone_from_every_answer_and_the_others_stay(
    fresh_index: FreshIndex, slots: list[int], data: st.DataObject
) -> None:
    points = points_at(slots, 3)
    asked = data.draw(st.sets(st.integers(0, 250), max_size=20).map(sorted))
    kept = points.take(~np.isin(points.timestamp_ms, at(asked)))
    assume(len(kept))
    async with fresh_index(collection()) as index:
        await index.upsert(points)
        before = await index.scan(SYMBOL, ALWAYS)
        assert await index.remove(SYMBOL, at(asked)) == len(points) - len(kept)
        assert await index.remove(SYMBOL, at(asked)) == 0
        held = await stored(index)
        assert held.timestamp_ms.tolist() == kept.timestamp_ms.tolist()
        assert np.array_equal(held.values, kept.values)
        assert (await index.timestamps(SYMBOL)).tolist() == kept.timestamp_ms.tolist()
        assert len(await index.fetch(SYMBOL, at(asked))) == 0
        hits = await index.search(SearchQuery(SYMBOL, ALWAYS, kept.vectors[STATE][0], 1000))
        assert hits.eligible == len(hits.rows) == len(kept)
        assert sorted(found(hits).timestamp_ms.tolist()) == kept.timestamp_ms.tolist()
        (symbol,) = (await index.info()).symbols
        assert symbol.points == len(kept)
        if len(kept) < len(points):
            assert (await index.scan(SYMBOL, ALWAYS)).version_token != before.version_token
        # What a reader holds does not change under its hands.
        assert np.array_equal(before.values, points.values)


async def test_a_removed_point_can_come_back_and_a_symbol_can_lose_all(
    fresh_index: FreshIndex,
) -> None:
    async with fresh_index(collection()) as index:
        await index.upsert(points_at([1, 2, 3]))
        await index.upsert(points_at([1], symbol="ETHUSDT"))
        assert await index.remove(SYMBOL, at([2])) == 1
        await index.upsert(points_at([2, 4], 9))
        held = await stored(index)
        assert held.timestamp_ms.tolist() == at([1, 2, 3, 4]).tolist()
        assert np.array_equal(held.values[:, 1], points_at([2, 4], 9).values[:, 0])
        assert await index.remove("XRPUSDT", at([1])) == 0
        assert await index.remove(SYMBOL, at([1, 2, 3, 4, 5])) == 4
        assert (await index.timestamps(SYMBOL)).tolist() == []
        with pytest.raises(SymbolNotFoundError) as scanned:
            await index.scan(SYMBOL, ALWAYS)
        assert scanned.value.details["available"] == ["ETHUSDT"]
        assert [s.symbol for s in (await index.info()).symbols] == ["ETHUSDT"]
        await index.upsert(points_at([7]))
        assert (await stored(index)).timestamp_ms.tolist() == at([7]).tolist()


async def test_a_data_mark_is_a_symbol_s_own_and_changes_no_points(
    fresh_index: FreshIndex,
) -> None:
    async with fresh_index(collection()) as index:
        await index.upsert(points_at([1, 2]))
        before = await index.scan(SYMBOL, ALWAYS)
        assert await index.data_mark(SYMBOL) is None
        for change in (7, 8):
            mark = DataMark(change, {"candles_5m": 10**12 + change, "funding": 10**12}, 3_600_000)
            await index.set_data_mark(SYMBOL, mark)
            assert await index.data_mark(SYMBOL) == mark
        assert await index.data_mark("ETHUSDT") is None
        after = await index.scan(SYMBOL, ALWAYS)
        assert after.version_token == before.version_token
        assert [s.symbol for s in (await index.info()).symbols] == [SYMBOL]
