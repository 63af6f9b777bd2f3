"""Stores and indexes to back up, small enough to be made again for each test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from llm_trader.backup.create import create_backup
from llm_trader.backup.manifest import Manifest, Places
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M3
from tests.index.builders import SYMBOL, stored
from tests.market.builders import run_of_candles
from tests.retrieval.builders import COLLECTION, of_symbol, past

CREATED_AT = "2026-03-20T12:00:00Z"
NAME = "nightly"
SYMBOLS = (SYMBOL, "ETHUSDT")
SLOTS = 300
CANDLES = 500
RUN = ("tests", "bybit", "2026-01-01T00:00:00Z")


@dataclass(frozen=True)
class Site:
    """A market store, an index, and where their backups go."""

    folder: Path

    @property
    def market(self) -> Path:
        return self.folder / "market"

    @property
    def index(self) -> Path:
        return self.folder / "index"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def backup(self) -> Path:
        return self.backups / NAME

    @property
    def sources(self) -> Places:
        return Places(market=self.market, index=self.index)

    def targets(self, folder: Path) -> Places:
        return Places(market=folder / "market", index=folder / "index")

    async def back_up(self, name: str = NAME) -> Manifest:
        return await create_backup(self.backups, name, self.sources, created_at=CREATED_AT)


def points(slots: int = SLOTS) -> list[PointTable]:
    return [of_symbol(past(range(slots), seed), name) for seed, name in enumerate(SYMBOLS)]


async def fill(index: VectorIndex) -> None:
    await index.begin_run(*RUN)
    for table in points():
        await index.upsert(table)


def make_site(folder: Path) -> Site:
    site = Site(folder)
    with MarketStore.open(site.market, write=True, exchange="bybit") as store:
        for symbol in SYMBOLS:
            store.write(symbol, run_of_candles(CANDLES, M3), "tests", written_at_ms=1)
    with EmbeddedIndex.create_or_open(site.index, COLLECTION) as index:
        asyncio.run(fill(index))
    return site


async def everything(index: VectorIndex) -> list[PointTable]:
    return [await stored(index, symbol) for symbol in SYMBOLS]
