"""A query at T sees what was resolved by T, and nothing that follows changes its answer."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Times
from llm_trader.index.asof import Window, visible_window
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, PointTable
from llm_trader.index.protocol import Collection, Hits, IndexInfo, SearchQuery
from llm_trader.market.series_changes import DataMark
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.retrieval.statistics import OUTCOME_ROWS
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.index.builders import SLOT_MS, START_MS, SYMBOL, at
from tests.retrieval.builders import (
    SPACE,
    TEN_FIELDS,
    comparable,
    index_of,
    outcomes_at,
    past,
    points_of,
    state_of,
    states_at,
)
from tests.retrieval.conftest import SLOTS

# From before the first point is resolved to long after the last, to the millisecond.
query_times = st.one_of(
    st.integers(START_MS, START_MS + 30 * DAY_MS),
    st.integers(0, SLOTS - 1).map(lambda slot: START_MS + slot * SLOT_MS + DAY_MS),
)
later_times = query_times.filter(lambda t: t >= START_MS + 2 * DAY_MS)
rows = st.integers(0, SLOTS - 1)
configs = st.builds(
    SearchSpec,
    lookback_days=st.sampled_from([1, 3, 90]),
    top_k=st.sampled_from([1, 5, 50]),
    min_similarity=st.sampled_from([0.0, 0.5]),
    include_regime_filters=st.booleans(),
    min_gap_hours=st.sampled_from([0.0, 0.25, 4.0]),
    evidence_k=st.sampled_from([10, 50]),
)
fields = st.sampled_from([(), TEN_FIELDS])


class Witness:
    """An index that notes the latest outcome it ever gave away."""

    def __init__(self, index: EmbeddedIndex) -> None:
        self._index = index
        self.latest_ms = 0
        self.given = 0

    @property
    def collection(self) -> Collection:
        return self._index.collection

    async def search(self, query: SearchQuery) -> Hits:
        hits = await self._index.search(query)
        self._note(hits.points)
        return hits

    async def scan(self, symbol: str, window: Window, vectors: Iterable[str] = ()) -> PointTable:
        points = await self._index.scan(symbol, window, vectors)
        self._note(points)
        return points

    async def fetch(
        self, symbol: str, timestamp_ms: Times, vectors: Iterable[str] = ()
    ) -> PointTable:
        points = await self._index.fetch(symbol, timestamp_ms, vectors)
        self._note(points)
        return points

    async def timestamps(self, symbol: str) -> Times:
        raise NotImplementedError

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        raise NotImplementedError

    async def upsert(self, points: PointTable) -> int:
        raise NotImplementedError

    async def remove(self, symbol: str, timestamp_ms: Times) -> int:
        raise NotImplementedError

    async def data_mark(self, symbol: str) -> DataMark | None:
        raise NotImplementedError

    async def set_data_mark(self, symbol: str, mark: DataMark) -> None:
        raise NotImplementedError

    async def info(self) -> IndexInfo:
        raise NotImplementedError

    def _note(self, points: PointTable) -> None:
        self.given += len(points)
        self.latest_ms = max(self.latest_ms, int(points.resolved_at_ms.max(initial=0)))


@given(
    as_of_ms=st.integers(START_MS, START_MS + 400 * DAY_MS),
    lookback=st.one_of(st.integers(1, 365), st.sampled_from([0.25, 1.5])),
)
def test_a_window_ends_at_its_query_and_begins_the_lookback_before(
    as_of_ms: int, lookback: float
) -> None:
    assert visible_window(as_of_ms, lookback) == Window(
        as_of_ms - round(lookback * 24 * HOUR_MS), as_of_ms
    )


@given(as_of_ms=query_times, row=rows, config=configs, names=fields)
async def test_neither_matches_nor_anything_else_used_was_resolved_after_the_query(
    past_index: EmbeddedIndex,
    past_points: PointTable,
    as_of_ms: int,
    row: int,
    config: SearchSpec,
    names: tuple[str, ...],
) -> None:
    witness = Witness(past_index)
    state = state_of(past_points, row, as_of_ms, *names)
    answer = await Retriever(witness, SPACE).query(state, as_of_ms, config)
    assert witness.latest_ms <= as_of_ms
    earliest = as_of_ms - config.lookback_days * DAY_MS
    for match in answer.matches:
        assert match.resolved_at == match.timestamp + DAY_MS <= as_of_ms
        assert match.timestamp >= earliest
    visible = past_points.resolved_at_ms <= as_of_ms
    visible &= past_points.timestamp_ms >= earliest
    assert answer.evidence.base_rate_points == visible.sum()
    assert witness.given >= visible.sum()


@given(as_of_ms=later_times, row=rows, config=configs, names=fields)
async def test_cutting_off_what_was_not_resolved_changes_nothing_in_an_answer(
    past_index: EmbeddedIndex,
    past_points: PointTable,
    as_of_ms: int,
    row: int,
    config: SearchSpec,
    names: tuple[str, ...],
) -> None:
    state = state_of(past_points, row, as_of_ms, *names)
    everything = await Retriever(past_index, SPACE).query(state, as_of_ms, config)
    visible = past_points.take(past_points.resolved_at_ms <= as_of_ms)
    async with index_of(visible) as cut_off:
        cut = await Retriever(cut_off, SPACE).query(state, as_of_ms, config)
    assert comparable(cut) == comparable(everything)


@given(as_of_ms=later_times, row=rows, config=configs)
async def test_another_future_changes_nothing_in_an_answer(
    past_index: EmbeddedIndex,
    past_points: PointTable,
    as_of_ms: int,
    row: int,
    config: SearchSpec,
) -> None:
    state = state_of(past_points, row, as_of_ms)
    visible = past_points.take(past_points.resolved_at_ms <= as_of_ms)
    twins = twins_at(past_points, row, np.arange(as_of_ms - DAY_MS + 1, as_of_ms + 1, 997_000))
    async with index_of(visible, twins) as other:
        answer = await Retriever(other, SPACE).query(state, as_of_ms, config)
    here = await Retriever(past_index, SPACE).query(state, as_of_ms, config)
    assert comparable(answer) == comparable(here)


def twins_at(points: PointTable, row: int, times: Times) -> PointTable:
    """A point again and again, with a vector equal to its own and an absurd outcome."""
    copies = np.full(len(times), row)
    values = points.values[:, copies]
    values[OUTCOME_ROWS] = 1000.0
    return PointTable(
        SYMBOL, times, values, {STATE: points.vectors[STATE][copies]}, points.run[copies]
    )


@pytest.mark.parametrize("names", [(), TEN_FIELDS], ids=["all fields", "ten fields"])
async def test_a_perfect_twin_resolved_a_millisecond_too_late_never_comes_back(
    names: tuple[str, ...],
) -> None:
    everything = past(range(SLOTS), seed=1)
    as_of_ms = int(everything.timestamp_ms[1000]) + 13 * DAY_MS
    state = state_of(everything, 1000, as_of_ms, *names)
    canary = twins_at(everything, 1000, np.array([as_of_ms - DAY_MS + 1]))
    points = everything.take(np.arange(SLOTS) != 1000)
    config = SearchSpec(min_similarity=0.0, include_regime_filters=False)
    async with index_of(points, canary) as index:
        retriever = Retriever(index, SPACE)
        early = await retriever.query(state, as_of_ms, config)
        late = await retriever.query(state, as_of_ms + 1, config)
    assert max(match.resolved_at for match in early.matches) < as_of_ms
    assert early.evidence.horizons["4h"].mean.value < 10
    assert early.evidence.base_rate_points == SLOTS - 1
    # Where it may be seen, it is the first, and it shows.
    assert late.matches[0].resolved_at == as_of_ms + 1
    assert late.matches[0].similarity == pytest.approx(1, abs=1e-6)
    assert late.matches[0].outcomes.outcome_4h == 1000
    assert late.evidence.horizons["4h"].mean.value > 10
    assert late.evidence.base_rate_points == SLOTS


async def test_a_twin_resolved_at_the_very_time_of_the_query_comes_back_first() -> None:
    times = at(range(SLOTS))
    states = states_at(times, 2)
    points = points_of(states, outcomes_at(SLOTS, 2))
    as_of_ms = int(times[1500]) + DAY_MS
    config = SearchSpec(include_regime_filters=False)
    async with index_of(points) as index:
        retriever = Retriever(index, SPACE)
        at_the_time = await retriever.query(state_of(points, 1500, as_of_ms), as_of_ms, config)
        too_early = await retriever.query(state_of(points, 1500, as_of_ms), as_of_ms - 1, config)
    assert at_the_time.matches[0].timestamp == times[1500]
    assert at_the_time.matches[0].resolved_at == as_of_ms
    assert times[1500] not in [match.timestamp for match in too_early.matches]
