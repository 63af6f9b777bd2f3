"""Checks an index on sampled queries: leaks, recall, state against text vectors."""

from __future__ import annotations

import msgspec
from msgspec import structs

from llm_trader.app.indexes import (
    backend_of,
    open_index,
    open_retriever,
    qdrant_server,
    refuse_another_exchange,
    snapshot_rules_of,
)
from llm_trader.app.job import Job, blocking
from llm_trader.checks.leak_check import LeakReport, check_for_leaks
from llm_trader.checks.recall import RecallReport, recall
from llm_trader.checks.sampling import Sampling
from llm_trader.checks.vector_comparison import VectorComparison, compare_vectors
from llm_trader.errors import DamagedIndexError, InvalidInputError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.protocol import REBUILD, SymbolPoints, VectorIndex
from llm_trader.market.store import MarketStore


class IndexCheck(msgspec.Struct, frozen=True, kw_only=True):
    """`symbols` is empty where the damage keeps the index from being read."""

    location: str
    symbols: list[SymbolPoints]
    problems: list[str]
    remedy: str | None


@blocking
async def check_index(job: Job) -> IndexCheck:
    """Compare every record of the embedded index with its checksum, and walk through all pages."""
    if backend_of(job.settings) != "embedded":
        raise InvalidInputError(
            "a Qdrant server checks its own files; check an embedded index without --qdrant-url"
        )
    path = job.settings.index.path
    symbols: list[SymbolPoints] = []
    try:
        with EmbeddedIndex.open(path) as index:
            symbols = (await index.info()).symbols
            problems = index.page_problems()
    except DamagedIndexError as error:
        problems = [error.message]
    remedy = f"build it again with: {REBUILD}" if problems else None
    return IndexCheck(location=str(path), symbols=symbols, problems=problems, remedy=remedy)


@blocking
async def check_index_for_leaks(
    job: Job, symbols: list[str], samples: int, seed: int
) -> LeakReport:
    """Prove that answers used only data known at their time, and that stored points still hold."""
    settings = job.settings
    with MarketStore.open(settings.market.store) as store:
        async with open_retriever(settings, job.environ) as retriever:
            refuse_another_exchange(store, retriever.index)
            return await check_for_leaks(
                retriever,
                store,
                snapshot_rules_of(retriever.index, settings),
                symbols,
                samples,
                seed,
                job.progress,
                now_ms=job.now_ms,
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
