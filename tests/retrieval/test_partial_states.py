"""Answers from points that lack open interest or funding, beside the definition told plainly."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Kinds
from llm_trader.index.points import STATE, PointTable
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.reference import SimilarityReference
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, Millis
from tests.index.builders import SYMBOL, at
from tests.index.test_partial_points import lacking_as, mixed_points, similarity_by_definition
from tests.retrieval.builders import (
    SPACE,
    comparable,
    index_of,
    outcomes_at,
    past,
    points_of,
    states_at,
)

SLOTS = 400
LATE_MS: Millis = int(at([SLOTS])[0]) + DAY_MS
ALL_NEAR = SearchSpec(
    top_k=50, evidence_k=50, min_gap_hours=0, min_similarity=0, include_regime_filters=False
)


def kinds_of(seed: int, choice: list[int]) -> Kinds:
    return np.random.default_rng(seed).choice(np.array(choice, np.uint8), SLOTS)


def asked(kind: int, seed: int) -> SnapshotTable:
    state = states_at(np.array([LATE_MS]), seed)
    return lacking_as(state, np.array([kind], np.uint8))


async def answer_to(points: PointTable, state: SnapshotTable, spec: SearchSpec) -> Answer:
    async with index_of(points) as index:
        return await Retriever(index, SPACE).query(state, LATE_MS, spec)


choices = st.sampled_from([[0], [0, 1], [0, 3], [3], [1, 2], [0, 1, 2, 3]])


@given(seed=st.integers(0, 1000), choice=choices, kind=st.integers(0, 3))
async def test_matches_are_the_nearest_by_definition_with_their_share_of_the_weight(
    seed: int, choice: list[int], kind: int
) -> None:
    points, state = mixed_points(kinds_of(seed, choice), seed), asked(kind, seed + 1)
    answer = await answer_to(points, state, ALL_NEAR)
    similarity, share = similarity_by_definition(state, points)
    rows = np.searchsorted(points.timestamp_ms, [match.timestamp for match in answer.matches])
    told = [match.similarity for match in answer.matches]
    assert told == pytest.approx(similarity[rows].tolist(), abs=2e-6)
    assert told == pytest.approx(np.sort(similarity)[::-1][:50].tolist(), abs=2e-6)
    assert [match.compared_share for match in answer.matches] == pytest.approx(share[rows].tolist())
    assert answer.points_eligible == SLOTS
    assert answer.evidence.episodes_compared_in_part == (share[rows] < 1 - 1e-9).sum()
    for match, row in zip(answer.matches, rows.tolist(), strict=True):
        for name in ("oi_delta_pct", "funding_rate"):
            value = float(points.column(name)[row])
            assert getattr(match.market_state, name) == (None if np.isnan(value) else value)
    assert b"NaN" not in msgspec.json.encode(answer)


MORE_CHOICES = [([0, 1, 2, 3], 0), ([0, 1, 2, 3], 3), ([0, 3], 3)]


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        ([3], 1),
        *(pytest.param(*case, marks=pytest.mark.soak) for case in MORE_CHOICES),
    ],
)
def test_how_similar_states_usually_are_is_measured_over_what_both_and_the_query_know(
    choice: list[int], kind: int
) -> None:
    points, state = mixed_points(kinds_of(5, choice), 5), asked(kind, 6)
    probe = SPACE.embed_query(state)
    assert probe.overlap is not None
    present = np.repeat(probe.overlap.known, 2).astype(np.float32)
    scales = SPACE.pair_scales(probe.overlap.known)
    reference = SimilarityReference.of(points, STATE, present, probe.present_share, scales)
    nearest = []
    chosen = np.unique(np.linspace(0, SLOTS - 1, 128).astype(np.intp))
    for row in chosen.tolist():
        # The chosen state as a query that knows no more than the query does.
        own = SnapshotTable.unknown(SYMBOL, SPACE.intraday, points.timestamp_ms[[row]])
        own.scalars[:] = points.values[: len(SCALARS), [row]]
        own = lacking_as(own, np.array([kind], np.uint8))
        similarity, _ = similarity_by_definition(own, points)
        apart = np.abs(points.timestamp_ms - points.timestamp_ms[row]) >= DAY_MS
        nearest.append(similarity[apart].max())
    assert reference.nearest.tolist() == pytest.approx(sorted(nearest), abs=3e-6)


async def test_complete_points_are_compared_with_a_partial_query_as_they_always_were() -> None:
    points, state = past(range(SLOTS)), asked(1, 3)
    answer = await answer_to(points, state, ALL_NEAR)
    # What such a query has in common with points that lack nothing is all it knows.
    probe = SPACE.embed_query(state)
    cosine = points.vectors[STATE] @ probe.vector / probe.cosine_per_similarity
    told = [match.similarity for match in answer.matches]
    assert told == pytest.approx(np.sort(cosine)[::-1][:50].tolist(), abs=1e-6)
    assert answer.features_missing == ["oi_delta_pct"]
    assert {match.compared_share for match in answer.matches} == {probe.present_share}


async def test_a_complete_window_is_answered_the_same_beside_points_that_lack_something() -> None:
    """Points outside the window, and of other symbols, change nothing."""
    points, state = past(range(SLOTS)), asked(0, 4)
    older = lacking_as(states_at(at(range(-9000, -8900)), 8), np.full(100, 3, np.uint8))
    alone = await answer_to(points, state, ALL_NEAR)
    async with index_of(points, points_of(older, outcomes_at(100))) as index:
        beside = await Retriever(index, SPACE).query(state, LATE_MS, ALL_NEAR)
    assert comparable(alone) == comparable(beside)
    assert alone.evidence.episodes_compared_in_part == 0


async def test_a_regime_filter_leaves_out_what_does_not_know_its_field() -> None:
    points = mixed_points(kinds_of(3, [0, 1, 2, 3]), 3)
    state = asked(0, 5)
    state.column("oi_delta_pct")[:] = 6.0
    state.column("funding_rate")[:] = 0.0002
    spec = msgspec.structs.replace(ALL_NEAR, include_regime_filters=True)
    answer = await answer_to(points, state, spec)
    assert answer.filters_applied[3:] == ["oi_delta", "funding_sign"]
    near = np.abs(points.column("oi_delta_pct") - 6) <= 10
    assert answer.points_eligible == (near & (points.column("funding_rate") > 0)).sum() > 0
    for match in answer.matches:
        assert match.market_state.oi_delta_pct is not None
        assert match.compared_share == 1
