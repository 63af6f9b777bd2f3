"""A simulated market of three symbols, in a store and an index: about 46 thousand points."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from llm_trader.app.indexes import collection_of
from llm_trader.app.ingestion import BUILD_ID
from llm_trader.embedding.state import StateSpace
from llm_trader.index.asof import visible_window
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import PointTable
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.serving.wire import REQUIRED_STATE
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M5, M15, Millis, parse_rfc3339

SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
DAYS: Final = 182
WARM_UP_DAYS: Final = 21
START_MS: Final = parse_rfc3339("2025-01-01T00:00:00Z")
END_MS: Final = START_MS + DAYS * DAY_MS
SPACE: Final = StateSpace(M5)
EVERYTHING: Final = visible_window(END_MS + DAY_MS, 10_000)


def write_store(folder: Path) -> None:
    write_market(folder, SYMBOLS, DAYS)


def write_market(folder: Path, symbols: Sequence[str], days: int) -> None:
    with MarketStore.open(folder, write=True, exchange="simulated") as store:
        for symbol in symbols:
            made = simulate(symbol, start_ms=START_MS, days=days, seed=1, timeframe=M5)
            at = {"written_at_ms": END_MS}
            store.write(symbol, made.intraday, "simulation", **at)
            store.write(symbol, made.four_hour, "simulation", **at)
            store.write(symbol, made.funding, "simulation", **at)
            store.write(symbol, made.open_interest, "simulation", **at)


def states(symbol: str, days: int) -> SnapshotTable:
    """The snapshots of the last so many days."""
    made = simulate(symbol, start_ms=START_MS, days=DAYS, seed=1, timeframe=M5)
    return build_snapshots(made, np.arange(END_MS - days * DAY_MS, END_MS + 1, M15.ms))


def classic_params(table: SnapshotTable, row: int) -> dict[str, Any]:
    """What the prototype's clients send: ten fields of the state."""
    state = {name: float(table.column(name)[row]) for name in REQUIRED_STATE}
    return {
        "symbol": table.symbol,
        "timestamp": int(table.as_of_ms[row]),
        "current_state": state,
    }


def ten_times(source: EmbeddedIndex, folder: Path, symbol: str) -> EmbeddedIndex:
    """An index with the same points of a symbol ten times over, the copies further back."""
    points = asyncio.run(source.scan(symbol, EVERYTHING))
    index = EmbeddedIndex.create_or_open(folder, collection_of(Spaces(SPACE), "simulated"))
    run = asyncio.run(index.begin_run(BUILD_ID, "simulated", "2025-07-02T00:00:00Z"))
    length: Millis = int(points.timestamp_ms[-1] - points.timestamp_ms[0]) + M15.ms
    for copy in range(9, -1, -1):
        shifted = points.timestamp_ms - copy * length
        table = PointTable.checked(symbol, shifted, points.values, points.vectors, run)
        asyncio.run(index.upsert(table))
    return index
