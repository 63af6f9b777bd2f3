"""Queries by the wording of the state, and by state and wording together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.errors import ConfigurationError, EmbeddingError, InvalidInputError
from llm_trader.index.asof import visible_window
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.retrieval.retriever import Question, Retriever
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.snapshot.table import SnapshotTable
from tests.embedding.encoders import HashedWords
from tests.index.builders import SYMBOL
from tests.retrieval.builders import (
    COLLECTION,
    SPACE,
    TEN_FIELDS,
    comparable,
    state_of,
)
from tests.retrieval.worded import AS_OF_MS, HELD, SLOTS, TEXTS, retriever_of, worded


@pytest.fixture(scope="module")
def points() -> PointTable:
    return worded(range(SLOTS))


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
    spec = config("hybrid", min_gap_hours=0, top_k=20, evidence_k=10)
    async with retriever_of(points) as retriever:
        answer = await retriever.query(state, AS_OF_MS, spec)
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
        spec = config("hybrid", top_k=50, min_similarity=cut)
        some = await retriever.query(state, AS_OF_MS, spec)
    alike = [m.timestamp for m in every.matches if m.similarity >= cut]
    assert [m.timestamp for m in some.matches] == alike


@pytest.mark.parametrize("vector", ["state", "text", "hybrid"])
async def test_a_perfect_twin_from_the_future_is_found_by_no_vector(
    points: PointTable, vector: QueryVectors
) -> None:
    as_of_ms = int(points.timestamp_ms[1000])
    state = state_of(points, 1000, as_of_ms)
    spec = config(vector, top_k=50, min_gap_hours=0, evidence_k=500)
    async with retriever_of(points) as retriever:
        answer = await retriever.query(state, as_of_ms, spec)
        resolved_by_ms = visible_window(as_of_ms, spec.lookback_days).resolved_by_ms
    past_only = points.take(points.resolved_at_ms <= as_of_ms)
    async with retriever_of(past_only) as retriever:
        without_future = await retriever.query(state, as_of_ms, spec)
    assert len(answer.matches) == 50
    assert max(match.resolved_at for match in answer.matches) <= resolved_by_ms
    assert comparable(answer) == comparable(without_future)


@pytest.mark.parametrize("vector", ["text", "hybrid"])
async def test_filters_and_gaps_hold_for_every_vector(
    points: PointTable, vector: QueryVectors
) -> None:
    row = int(np.argmax(points.column("funding_rate")))
    state = state_of(points, row, AS_OF_MS)
    async with retriever_of(points) as retriever:
        spec = config(vector, include_regime_filters=True, top_k=30)
        answer = await retriever.query(state, AS_OF_MS, spec)
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
        complete = state_of(points, 40, AS_OF_MS)
        part = state_of(points, 40, AS_OF_MS, *TEN_FIELDS)
        assert (await retriever.query(complete, AS_OF_MS, config("text"))).features_missing == []
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
        complete = await retriever.query(state_of(points, 40, AS_OF_MS), AS_OF_MS, config(vector))
        answer = await retriever.query(part, AS_OF_MS, config(vector))
    assert complete.evidence.novelty is not None
    compared = vector == "hybrid"  # by the state, over the features that the query has
    assert (answer.evidence.novelty is not None) is compared
    assert all((m.similarity_percentile is not None) is compared for m in answer.matches)


async def test_a_state_of_which_nothing_can_be_told_is_refused(points: PointTable) -> None:
    silent = SnapshotTable.of_fields(SYMBOL, SPACE.intraday, AS_OF_MS, {"price": 1.0})
    async with retriever_of(points) as retriever:
        with pytest.raises(EmbeddingError, match="no field that a sentence mentions"):
            await retriever.query(silent, AS_OF_MS, config("text"))


async def test_without_text_vectors_or_a_model_a_text_query_is_refused_with_the_remedy(
    points: PointTable, tmp_path: Path
) -> None:
    state = state_of(points, 40, AS_OF_MS)
    with EmbeddedIndex.create_or_open(tmp_path / "plain", COLLECTION) as plain:
        retriever = Retriever(plain, SPACE, QueryTexts(TEXTS))
        with pytest.raises(InvalidInputError, match="holds no text vectors; ingest with --text"):
            await retriever.query(state, AS_OF_MS, config("text"))
    with EmbeddedIndex.create_or_open(tmp_path / "worded", HELD) as index:
        await index.upsert(points)
        without_texts = Retriever(index, SPACE)
        assert (await without_texts.query(state, AS_OF_MS, config("state"))).matches
        for vector in ("text", "hybrid"):
            with pytest.raises(InvalidInputError, match=r"embedding\.text\.enabled"):
                await without_texts.query(state, AS_OF_MS, config(vector))


async def test_an_index_of_another_model_or_wording_is_refused(tmp_path: Path) -> None:
    with EmbeddedIndex.create_or_open(tmp_path / "index", HELD) as index:
        for other in (
            TextSpace(HashedWords(version="2"), "detailed"),
            TextSpace(HashedWords(), "compact"),
        ):
            comparison = rf"{TEXTS.space_id}.*text models: {TEXTS.model}, here {other.model}"
            with pytest.raises(ConfigurationError, match=comparison):
                Retriever(index, SPACE, QueryTexts(other))


async def test_an_answer_names_the_spaces_it_was_found_in(points: PointTable) -> None:
    async with retriever_of(points) as retriever:
        assert retriever.embedding_model("state") == SPACE.space_id
        assert retriever.embedding_model("text") == TEXTS.space_id
        assert retriever.embedding_model("hybrid") == f"{SPACE.space_id}+{TEXTS.space_id}"


@pytest.mark.parametrize("vector", ["state", "text", "hybrid"])
async def test_a_question_among_others_has_references_if_it_wants_them_whatever_is_compared(
    points: PointTable, vector: QueryVectors
) -> None:
    spec, state = config(vector), state_of(points, 40, AS_OF_MS)
    questions = [Question(state, AS_OF_MS, wants) for wants in (True, False)]
    async with retriever_of(points) as retriever:
        alone = await retriever.query(state, AS_OF_MS, spec, with_references=True)
        many = [answer async for answer in retriever.query_many(questions, spec)]
    assert alone.references is not None
    assert [getattr(answer, "references", "refused") for answer in many] == [alone.references, None]
