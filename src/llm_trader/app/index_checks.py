"""Checks an index on sampled queries: leaks, recall, state against text vectors."""

from __future__ import annotations

from msgspec import structs

from llm_trader.app.indexes import (
    open_index,
    open_retriever,
    qdrant_server,
    refuse_another_exchange,
    volatility_model_of,
)
from llm_trader.app.job import Job, blocking
from llm_trader.checks.leak_check import LeakReport, check_for_leaks
from llm_trader.checks.recall import RecallReport, recall
from llm_trader.checks.sampling import Sampling
from llm_trader.checks.vector_comparison import VectorComparison, compare_vectors
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore


@blocking
async def check_index_for_leaks(
    job: Job, symbols: list[str], samples: int, seed: int
) -> LeakReport:
    """Prove on sampled queries that every answer used only data known at its time."""
    settings = job.settings
    with MarketStore.open(settings.market.store) as store:
        async with open_retriever(settings, job.environ) as retriever:
            refuse_another_exchange(store, retriever.index)
            return await check_for_leaks(
                retriever,
                store,
                volatility_model_of(retriever.index, settings),
                symbols,
                samples,
                seed,
                job.progress,
                vector=settings.retrieval.vector,
            )


@blocking
async def compare_index_vectors(
    job: Job, symbols: list[str], sampling: Sampling
) -> list[VectorComparison]:
    """Compare state with text vectors on the points of an index that has both.

    No symbols means all of the index, here and in `measure_recall`.
    """
    async with open_index(job.settings, job.environ) as index:
        symbols = symbols or await _all_symbols(index)
        return [await compare_vectors(index, symbol, sampling, job.progress) for symbol in symbols]


@blocking
async def measure_recall(job: Job, symbols: list[str], sampling: Sampling) -> list[RecallReport]:
    """The share of the nearest points that an approximate search on Qdrant finds."""
    from llm_trader.index.qdrant.backend import QdrantIndex

    # Whether a search is exact belongs to the connection, so the server is opened twice.
    server = qdrant_server(job.settings, job.environ)
    async with (
        await QdrantIndex.open(structs.replace(server, approximate=False)) as exact,
        await QdrantIndex.open(structs.replace(server, approximate=True)) as approximate,
    ):
        symbols = symbols or await _all_symbols(exact)
        return [
            await recall(exact, approximate, symbol, sampling, name=name, progress=job.progress)
            for symbol in symbols
            for name in exact.collection.dimensions
        ]


async def _all_symbols(index: VectorIndex) -> list[str]:
    return [points.symbol for points in (await index.info()).symbols]
