"""Ingests a market store into an index."""

from __future__ import annotations

from typing import Final

from llm_trader import __version__
from llm_trader.app.indexes import (
    collection_of,
    open_index,
    refuse_one_folder_for_both,
    snapshot_rules,
    text_space,
    wants_texts,
)
from llm_trader.app.job import Job, blocking
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.index.ingestion import IngestPlan, IngestReport, Spaces, checked_spans, ingest
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import M3, M5, Millis, Timeframe

# Embedding the texts of a day takes seconds; an interruption loses at most one batch of them.
_TEXT_DAYS: Final = 1

BUILD_ID = f"llm-trader-rag {__version__}"


@blocking
async def ingest_from_store(
    job: Job, symbols: list[str], start_ms: Millis, end_ms: Millis, *, rebuild: bool = False
) -> list[IngestReport]:
    """Add the snapshots of a time range to the index; no symbols means all of the store."""
    settings = job.settings
    refuse_one_folder_for_both(settings)
    plan = plan_of(settings, start_ms, end_ms, rebuild=rebuild)

    with MarketStore.open(settings.market.store) as store:
        named = symbols or store.symbols()
        spaces = spaces_of(settings, store, named)
        checked_spans(store, spaces.state, named, plan)  # a refused ingestion leaves no index
        collection = collection_of(spaces, store.exchange)
        async with open_index(settings, job.environ, create=collection) as index:
            return await ingest(
                store,
                index,
                spaces,
                named,
                plan,
                build_id=BUILD_ID,
                now_ms=job.now_ms,
                progress=job.progress,
            )


def plan_of(
    settings: Settings, start_ms: Millis, end_ms: Millis, *, rebuild: bool = False
) -> IngestPlan:
    days = settings.ingest.batch_days
    return IngestPlan(
        start_ms=start_ms,
        end_ms=end_ms,
        interval_ms=settings.snapshot.interval_ms,
        batch_days=min(days, _TEXT_DAYS) if wants_texts(settings) else days,
        rebuild=rebuild,
    )


def spaces_of(settings: Settings, store: MarketStore, symbols: list[str]) -> Spaces:
    """The rules of states and the vector spaces of this version and these settings."""
    space = StateSpace(intraday_timeframe(settings, store, symbols))
    return Spaces(space, text_space(settings), snapshot_rules(settings))


def intraday_timeframe(settings: Settings, store: MarketStore, symbols: list[str]) -> Timeframe:
    """The candles of snapshots: those of the settings, else 3m or 5m, if all symbols have them."""
    if settings.snapshot.intraday != "auto":
        return Timeframe.parse(settings.snapshot.intraday)
    available = store.symbols()
    for symbol in symbols:
        if symbol not in available:
            raise SymbolNotFoundError(symbol, available)
    stored = [set(store.timeframes(symbol)) for symbol in symbols]
    common = set.intersection(*stored) if stored else set()
    for timeframe in (M3, M5):
        if timeframe in common:
            return timeframe
    raise InvalidInputError(
        f"the store at {store.path} has neither 3m nor 5m candles of all of {', '.join(symbols)}; "
        "import them, or choose other candles with --intraday"
    )
