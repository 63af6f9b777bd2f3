"""A simulated market in a store, and its ingestion."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from llm_trader.app.indexes import collection_of
from llm_trader.embedding.state import StateSpace
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import IngestPlan, IngestReport, Spaces, ingest
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, M5, Millis
from tests.index.builders import SLOT_MS, START_MS, SYMBOL

DAYS = 36
END_MS: Millis = START_MS + DAYS * DAY_MS
NOW_MS: Millis = END_MS + DAY_MS
WARM_MS: Millis = START_MS + 20 * DAY_MS  # 120 candles of 4h have closed

SPACE = StateSpace(M5)
COLLECTION = collection_of(Spaces(SPACE), "bybit")


@cache
def market(symbol: str = SYMBOL) -> MarketHistory:
    return simulate(symbol, start_ms=START_MS, days=DAYS, seed=7, timeframe=M5)


def write(store: MarketStore, history: MarketHistory) -> None:
    name = history.symbol
    store.write(name, history.intraday, "simulated", written_at_ms=END_MS)
    store.write(name, history.four_hour, "simulated", written_at_ms=END_MS)
    store.write(name, history.funding, "simulated", written_at_ms=END_MS)
    store.write(
        name,
        history.open_interest,
        "simulated",
        written_at_ms=END_MS,
        interval_ms=history.open_interest_interval_ms,
    )


def make_store(folder: Path, *histories: MarketHistory) -> Path:
    with MarketStore.open(folder, write=True, exchange="bybit") as store:
        for history in histories:
            write(store, history)
    return folder


def plan(**changes: Any) -> IngestPlan:
    plain = {"start_ms": WARM_MS, "end_ms": END_MS, "interval_ms": SLOT_MS, "batch_days": 30}
    return IngestPlan(**(plain | changes))


async def ingested(
    store_path: Path, index: EmbeddedIndex, symbols: tuple[str, ...] = (SYMBOL,), **changes: Any
) -> list[IngestReport]:
    """One run of ingestion; `changes` are of the plan, `progress` and `now_ms` are passed on."""
    told = {name: changes.pop(name) for name in ("progress", "now_ms") if name in changes}
    with MarketStore.open(store_path) as store:
        return await ingest(
            store,
            index,
            Spaces(SPACE),
            list(symbols),
            plan(**changes),
            build_id="tests",
            **({"now_ms": NOW_MS} | told),
        )


_INGESTION = """
import asyncio
from llm_trader.index.embedded import EmbeddedIndex
from tests.index.markets import COLLECTION, ingested

async def main():
    def report_and_wait(*words):
        say(*words)
        wait()

    with EmbeddedIndex.create_or_open(Path(sys.argv[2]), COLLECTION) as index:
        (report,) = await ingested(path, index, batch_days=1, progress=report_and_wait)
        say(COUNT, getattr(report, COUNT))

asyncio.run(main())
"""


def ingestion_program(count: str) -> str:
    """A process that ingests a day at a time, waits after each, and says that count at the end."""
    return f"COUNT = {count!r}\n" + _INGESTION
