"""Checks of an index on real queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from llm_trader.app.indexes import index_to_read, refuse_another_exchange, space_of
from llm_trader.app.texts import query_texts
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.leak_check import LeakReport, check_for_leaks
from llm_trader.retrieval.retriever import Retriever
from llm_trader.settings.tree import Settings


@asynccontextmanager
async def retriever_of(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[Retriever]:
    """What answers queries from the index that the settings name."""
    async with (
        index_to_read(settings, environ) as index,
        query_texts(settings, environ, index.collection) as texts,
    ):
        yield Retriever(index, space_of(index.collection), texts)


def check_index_for_leaks(
    settings: Settings,
    environ: Mapping[str, str],
    symbols: list[str],
    samples: int,
    seed: int,
    progress: Callable[[], None],
) -> LeakReport:
    """Prove on sampled queries that every answer used only what was known."""

    async def main() -> LeakReport:
        with MarketStore.open(settings.market.store) as store:
            async with retriever_of(settings, environ) as retriever:
                refuse_another_exchange(store, retriever.index)
                return await check_for_leaks(
                    retriever,
                    store,
                    symbols,
                    samples,
                    seed,
                    progress,
                    vector=settings.retrieval.vector,
                )

    return asyncio.run(main())
