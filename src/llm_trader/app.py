"""The one place that wires the rooms together, from settings."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import structlog

from llm_trader import __version__
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import ConfigurationError, InvalidInputError, SymbolNotFoundError
from llm_trader.index.embedded import SCHEMA_VERSION, EmbeddedIndex
from llm_trader.index.ingestion import IngestPlan, IngestReport, Progress, Spaces, ingest
from llm_trader.index.protocol import Collection
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.leak_check import LeakReport, check_for_leaks
from llm_trader.retrieval.retriever import QueryConfig, Retriever
from llm_trader.serving.auth import TokenCheck, check_binding
from llm_trader.serving.builtin import with_builtin_methods
from llm_trader.serving.limits import ServerLimits
from llm_trader.serving.methods import RagMethods
from llm_trader.serving.rpc import Dispatcher
from llm_trader.serving.server import RpcServer, run, serve, stop_on_signals
from llm_trader.settings.tree import ServingSettings, Settings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import M3, M5, MINUTE_MS, Millis, Timeframe, iso8601

BUILD_ID = f"llm-trader-rag {__version__}"


def ingest_from_store(
    settings: Settings,
    symbols: list[str],
    start_ms: Millis,
    end_ms: Millis,
    now_ms: Millis,
    progress: Progress,
    *,
    rebuild: bool = False,
) -> list[IngestReport]:
    """Add the snapshots of a time range to the index; no symbols means all of the store."""
    _refuse_one_folder_for_both(settings)
    plan = IngestPlan(
        start_ms=start_ms,
        end_ms=end_ms,
        interval_ms=settings.snapshot.interval_minutes * MINUTE_MS,
        batch_days=settings.ingest.batch_days,
        rebuild=rebuild,
    )
    with MarketStore.open(settings.market.store) as store:
        symbols = symbols or store.symbols()
        space = StateSpace(intraday_timeframe(settings, store, symbols))
        collection = collection_of(space, store.exchange)
        with EmbeddedIndex.create_or_open(settings.index.path, collection) as index:
            work = ingest(
                store,
                index,
                Spaces(space),
                symbols,
                plan,
                build_id=BUILD_ID,
                started_at=iso8601(now_ms),
                progress=progress,
            )
            return asyncio.run(work)


def check_index_for_leaks(
    settings: Settings, symbols: list[str], samples: int, seed: int, progress: Callable[[], None]
) -> LeakReport:
    """Prove on sampled queries that every answer used only what was known."""
    with ExitStack() as opened:
        store = opened.enter_context(MarketStore.open(settings.market.store))
        index = opened.enter_context(EmbeddedIndex.open(settings.index.path))
        _refuse_another_exchange(settings, store, index.collection)
        retriever = Retriever(index, space_of(index.collection))
        return asyncio.run(check_for_leaks(retriever, store, symbols, samples, seed, progress))


def serve_forever(
    settings: Settings,
    environ: Mapping[str, str],
    on_ready: Callable[[str, int], None] | None = None,
) -> None:
    """Answer queries until SIGTERM or SIGINT, then finish what is under way.

    The market store is optional: without one, queries must bring their state along.
    """
    with ExitStack() as opened:
        server = query_server(settings, environ, opened)
        # What has been made by now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

        async def main() -> None:
            stop = asyncio.Event()
            stop_on_signals(stop)
            await serve(server, stop, on_ready)

        run(main())


def query_server(settings: Settings, environ: Mapping[str, str], opened: ExitStack) -> RpcServer:
    """A server that is not listening yet; what it opens is closed with `opened`."""
    _refuse_one_folder_for_both(settings)
    serving = settings.serving
    tokens = _tokens(serving, environ)
    check_binding(serving.host, tokens.required, serving.allow_unauthenticated_remote)
    index = opened.enter_context(EmbeddedIndex.open(settings.index.path))
    space = space_of(index.collection)
    market = _market(settings, space, index.collection, opened)
    methods = RagMethods(
        Retriever(index, space),
        market,
        defaults=QueryConfig(**settings.retrieval.model_dump()),
        min_matches=serving.min_matches,
        max_data_age_ms=serving.max_data_age_minutes * MINUTE_MS,
        version=__version__,
        market_location=str(settings.market.store) if market else None,
    ).methods()
    complete = with_builtin_methods(
        methods, title="LLM Trader RAG", version=__version__, tokens=tokens
    )
    return RpcServer(
        Dispatcher(complete),
        host=serving.host,
        port=serving.port,
        limits=_limits(serving),
        tokens=tokens,
    )


def intraday_timeframe(settings: Settings, store: MarketStore, symbols: list[str]) -> Timeframe:
    """The candles that snapshots are made of: as set, or the 3m or 5m that all symbols have."""
    if settings.snapshot.intraday != "auto":
        return Timeframe.parse(settings.snapshot.intraday)
    available = store.symbols()
    for symbol in symbols:
        if symbol not in available:
            raise SymbolNotFoundError(symbol, available)
    known = [set(store.timeframes(symbol)) for symbol in symbols]
    common = set.intersection(*known) if known else set()
    for timeframe in (M3, M5):
        if timeframe in common:
            return timeframe
    raise InvalidInputError(
        f"the store at {store.path} has neither 3m nor 5m candles of all of {', '.join(symbols)}; "
        "import them, or name the candles with --intraday"
    )


def _refuse_one_folder_for_both(settings: Settings) -> None:
    if settings.market.store.resolve() == settings.index.path.resolve():
        raise ConfigurationError(
            f"{settings.index.path} is named as both the market store and the index; "
            "they are two folders"
        )


def collection_of(space: StateSpace, exchange: str | None) -> Collection:
    return Collection(
        schema_version=SCHEMA_VERSION,
        exchange=exchange,
        feature_version=space.feature_version,
        intraday=str(space.intraday),
        state_space_id=space.space_id,
        dimension=space.dimension,
    )


def space_of(collection: Collection) -> StateSpace:
    return StateSpace(Timeframe.parse(collection.intraday))


def _market(
    settings: Settings, space: StateSpace, collection: Collection, opened: ExitStack
) -> SnapshotSource | None:
    path: Path = settings.market.store
    if not path.exists():
        structlog.get_logger(__name__).warning(
            "market_store_missing", path=str(path), effect="queries must bring their whole state"
        )
        return None
    store = opened.enter_context(MarketStore.open(path))
    _refuse_another_exchange(settings, store, collection)
    return SnapshotSource(store, space.intraday, settings.snapshot.interval_minutes * MINUTE_MS)


def _refuse_another_exchange(
    settings: Settings, store: MarketStore, collection: Collection
) -> None:
    if store.exchange != collection.exchange:
        raise ConfigurationError(
            f"the market store at {store.path} is of {store.exchange or 'no known exchange'}, "
            f"the index at {settings.index.path} of {collection.exchange}; "
            "name the ones that belong together"
        )


def _tokens(serving: ServingSettings, environ: Mapping[str, str]) -> TokenCheck:
    name = serving.auth_tokens_env
    if name is None:
        return TokenCheck()
    tokens = [token.strip() for token in environ.get(name, "").split(",") if token.strip()]
    if not tokens:
        raise ConfigurationError(
            f"serving.auth_tokens_env names {name}, but that environment variable holds no token"
        )
    return TokenCheck(tokens)


def _limits(serving: ServingSettings) -> ServerLimits:
    return ServerLimits(
        max_document_bytes=serving.max_frame_kib << 10,
        max_connections=serving.max_connections,
        max_in_flight=serving.max_in_flight,
        max_in_flight_per_connection=serving.max_in_flight_per_connection,
        frame_deadline_s=serving.frame_timeout_s,
        idle_timeout_s=serving.idle_timeout_s,
        request_deadline_s=serving.request_deadline_s,
        write_timeout_s=serving.write_timeout_s,
        drain_timeout_s=serving.drain_timeout_s,
        rate_per_s=serving.rate_limit_per_s or None,
    )
