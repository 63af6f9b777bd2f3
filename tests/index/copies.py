"""Indexes to copy: three runs, two symbols, and points that a later run replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.protocol import Collection, VectorIndex
from tests.index.builders import collection, points_at

OTHER = "ETHUSDT"
POINTS = 400

# Runs as ingestion would have made them: of three, the last has replaced points of the first.
RUNS = (
    ("build 1", "bybit", "2026-01-01T00:00:00Z"),
    ("build 1", "bybit", "2026-01-02T00:00:00Z"),
    ("build 2", None, "2026-01-03T00:00:00Z"),
)


async def fill(index: VectorIndex) -> None:
    for run in RUNS:
        await index.begin_run(*run)
    await index.upsert(points_at(range(0, POINTS, 2), 1, run=1))
    await index.upsert(points_at(range(1, POINTS, 2), 2, run=2))
    await index.upsert(points_at(range(100, 140), 3, run=3))
    await index.upsert(points_at(range(50), 4, run=2, symbol=OTHER))


@asynccontextmanager
async def filled(folder: Path) -> AsyncIterator[EmbeddedIndex]:
    with EmbeddedIndex.create_or_open(folder, collection()) as index:
        await fill(index)
        yield index


def empty(folder: Path, content: Collection | None = None) -> EmbeddedIndex:
    return EmbeddedIndex.create_or_open(folder, content or collection())
