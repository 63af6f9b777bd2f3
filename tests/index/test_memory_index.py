"""An index in memory answers as the embedded one does, and is only read."""

from __future__ import annotations

import numpy as np
import pytest

from llm_trader.errors import SymbolNotFoundError, VectorIndexError
from llm_trader.index.memory_index import MemoryIndex, mirrored
from llm_trader.index.points import COLUMN_ROW
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.model import SCALARS
from tests.index.builders import SYMBOL, at
from tests.retrieval.builders import COLLECTION, SPACE, comparable, index_of, past, state_of


async def test_a_retriever_answers_from_it_as_from_the_embedded_index() -> None:
    points, spec = past(range(1500)), SearchSpec()
    memory = Retriever(MemoryIndex(COLLECTION, {SYMBOL: points}), SPACE)
    async with index_of(points) as index:
        embedded = Retriever(index, SPACE)
        for row in (700, 1400):
            as_of_ms = int(at([row])[0])
            state = state_of(points, row, as_of_ms)
            answers = [await one.query(state, as_of_ms, spec) for one in (memory, embedded)]
            assert answers[0].evidence.episodes > 10
            assert comparable(answers[0]) == comparable(answers[1])


async def test_it_knows_its_symbols_and_refuses_to_be_written_to() -> None:
    points = past(range(20))
    index = MemoryIndex(COLLECTION, {SYMBOL: points})
    assert (await index.timestamps(SYMBOL)).tolist() == points.timestamp_ms.tolist()
    assert not len(await index.timestamps("DOGEUSDT"))
    fetched = await index.fetch(SYMBOL, points.timestamp_ms[3:5])
    assert fetched.timestamp_ms.tolist() == points.timestamp_ms[3:5].tolist()
    with pytest.raises(SymbolNotFoundError, match="BTCUSDT"):
        await index.fetch("DOGEUSDT", points.timestamp_ms)
    with pytest.raises(VectorIndexError, match="only read"):
        await index.upsert(points)


def test_mirrored_points_have_the_same_states_and_the_opposite_outcomes() -> None:
    points = past(range(50))
    opposite = mirrored(points)
    states = slice(0, len(SCALARS))
    assert np.array_equal(opposite.values[states], points.values[states], equal_nan=True)
    for name in ("outcome_15m", "outcome_24h"):
        assert np.array_equal(opposite.column(name), -points.column(name))
    row = COLUMN_ROW["max_runup_1h"]
    assert np.array_equal(opposite.values[row], -points.column("max_drawdown_1h"))
    assert opposite.version_token != points.version_token
