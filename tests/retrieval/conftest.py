from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import PointTable
from tests.retrieval.builders import COLLECTION, past

SLOTS = 2000  # quarter-hours: three weeks


@pytest.fixture(scope="session")
def past_points() -> PointTable:
    """Three weeks in which outcomes have nothing to do with states; not to be written to."""
    return past(range(SLOTS))


@pytest.fixture(scope="session")
def past_index(
    past_points: PointTable, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedIndex]:
    """An index of `past_points`; not to be written to."""
    path = tmp_path_factory.mktemp("past") / "index"
    with EmbeddedIndex.create_or_open(path, COLLECTION) as index:
        asyncio.run(index.upsert(past_points))
        yield index
