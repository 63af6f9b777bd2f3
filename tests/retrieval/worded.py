"""An index with state and text vectors of a made-up market."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np

from llm_trader.embedding.text import TextSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.retrieval.retriever import Retriever
from llm_trader.timeframe import DAY_MS
from tests.embedding.encoders import HashedWords
from tests.index.builders import SLOT_MS, START_MS, SYMBOL, at
from tests.retrieval.builders import COLLECTION, SPACE, outcomes_at, states_at

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


@asynccontextmanager
async def retriever_of(*tables: PointTable) -> AsyncIterator[Retriever]:
    texts = QueryTexts(TEXTS)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedIndex.create_or_open(Path(folder) / "index", HELD) as index,
    ):
        for table in tables:
            await index.upsert(table)
        yield Retriever(index, SPACE, texts)
    await texts.aclose()
