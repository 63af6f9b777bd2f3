"""An index of given points that lives in memory and is only read: what an evaluation asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NoReturn

import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import SymbolNotFoundError, VectorIndexError
from llm_trader.index.asof import Window
from llm_trader.index.memory import SymbolArrays
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.index.protocol import Collection, Hits, IndexInfo, SearchQuery
from llm_trader.market.series_changes import DataMark
from llm_trader.snapshot.outcome import LABELS, mirrored_labels

_FIRST_LABEL: Final = COLUMN_ROW[LABELS[0]]


def mirrored(points: PointTable) -> PointTable:
    """The same states with the opposite outcomes (`mirrored_labels`)."""
    values = points.values.copy()
    values[_FIRST_LABEL:] = mirrored_labels(points.values[_FIRST_LABEL:])
    return replace(points, values=values, version_token=object())


class MemoryIndex:
    """A `VectorIndex` that answers as the embedded one with the same points does."""

    def __init__(self, collection: Collection, tables: Mapping[str, PointTable]) -> None:
        self.collection = collection
        self.location = "memory"
        self._symbols = {symbol: SymbolArrays(table) for symbol, table in tables.items()}

    async def search(self, query: SearchQuery) -> Hits:
        return self._arrays(query.symbol).search(query)

    async def search_many(self, queries: Sequence[SearchQuery]) -> list[Hits]:
        return self._arrays(queries[0].symbol).search_many(queries) if queries else []

    async def scan(self, symbol: str, window: Window, vectors: Iterable[str] = ()) -> PointTable:
        return self._arrays(symbol).scan(window)

    async def fetch(
        self, symbol: str, timestamp_ms: Times, vectors: Iterable[str] = ()
    ) -> PointTable:
        return self._arrays(symbol).fetch(timestamp_ms)

    async def timestamps(self, symbol: str) -> Times:
        arrays = self._symbols.get(symbol)
        return arrays.table.timestamp_ms if arrays else np.empty(0, np.int64)

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        _refuse()

    async def upsert(self, points: PointTable) -> int:
        _refuse()

    async def remove(self, symbol: str, timestamp_ms: Times) -> int:
        _refuse()

    async def data_mark(self, symbol: str) -> DataMark | None:
        return None

    async def set_data_mark(self, symbol: str, mark: DataMark) -> None:
        _refuse()

    async def info(self) -> IndexInfo:
        return IndexInfo(
            backend="memory",
            location=self.location,
            collection=self.collection,
            symbols=[],
            runs=[],
            size_bytes=None,
        )

    def _arrays(self, symbol: str) -> SymbolArrays:
        try:
            return self._symbols[symbol]
        except KeyError:
            raise SymbolNotFoundError(symbol, sorted(self._symbols)) from None


def _refuse() -> NoReturn:
    raise VectorIndexError("an index in memory is only read; write to the index of the settings")
