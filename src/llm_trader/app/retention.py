"""Removes what is older than `market.keep_days` from store and index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec
import numpy as np

from llm_trader.app.indexes import (
    backend_of,
    location_of,
    open_index,
    refuse_another_exchange,
    refuse_one_folder_for_both,
)
from llm_trader.app.job import Job, blocking
from llm_trader.errors import InvalidInputError, StoreLockedError
from llm_trader.index.config import IndexConfig
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.retention import RemovedRows
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.storage.environment import DATA_FILE
from llm_trader.timeframe import DAY_MS, Millis, iso8601

# A transaction of some 10 MB.
_POINTS_AT_ONCE: Final = 5000


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """What was removed, or would be: rows by series, and points of the index by symbol.

    `index_note` says why no points were, where that is so.
    """

    cut: str
    cut_ms: Millis
    dry_run: bool
    series: list[RemovedRows]
    index: str
    index_note: str | None
    points: dict[str, int]


@blocking
async def prune(job: Job, *, dry_run: bool) -> Removal:
    """Remove it from the store, and from the index unless another process writes to that.

    Every ingestion removes the points that are older than what the store keeps, so such a process
    does it itself, or the next one does.
    """
    settings = job.settings
    refuse_one_folder_for_both(settings)
    market = settings.market
    with MarketStore.open(
        market.store, write=not dry_run, map_size_bytes=market.map_size_bytes
    ) as store:
        cut_ms = cut_ms_of(store, market.keep_days, job.now_ms)
        async with _index(job, write=not dry_run) as index:
            points: dict[str, int] = {}
            if isinstance(index, StoreLockedError):
                index_note: str | None = f"{index.message.partition(';')[0]}; it removes the states"
            elif index is None:
                index_note = "there is no index; name it with --index if there is one"
            else:
                refuse_another_exchange(store, index)
                points, index_note = await _remove_points(index, cut_ms, dry_run=dry_run), None
            rows = store.rows_before(cut_ms) if dry_run else store.remove_before(cut_ms)
            return Removal(
                cut=iso8601(cut_ms),
                cut_ms=cut_ms,
                dry_run=dry_run,
                series=rows,
                index=location_of(settings),
                index_note=index_note,
                points=points,
            )


def cut_ms_of(store: MarketStore, keep_days: int, now_ms: Millis) -> Millis:
    """The midnight UTC before which data goes: some days before the newest data of the store."""
    newest_ms = store.newest_ms()
    if newest_ms is None:
        raise InvalidInputError(f"the store at {store.path} is empty; nothing can be removed")
    end_ms = min(newest_ms, now_ms)
    return (end_ms // DAY_MS - keep_days) * DAY_MS


@asynccontextmanager
async def _index(job: Job, *, write: bool) -> AsyncIterator[VectorIndex | StoreLockedError | None]:
    """The index of the settings; None where the default one does not exist, or why not to write."""
    settings = job.settings
    if has_no_index(settings):
        yield None
        return
    async with open_index(settings, job.environ) as index:
        collection = index.collection
        if not write:
            yield index
            return
    async with AsyncExitStack() as opened:
        writable: VectorIndex | StoreLockedError
        try:
            opening = open_index(settings, job.environ, create=collection)
            writable = await opened.enter_async_context(opening)
        except StoreLockedError as error:
            writable = error
        yield writable


def has_no_index(settings: Settings) -> bool:
    path = settings.index.path
    is_default = path == IndexConfig().path
    return backend_of(settings) == "embedded" and is_default and not (path / DATA_FILE).exists()


async def _remove_points(index: VectorIndex, cut_ms: Millis, *, dry_run: bool) -> dict[str, int]:
    removed = {}
    for held in (await index.info()).symbols:
        times = await index.timestamps(held.symbol)
        old = times[
            times <= cut_ms
        ]  # the price of the state at the cut is that of a removed candle
        if not len(old):
            continue
        removed[held.symbol] = len(old)
        if not dry_run:
            for first in range(0, len(old), _POINTS_AT_ONCE):
                await index.remove(held.symbol, np.array(old[first : first + _POINTS_AT_ONCE]))
    return removed
