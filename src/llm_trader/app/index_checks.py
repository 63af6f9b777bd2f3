"""Checks of an index on sampled queries: leaks, recall, and how its vectors compare."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import structs

from llm_trader.app.indexes import index_to_read, qdrant_server, refuse_another_exchange
from llm_trader.app.retrievers import open_retriever
from llm_trader.checks.leak_check import LeakReport, check_for_leaks
from llm_trader.checks.recall import RecallReport, recall
from llm_trader.checks.vector_comparison import VectorComparison, compare_vectors
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, StepCounter
from llm_trader.settings.tree import Settings


class Sampling(NamedTuple):
    """Which queries are sampled; no symbols means all of the index."""

    symbols: list[str]
    k: int
    samples: int
    lookback_days: int
    seed: int


def check_index_for_leaks(
    settings: Settings,
    environ: Mapping[str, str],
    symbols: list[str],
    samples: int,
    seed: int,
    progress: Progress,
) -> LeakReport:
    """Prove on sampled queries that every answer used only what was known."""
    count = StepCounter(progress, "checking", samples)

    async def main() -> LeakReport:
        with MarketStore.open(settings.market.store) as store:
            async with open_retriever(settings, environ) as retriever:
                refuse_another_exchange(store, retriever.index)
                return await check_for_leaks(
                    retriever,
                    store,
                    symbols,
                    samples,
                    seed,
                    lambda: count(1),
                    vector=settings.retrieval.vector,
                )

    return asyncio.run(main())


def compare_index_vectors(
    settings: Settings, environ: Mapping[str, str], sampling: Sampling, progress: Progress
) -> list[VectorComparison]:
    """State against text, on the points of an index that has both."""

    async def main() -> list[VectorComparison]:
        async with index_to_read(settings, environ) as index:
            symbols = await _symbols(index, sampling)
            count = StepCounter(progress, "comparing", sampling.samples * len(symbols))
            return [
                await compare_vectors(
                    index,
                    index.collection.state_space(),
                    symbol,
                    k=sampling.k,
                    samples=sampling.samples,
                    lookback_days=sampling.lookback_days,
                    seed=sampling.seed,
                    progress=lambda: count(1),
                )
                for symbol in symbols
            ]

    return asyncio.run(main())


def measure_recall(
    settings: Settings, environ: Mapping[str, str], sampling: Sampling, progress: Progress
) -> list[RecallReport]:
    """How much of the exact nearest an approximate search on Qdrant finds, by symbol and vector."""
    from llm_trader.index.qdrant.backend import QdrantIndex

    server = qdrant_server(settings, environ)

    async def main() -> list[RecallReport]:
        async with (
            await QdrantIndex.open(structs.replace(server, approximate=False)) as exact,
            await QdrantIndex.open(structs.replace(server, approximate=True)) as approximate,
        ):
            vectors = list(exact.collection.dimensions)
            symbols = await _symbols(exact, sampling)
            total = sampling.samples * len(symbols) * len(vectors)
            count = StepCounter(progress, "comparing", total)
            return [
                await recall(
                    exact,
                    approximate,
                    symbol,
                    lookback_days=sampling.lookback_days,
                    k=sampling.k,
                    samples=sampling.samples,
                    seed=sampling.seed,
                    name=vector,
                    progress=lambda: count(1),
                )
                for symbol in symbols
                for vector in vectors
            ]

    return asyncio.run(main())


async def _symbols(index: VectorIndex, sampling: Sampling) -> list[str]:
    return sampling.symbols or [points.symbol for points in (await index.info()).symbols]
