"""Fills a market store from files or a simulation, describes it and checks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from llm_trader.app.job import Job
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.config import MarketConfig
from llm_trader.market.file_import import ImportReport, import_folder
from llm_trader.market.file_rows import FileReading
from llm_trader.market.jumps import Jump
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.market.store_check import StoreCheck
from llm_trader.market.store_info import StoreInfo
from llm_trader.settings.tree import Settings
from llm_trader.storage.environment import DATA_FILE, LOCK_FILE
from llm_trader.timeframe import Millis


class FileMeaning(TypedDict):
    """The contents of a file whose name does not say them; None where it does."""

    symbol: str | None
    kind: str | None
    interval: str | None


def import_market_data(
    job: Job, path: Path, exchange: str, reading: FileReading, meaning: FileMeaning
) -> ImportReport:
    """Import a folder or a file."""
    market = job.settings.market
    with _written_store(market, exchange) as store:
        return import_folder(
            path,
            store,
            exchange=exchange,
            written_at_ms=job.now_ms,
            reading=reading,
            progress=job.progress,
            max_hole_candles=job.settings.snapshot.max_hole_candles,
            **meaning,
        )


@contextmanager
def _written_store(config: MarketConfig, exchange: str) -> Iterator[MarketStore]:
    """A store to write to. A failure before the first write leaves none where there was none."""
    folder = config.store
    existed = (folder / DATA_FILE).exists()
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    is_empty = False
    try:
        with MarketStore.open(
            folder, write=True, exchange=exchange, map_size_bytes=config.map_size_bytes
        ) as store:
            try:
                yield store
            except BaseException:
                is_empty = not store.symbols()
                raise
    except BaseException:
        if is_empty and not existed:
            for name in (DATA_FILE, LOCK_FILE):
                (folder / name).unlink(missing_ok=True)
            for parent in missing:
                parent.rmdir()
        raise


def describe_store(job: Job) -> StoreInfo:
    with MarketStore.open(job.settings.market.store) as store:
        return store.describe(job.now_ms)


def check_store(settings: Settings, *, repair: bool, deep: bool) -> StoreCheck:
    """Compare records with a count of all rows; `repair` corrects differing records."""
    market = settings.market
    with MarketStore.open(
        market.store, write=repair, map_size_bytes=market.map_size_bytes
    ) as store:
        return store.check(repair=repair, deep=deep)


def list_jumps(settings: Settings, symbols: Sequence[str]) -> list[Jump]:
    """The jumps of some symbols' candles, accepted or not; no symbols means all of the store."""
    with MarketStore.open(settings.market.store) as store:
        available = store.symbols()
        for symbol in symbols:
            if symbol not in available:
                raise SymbolNotFoundError(symbol, available)
        return [jump for symbol in symbols or available for jump in store.jumps(symbol)]


def accept_jump(
    settings: Settings, symbol: str, time_ms: Millis, *, withdraw: bool = False
) -> list[Jump]:
    """Accept the jump at a time, or take that back; also those of other candles, such as 4h."""
    market = settings.market
    with MarketStore.open(market.store) as store:
        if symbol not in (available := store.symbols()):
            raise SymbolNotFoundError(symbol, available)
    with MarketStore.open(market.store, write=True, map_size_bytes=market.map_size_bytes) as store:
        return (store.withdraw_jump if withdraw else store.accept_jump)(symbol, time_ms)


def simulate_market(
    job: Job, symbols: Sequence[str], start_ms: Millis, *, days: int, seed: int
) -> StoreInfo:
    """Write a simulated market into a store of the exchange `simulated`."""
    if not symbols:
        raise InvalidInputError("--symbols names no symbol; name one, such as BTCUSDT")
    source, now_ms, progress = f"simulation, seed {seed}", job.now_ms, job.progress
    with _written_store(job.settings.market, "simulated") as store:
        for done, symbol in enumerate(symbols):
            progress("simulating", done, len(symbols))
            market = simulate(symbol, start_ms=start_ms, days=days, seed=seed)
            for candles in (market.intraday, market.four_hour):
                store.write(symbol, candles, source, written_at_ms=now_ms)
            store.write(symbol, market.funding, source, written_at_ms=now_ms)
            store.write(
                symbol,
                market.open_interest,
                source,
                written_at_ms=now_ms,
                interval_ms=market.open_interest_interval_ms,
            )
        progress("simulating", len(symbols), len(symbols))
        return store.describe()
