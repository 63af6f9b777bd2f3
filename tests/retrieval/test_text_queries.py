"""Queries by the wording of the state, and by state and wording together."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llm_trader.checks.vector_comparison import compare_vectors
from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.errors import ConfigurationError, EmbeddingError, InvalidInputError
from llm_trader.index.asof import visible_window
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS
from tests.embedding.encoders import HashedWords
from tests.index.builders import SLOT_MS, START_MS, SYMBOL, at
from tests.retrieval.builders import (
    COLLECTION,
    SPACE,
    TEN_FIELDS,
    comparable,
    outcomes_at,
    state_of,
    states_at,
)

SLOTS = 1500
AS_OF_MS = START_MS + SLOTS * SLOT_MS + 2 * DAY_MS
TEXTS = TextSpace(HashedWords(), "detailed")
HELD = msgspec.structs.replace(
    COLLECTION,
    text_model=TEXTS.model,
    text_space_id=TEXTS.space_id,
    text_dimension=TEXTS.dimension,
)


def worded(slots: range, seed: int = 0, run: int = 1) -> PointTable:
    """Points with both vectors."""
    states = states_at(at(slots), seed)
    values = np.concatenate([states.scalars, outcomes_at(len(states), seed)])
    vectors = {STATE: SPACE.embed(states)[0], TEXT: TEXTS.embed(states)}
    return PointTable.checked(SYMBOL, states.as_of_ms, values, vectors, run)


@pytest.fixture(scope="module")
def points() -> PointTable:
    return worded(range(SLOTS))


@asynccontextmanager
async def retriever_of(*tables: PointTable) -> AsyncIterator[Retriever]:
    texts = QueryTexts(TEXTS, 100)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedIndex.create_or_open(Path(folder) / "index", HELD) as index,
    ):
        for table in tables:
            await index.upsert(table)
        yield Retriever(index, SPACE, texts)
    await texts.aclose()


def config(vector: QueryVectors, **changes: object) -> SearchSpec:
    plain = {"min_similarity": 0.0, "include_regime_filters": False, "vector": vector}
    return SearchSpec(**(plain | changes))  # type: ignore[arg-type]


async def test_a_text_query_finds_the_states_of_the_most_similar_wording(
    points: PointTable,
) -> None:
    state = state_of(points, 40, AS_OF_MS)
    async with retriever_of(points) as retriever:
        answer = await retriever.query(state, AS_OF_MS, config("text", min_gap_hours=0, top_k=50))
    cosine = points.vectors[TEXT].astype(np.float64) @ TEXTS.embed(state)[0]
    best = np.lexsort([points.timestamp_ms, -np.round(cosine, 6)])[:50]
    assert [m.timestamp for m in answer.matches] == points.timestamp_ms[best].tolist()
    np.testing.assert_allclose([m.similarity for m in answer.matches], cosine[best], atol=1e-5)
    assert answer.matches[0].timestamp == points.timestamp_ms[40]
    assert answer.matches[0].similarity == pytest.approx(1, abs=1e-6)


async def test_hybrid_adds_the_reciprocal_ranks_and_tells_the_similarity_of_the_state(
    points: PointTable,
) -> None:
    state = state_of(points, 40, AS_OF_MS)
    asked = config("hybrid", min_gap_hours=0, top_k=20, evidence_k=10)
    async with retriever_of(points) as retriever:
        answer = await retriever.query(state, AS_OF_MS, asked)
    score: dict[int, float] = {}
    depth = 6 * 20
    similar = points.vectors[STATE].astype(np.float64) @ SPACE.embed_query(state).vector
    for cosine in (similar, points.vectors[TEXT].astype(np.float64) @ TEXTS.embed(state)[0]):
        order = np.lexsort([points.timestamp_ms, -np.round(cosine, 6)])[:depth]
        for rank, row in enumerate(order.tolist(), start=1):
            score[row] = score.get(row, 0) + 1 / (60 + rank)
    best = sorted(score, key=lambda row: (-score[row], row))[:20]
    assert [m.timestamp for m in answer.matches] == points.timestamp_ms[best].tolist()
    np.testing.assert_allclose([m.similarity for m in answer.matches], similar[best], atol=1e-5)
    extent = (min(similar[best]), max(similar[best]))
    assert answer.statistics.similarity_range == pytest.approx(extent, abs=1e-5)


async def test_a_threshold_of_hybrid_is_one_of_the_state_and_keeps_the_fused_order(
    points: PointTable,
) -> None:
    state = state_of(points, 40, AS_OF_MS)
    async with retriever_of(points) as retriever:
        every = await retriever.query(state, AS_OF_MS, config("hybrid", top_k=50))
        cut = sorted(match.similarity for match in every.matches)[25]
        asked = config("hybrid", top_k=50, min_similarity=cut)
        some = await retriever.query(state, AS_OF_MS, asked)
    alike = [m.timestamp for m in every.matches if m.similarity >= cut]
    assert [m.timestamp for m in some.matches] == alike


@pytest.mark.parametrize("vector", ["state", "text", "hybrid"])
async def test_a_perfect_twin_from_the_future_is_found_by_no_vector(
    points: PointTable, vector: QueryVectors
) -> None:
    as_of_ms = int(points.timestamp_ms[1000])
    state = state_of(points, 1000, as_of_ms)
    asked = config(vector, top_k=50, min_gap_hours=0, evidence_k=500)
    async with retriever_of(points) as retriever:
        answer = await retriever.query(state, as_of_ms, asked)
        known = visible_window(as_of_ms, asked.lookback_days).resolved_by_ms
    past_only = points.take(points.resolved_at_ms <= as_of_ms)
    async with retriever_of(past_only) as retriever:
        without_future = await retriever.query(state, as_of_ms, asked)
    assert len(answer.matches) == 50
    assert max(match.resolved_at for match in answer.matches) <= known
    assert comparable(answer) == comparable(without_future)


@pytest.mark.parametrize("vector", ["text", "hybrid"])
async def test_filters_and_gaps_hold_for_every_vector(
    points: PointTable, vector: QueryVectors
) -> None:
    row = int(np.argmax(points.column("funding_rate")))
    state = state_of(points, row, AS_OF_MS)
    async with retriever_of(points) as retriever:
        asked = config(vector, include_regime_filters=True, top_k=30)
        answer = await retriever.query(state, AS_OF_MS, asked)
    assert "funding_sign" in answer.filters_applied or len(answer.filters_applied) > 3
    assert all(match.market_state.funding_rate > 0 for match in answer.matches)
    stamps = np.sort([match.timestamp for match in answer.matches])
    assert np.diff(stamps).min() >= 4 * 3_600_000


@pytest.mark.parametrize("vector", ["text", "hybrid"])
async def test_the_ten_fields_of_classic_clients_are_enough(
    points: PointTable, vector: QueryVectors
) -> None:
    state = state_of(points, 40, AS_OF_MS, *TEN_FIELDS)
    async with retriever_of(points) as retriever:
        answer = await retriever.query(state, AS_OF_MS, config(vector))
    assert len(answer.matches) == 5


async def test_what_a_sentence_leaves_out_is_told(points: PointTable) -> None:
    async with retriever_of(points) as retriever:
        whole = state_of(points, 40, AS_OF_MS)
        part = state_of(points, 40, AS_OF_MS, *TEN_FIELDS)
        assert (await retriever.query(whole, AS_OF_MS, config("text"))).features_missing == []
        missing = (await retriever.query(part, AS_OF_MS, config("text"))).features_missing
    assert {"price_change_1h", "realized_volatility_24h", "volume_ratio"} <= set(missing)
    assert not {"rsi_7", "rsi_14", "macd", "ema_ratio", "funding_rate"} & set(missing)


@pytest.mark.parametrize("vector", ["text", "hybrid"])
async def test_a_sentence_that_leaves_facts_out_is_not_called_novel(
    points: PointTable, vector: QueryVectors
) -> None:
    """Every stored sentence is whole, so all of them are less like a part than like each other."""
    part = state_of(points, 40, AS_OF_MS, *TEN_FIELDS)
    async with retriever_of(points) as retriever:
        whole = await retriever.query(state_of(points, 40, AS_OF_MS), AS_OF_MS, config(vector))
        answer = await retriever.query(part, AS_OF_MS, config(vector))
    assert whole.evidence.novelty is not None
    compared = vector == "hybrid"  # by the state, over the features that the query has
    assert (answer.evidence.novelty is not None) is compared
    assert all((m.similarity_percentile is not None) is compared for m in answer.matches)


async def test_a_state_of_which_nothing_can_be_told_is_refused(points: PointTable) -> None:
    silent = SnapshotTable.of_fields(SYMBOL, SPACE.intraday, AS_OF_MS, {"price": 1.0})
    async with retriever_of(points) as retriever:
        with pytest.raises(EmbeddingError, match="nothing that can be told"):
            await retriever.query(silent, AS_OF_MS, config("text"))


async def test_without_text_vectors_or_a_model_a_text_query_is_refused_with_the_remedy(
    points: PointTable, tmp_path: Path
) -> None:
    state = state_of(points, 40, AS_OF_MS)
    with EmbeddedIndex.create_or_open(tmp_path / "plain", COLLECTION) as plain:
        retriever = Retriever(plain, SPACE, QueryTexts(TEXTS, 1))
        with pytest.raises(InvalidInputError, match="holds no text vectors; ingest with --text"):
            await retriever.query(state, AS_OF_MS, config("text"))
    with EmbeddedIndex.create_or_open(tmp_path / "worded", HELD) as index:
        await index.upsert(points)
        alone = Retriever(index, SPACE)
        assert (await alone.query(state, AS_OF_MS, config("state"))).matches
        for vector in ("text", "hybrid"):
            with pytest.raises(InvalidInputError, match=r"embedding\.text\.enabled"):
                await alone.query(state, AS_OF_MS, config(vector))


async def test_an_index_of_another_model_or_wording_is_refused(tmp_path: Path) -> None:
    with EmbeddedIndex.create_or_open(tmp_path / "index", HELD) as index:
        for other in (
            TextSpace(HashedWords(version="2"), "detailed"),
            TextSpace(HashedWords(), "compact"),
        ):
            told = rf"{TEXTS.space_id}.*text models: {TEXTS.model}, here {other.model}"
            with pytest.raises(ConfigurationError, match=told):
                Retriever(index, SPACE, QueryTexts(other, 1))


async def test_an_answer_names_the_spaces_it_was_found_in(points: PointTable) -> None:
    async with retriever_of(points) as retriever:
        assert retriever.embedding_model("state") == SPACE.space_id
        assert retriever.embedding_model("text") == TEXTS.space_id
        assert retriever.embedding_model("hybrid") == f"{SPACE.space_id}+{TEXTS.space_id}"


async def test_the_comparison_of_vectors_is_what_it_says(points: PointTable) -> None:
    async with retriever_of(points) as retriever:
        looks: list[None] = []
        told = await compare_vectors(
            retriever.index, SPACE, SYMBOL, samples=40, k=10, lookback_days=5, seed=1,
            progress=lambda: looks.append(None),
        )  # fmt: skip
        again = await compare_vectors(
            retriever.index, SPACE, SYMBOL, samples=40, k=10, lookback_days=5, seed=1
        )
    assert told == again
    assert (told.points, told.queries, len(looks)) == (SLOTS, 40, 40)
    state, text = told.spaces
    assert (state.space_id, text.space_id) == (SPACE.space_id, TEXTS.space_id)
    for space in told.spaces:
        assert space.pair_similarity == sorted(space.pair_similarity)
        assert space.nearest_feature_distance < told.usual_feature_distance
        assert space.nearest_similarity > space.pair_similarity[2]
    # The state's cosine is made of the features themselves; words only tell some of them.
    assert state.rank_correlation > 0.7
    assert 0 < text.rank_correlation < state.rank_correlation
    assert told.by_chance == pytest.approx(10 / (4 * 96 + 1), rel=0.01)
    assert told.by_chance < told.shared_nearest < 1


async def test_a_comparison_can_be_interrupted(points: PointTable) -> None:
    async with retriever_of(points) as retriever:
        comparing = asyncio.current_task()
        assert comparing is not None
        looks: list[None] = []

        def interrupt() -> None:
            looks.append(None)
            comparing.cancel()

        with pytest.raises(asyncio.CancelledError):
            await compare_vectors(
                retriever.index, SPACE, SYMBOL, samples=40, k=10, lookback_days=5, seed=1,
                progress=interrupt,
            )  # fmt: skip
        comparing.uncancel()
    assert len(looks) == 1


async def test_a_comparison_needs_text_vectors_and_enough_states(
    points: PointTable, tmp_path: Path
) -> None:
    options = {"samples": 5, "k": 10, "lookback_days": 5, "seed": 0}
    with (
        EmbeddedIndex.create_or_open(tmp_path / "plain", COLLECTION) as plain,
        pytest.raises(InvalidInputError, match="no text vectors"),
    ):
        await compare_vectors(plain, SPACE, SYMBOL, **options)
    async with retriever_of(points) as retriever:
        with pytest.raises(InvalidInputError, match=r"has 2000 states in 5 days .* smaller --k"):
            await compare_vectors(retriever.index, SPACE, SYMBOL, **options | {"k": 2000})
    async with retriever_of(points.take(slice(0, 50))) as retriever:
        with pytest.raises(InvalidInputError, match="50 states of BTCUSDT; 1000 are needed"):
            await compare_vectors(retriever.index, SPACE, SYMBOL, **options)
