"""What every index backend does. One contract suite holds them all to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.embedding.state import Vectors
from llm_trader.index.asof import Window
from llm_trader.index.points import PointTable
from llm_trader.market.candles import Times
from llm_trader.timeframe import Millis


@dataclass(frozen=True, slots=True)
class FieldRange:
    """Keeps points with `low <= field <= high`; strictly inside a bound that is `exclusive`."""

    field: str
    low: float = -np.inf
    high: float = np.inf
    exclusive: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SearchQuery:
    """The `limit` points nearest to `vector`, among those in the window and all ranges."""

    symbol: str
    window: Window
    vector: Vectors
    limit: int
    ranges: tuple[FieldRange, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Found points, most similar first; equally similar ones in order of time.

    `cosine` has the shape (hits,); `rows` (hits,) point into `points`, which may hold more.
    `eligible` counts the points that passed window and ranges, found or not. `best_cosine` is the
    greatest of the whole window, whatever the ranges; NaN for an empty one.
    """

    points: PointTable
    rows: npt.NDArray[np.intp]
    cosine: npt.NDArray[np.float32]
    eligible: int
    best_cosine: float


class IngestionRun(msgspec.Struct, frozen=True, kw_only=True):
    """Where points came from; every point carries its run's number."""

    run: int
    build_id: str
    exchange: str | None
    started_at: str


class Collection(msgspec.Struct, frozen=True, kw_only=True):
    """What makes points comparable. Two collections that differ in any of it never mix."""

    schema_version: int
    exchange: str | None
    feature_version: str
    intraday: str
    state_space_id: str
    dimension: int


class SymbolPoints(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    points: int
    first_timestamp_ms: Millis
    last_timestamp_ms: Millis


class IndexInfo(msgspec.Struct, frozen=True, kw_only=True):
    backend: str
    location: str
    collection: Collection
    symbols: list[SymbolPoints]
    runs: list[IngestionRun]


class VectorIndex(Protocol):
    """Points with vectors, by symbol. Errors are `VectorIndexError` and `SymbolNotFoundError`."""

    @property
    def collection(self) -> Collection: ...

    async def search(self, query: SearchQuery) -> Hits:
        """The nearest points; raises `SymbolNotFoundError` for a symbol without any."""
        ...

    async def scan(self, symbol: str, window: Window) -> PointTable:
        """All points of a window, in time order; the arrays are not to be written to."""
        ...

    async def timestamps(self, symbol: str) -> Times:
        """The timestamps of all points of a symbol, increasing; empty if it has none."""
        ...

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        """Register an ingestion run; its number goes into the points that it writes."""
        ...

    async def upsert(self, points: PointTable) -> int:
        """Write points, all or none, replacing those already there; how many were new."""
        ...

    async def info(self) -> IndexInfo: ...
