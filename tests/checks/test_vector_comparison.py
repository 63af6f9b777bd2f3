from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llm_trader.checks.sampling import Sampling
from llm_trader.checks.vector_comparison import compare_vectors
from llm_trader.errors import InvalidInputError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import PointTable
from tests.index.builders import SYMBOL
from tests.retrieval.builders import COLLECTION, SPACE
from tests.retrieval.worded import SLOTS, TEXTS, retriever_of, worded

SAMPLING = Sampling(k=10, samples=40, lookback_days=5, seed=1)


@pytest.fixture(scope="module")
def points() -> PointTable:
    return worded(range(SLOTS))


async def test_the_comparison_of_vectors_is_what_it_says(points: PointTable) -> None:
    async with retriever_of(points) as retriever:
        looks: list[tuple[str, int, int]] = []
        comparison = await compare_vectors(
            retriever.index, SYMBOL, SAMPLING, lambda *look: looks.append(look)
        )
        again = await compare_vectors(retriever.index, SYMBOL, SAMPLING)
    assert comparison == again
    assert (comparison.points, comparison.queries) == (SLOTS, 40)
    assert looks == [(SYMBOL, done, 40) for done in range(1, 41)]
    state, text = comparison.spaces
    assert (state.space_id, text.space_id) == (SPACE.space_id, TEXTS.space_id)
    for space in comparison.spaces:
        assert space.pair_similarity == sorted(space.pair_similarity)
        assert space.nearest_feature_distance < comparison.usual_feature_distance
        assert space.nearest_similarity > space.pair_similarity[2]
    # The state's cosine is made of the features themselves; words only tell some of them.
    assert state.rank_correlation > 0.7
    assert 0 < text.rank_correlation < state.rank_correlation
    assert comparison.by_chance == pytest.approx(10 / (4 * 96 + 1), rel=0.01)
    assert comparison.by_chance < comparison.shared_nearest < 1


async def test_a_comparison_can_be_interrupted(points: PointTable) -> None:
    async with retriever_of(points) as retriever:
        comparing = asyncio.current_task()
        assert comparing is not None
        looks: list[int] = []

        def interrupt(label: str, done: int, total: int) -> None:
            looks.append(done)
            comparing.cancel()

        with pytest.raises(asyncio.CancelledError):
            await compare_vectors(retriever.index, SYMBOL, SAMPLING, interrupt)
        comparing.uncancel()
    assert looks == [1]


async def test_a_comparison_needs_text_vectors_and_enough_states(
    points: PointTable, tmp_path: Path
) -> None:
    sampling = Sampling(10, 5, 5, 0)
    with (
        EmbeddedIndex.create_or_open(tmp_path / "plain", COLLECTION) as plain,
        pytest.raises(InvalidInputError, match="no text vectors"),
    ):
        await compare_vectors(plain, SYMBOL, sampling)
    async with retriever_of(points) as retriever:
        with pytest.raises(InvalidInputError, match=r"has 2000 states in 5 days .* smaller --k"):
            await compare_vectors(retriever.index, SYMBOL, sampling._replace(k=2000))
    async with retriever_of(points.take(slice(0, 50))) as retriever:
        with pytest.raises(InvalidInputError, match="50 states of BTCUSDT; 1000 are needed"):
            await compare_vectors(retriever.index, SYMBOL, sampling)
