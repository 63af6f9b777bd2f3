"""Checks of an index on real queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from msgspec import structs

from llm_trader.app.indexes import (
    index_to_read,
    qdrant_server,
    refuse_another_exchange,
)
from llm_trader.app.text_model import query_texts
from llm_trader.checks.leak_check import LeakReport, check_for_leaks
from llm_trader.checks.recall import RecallReport, recall
from llm_trader.checks.vector_comparison import VectorComparison, compare_vectors
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.calibration import LoadedCalibration
from llm_trader.retrieval.retriever import Retriever
from llm_trader.settings.tree import Settings


class Sampling(NamedTuple):
    """Which queries are sampled; no symbols means all of the index."""

    symbols: list[str]
    k: int
    samples: int
    lookback_days: int
    seed: int


@asynccontextmanager
async def retriever_of(
    settings: Settings,
    environ: Mapping[str, str],
    calibration: LoadedCalibration | None = None,
) -> AsyncIterator[Retriever]:
    """What answers queries from the index that the settings name."""
    async with (
        index_to_read(settings, environ) as index,
        query_texts(settings, environ, index.collection) as texts,
    ):
        yield Retriever(index, index.collection.state_space(), texts, calibration)


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


def compare_index_vectors(
    settings: Settings,
    environ: Mapping[str, str],
    sampling: Sampling,
    progress: Callable[[], None],
) -> list[VectorComparison]:
    """State against text, on the points of an index that has both."""

    async def main() -> list[VectorComparison]:
        async with index_to_read(settings, environ) as index:
            return [
                await compare_vectors(
                    index,
                    index.collection.state_space(),
                    symbol,
                    k=sampling.k,
                    samples=sampling.samples,
                    lookback_days=sampling.lookback_days,
                    seed=sampling.seed,
                    progress=progress,
                )
                for symbol in await _symbols(index, sampling)
            ]

    return asyncio.run(main())


def measure_recall(
    settings: Settings,
    environ: Mapping[str, str],
    sampling: Sampling,
    progress: Callable[[], None],
) -> list[RecallReport]:
    """How much of the exact nearest an approximate search on Qdrant finds, by symbol and vector."""
    from llm_trader.index.qdrant.backend import QdrantIndex

    server = qdrant_server(settings, environ)

    async def main() -> list[RecallReport]:
        async with (
            await QdrantIndex.open(structs.replace(server, approximate=False)) as exact,
            await QdrantIndex.open(structs.replace(server, approximate=True)) as approximate,
        ):
            return [
                await recall(
                    exact,
                    approximate,
                    symbol,
                    lookback_days=sampling.lookback_days,
                    k=sampling.k,
                    samples=sampling.samples,
                    seed=sampling.seed,
                    name=name,
                    progress=progress,
                )
                for symbol in await _symbols(exact, sampling)
                for name in exact.collection.dimensions
            ]

    return asyncio.run(main())


async def _symbols(index: VectorIndex, sampling: Sampling) -> list[str]:
    return sampling.symbols or [of.symbol for of in (await index.info()).symbols]
