"""Points and indexes for tests."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llm_trader.index.asof import Window
from llm_trader.index.embedded import SCHEMA_VERSION, EmbeddedIndex
from llm_trader.index.points import COLUMN_ROW, COLUMNS, STATE, PointTable
from llm_trader.index.protocol import Collection, Hits, VectorIndex
from llm_trader.timeframe import MAX_TIME_MS, MINUTE_MS, Millis

START_MS: Millis = 1_704_067_200_000  # 2024-01-01
SLOT_MS: Millis = 15 * MINUTE_MS
DIMENSION = 6
SYMBOL = "BTCUSDT"

ALWAYS = Window(0, MAX_TIME_MS)


def collection(**changes: Any) -> Collection:
    plain = {
        "schema_version": SCHEMA_VERSION,
        "exchange": "bybit",
        "feature_version": "v2_5m4h",
        "intraday": "5m",
        "state_space_id": "state-of-tests",
        "dimension": DIMENSION,
    }
    return Collection(**(plain | changes))


def at(slots: Any) -> npt.NDArray[np.int64]:
    """The times of quarter-hours, counted from the start."""
    return START_MS + SLOT_MS * np.asarray(list(slots), dtype=np.int64)


def unit_vectors(count: int, seed: int, dimension: int = DIMENSION) -> npt.NDArray[np.float32]:
    numbers = np.random.default_rng(seed).standard_normal((count, dimension))
    return (numbers / np.linalg.norm(numbers, axis=1)[:, None]).astype(np.float32)


def points_at(
    slots: Any,
    seed: int = 0,
    *,
    symbol: str = SYMBOL,
    run: int = 1,
    vectors: npt.NDArray[np.float32] | None = None,
    **columns: Any,
) -> PointTable:
    """Points at quarter-hours, of random values but for the columns given."""
    times = at(slots)
    values = np.random.default_rng(seed).standard_normal((len(COLUMNS), len(times)))
    values[COLUMN_ROW["first_barrier"]] = np.abs(values[0] * 10).astype(int) % 3
    for name, column in columns.items():
        values[COLUMN_ROW[name]] = column
    if vectors is None:
        vectors = unit_vectors(len(times), seed + 1)
    return PointTable.checked(symbol, times, values, {STATE: vectors}, run)


def found(hits: Hits) -> PointTable:
    """The points of hits, in their order."""
    return hits.points.take(hits.rows)


def same_points(one: PointTable, other: PointTable) -> bool:
    """Equal to the last bit."""
    return (
        one.symbol == other.symbol
        and one.vectors.keys() == other.vectors.keys()
        and all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in ("timestamp_ms", "values", "run")
        )
        and all(np.array_equal(v, other.vectors[name]) for name, v in one.vectors.items())
    )


def same_content(one: PointTable, other: PointTable) -> bool:
    """Equal to the last bit but for the runs that wrote them."""
    return same_points(replace(one, run=other.run), other)


def copied(points: PointTable) -> PointTable:
    """The same points in memory of their own."""
    return points.take(np.arange(len(points)))


def merged(old: PointTable, new: PointTable) -> PointTable:
    """The points of both in order of time, those of `new` winning: a plain model of upserts."""
    rows = {stamp: (old, i) for i, stamp in enumerate(old.timestamp_ms.tolist())}
    rows |= {stamp: (new, i) for i, stamp in enumerate(new.timestamp_ms.tolist())}
    stamps = sorted(rows)
    parts = [rows[stamp] for stamp in stamps]
    return PointTable(
        old.symbol,
        np.array(stamps, np.int64),
        np.array([table.values[:, i] for table, i in parts]).T,
        {STATE: np.array([table.vectors[STATE][i] for table, i in parts])},
        np.array([table.run[i] for table, i in parts], np.uint32),
    )


async def stored(index: VectorIndex, symbol: str = SYMBOL) -> PointTable:
    """Everything an index holds of a symbol."""
    return await index.scan(symbol, ALWAYS, index.collection.dimensions)


@asynccontextmanager
async def fresh_embedded(content: Collection) -> AsyncIterator[VectorIndex]:
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedIndex.create_or_open(Path(folder) / "index", content) as index,
    ):
        yield index
