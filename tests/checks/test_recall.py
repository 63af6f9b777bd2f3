"""How recall is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llm_trader.checks.recall import RecallReport, recall
from llm_trader.checks.sampling import Sampling
from llm_trader.errors import InvalidInputError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.protocol import Hits, SearchQuery
from tests.index.builders import SYMBOL, collection, fresh_embedded, points_at, unit_vectors


class Forgetful:
    """Finds what an index finds, but for the hits of some ranks."""

    def __init__(self, index: EmbeddedIndex, lost: list[int]) -> None:
        self._index = index
        self._lost = lost

    async def search(self, query: SearchQuery) -> Hits:
        hits = await self._index.search(replace(query, limit=query.limit + len(self._lost)))
        rows, cosine = np.delete(hits.rows, self._lost), np.delete(hits.cosine, self._lost)
        return replace(hits, rows=rows, cosine=cosine)


async def told(lost: list[int], **changes: int) -> RecallReport:
    sampling = Sampling(10, 12, 5, 3)._replace(**changes)
    async with fresh_embedded(collection()) as index:
        await index.upsert(points_at(range(600), 1, vectors=unit_vectors(600, 2)))
        return await recall(index, Forgetful(index, lost), SYMBOL, sampling)


async def test_a_search_that_loses_nothing_has_recall_one() -> None:
    report = await told([])
    assert (report.mean, report.least, report.complete, report.lost_cosine) == (1, 1, 1, 0)
    assert (report.samples, report.k, report.symbol) == (12, 10, SYMBOL)
    # At most five days of quarter-hours without the last day, whose outcomes are not known.
    assert 10 <= report.points <= 4 * 96 + 1


async def test_a_search_that_loses_three_of_ten_has_recall_seven_tenths() -> None:
    report = await told([0, 4, 9])
    assert report.mean == pytest.approx(0.7)
    assert (report.least, report.complete) == (pytest.approx(0.7), 0)
    assert report.lost_cosine > 0


async def test_the_same_seed_asks_the_same_queries() -> None:
    first, same, other = [await told([1], seed=seed) for seed in (1, 1, 2)]
    assert (first.lost_cosine, first.points) == (same.lost_cosine, same.points)
    assert first.lost_cosine != other.lost_cosine


async def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no state of BTCUSDT has 900 known ones"):
        await told([], k=900)
