"""The query server: it serves index and market store over JSON-RPC, by TCP, HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog

from llm_trader import __version__
from llm_trader.app.index_watch import watched
from llm_trader.app.indexes import (
    open_retriever,
    refuse_another_exchange,
    refuse_one_folder_for_both,
    snapshot_rules_of,
)
from llm_trader.app.job import checked_text
from llm_trader.errors import ConfigurationError
from llm_trader.market.config import MarketConfig
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.calibration import (
    Calibration,
    LoadedCalibration,
    read_calibration,
    scope_of,
)
from llm_trader.retrieval.retriever import Retriever
from llm_trader.rpc.admission import Admission, TokenCheck, check_binding
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.observer import log_observers
from llm_trader.rpc.server import Door, RpcServer, run, serve, stop_on_signals
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.evidence_push import EvidencePusher
from llm_trader.serving.methods import RagMethods
from llm_trader.serving.readiness import ReadinessProbe
from llm_trader.serving.subscriptions import Subscriptions
from llm_trader.serving.wire import RAG_ERRORS
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis, iso8601

if TYPE_CHECKING:
    from llm_trader.serving.graphql.endpoint import GraphQlEndpoint

_log = structlog.get_logger(__name__)


def serve_forever(
    settings: Settings, environ: Mapping[str, str], clock: Callable[[], Millis]
) -> None:
    """Answer queries until SIGTERM or SIGINT, then finish the running ones.

    The market store is optional: without one, queries must contain their state.
    """

    async def main() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        async with query_server(settings, environ, clock) as server:
            # Objects made at the start live as long as the server; the collector can skip them.
            gc.collect()
            gc.freeze()
            await serve(server, stop)

    run(main())


@asynccontextmanager
async def query_server(
    settings: Settings, environ: Mapping[str, str], clock: Callable[[], Millis] | None = None
) -> AsyncIterator[RpcServer]:
    """A server that is not listening yet, with its index and market store.

    `clock` gives the present time, for the ages in `rag.stats`.
    """
    refuse_one_folder_for_both(settings)
    serving = settings.serving
    tokens = _tokens(serving, environ)
    # Before anything is opened: a mistake in the flags should not cost the time of loading.
    check_binding(serving.host, tokens.required, serving.allow_unauthenticated_remote)
    calibration = _calibration(settings)
    async with (
        open_retriever(settings, environ, calibration) as retriever,
        watched(retriever.index),
    ):
        if calibration is not None:
            _log_calibration(calibration.calibration, retriever, settings)
        if not (await retriever.index.info()).symbols:
            _log.warning(
                "index_empty",
                location=retriever.index.location,
                effect="every query is refused until rag-ingest has added states",
            )
        with ExitStack() as opened:
            market = _market(settings, retriever, opened)
            methods = RagMethods(
                retriever,
                market,
                defaults=settings.retrieval.search(),
                config=serving,
                version=__version__,
                market_location=str(settings.market.store) if market else None,
                clock=clock,
            ).methods()
            subscriptions = Subscriptions(market, serving)
            methods += subscriptions.methods()
            probe = ReadinessProbe(retriever, market, serving, clock)
            complete = with_builtin_methods(
                methods,
                title="LLM Trader RAG",
                version=__version__,
                tokens=tokens,
                errors=RAG_ERRORS,
            )
            dispatcher = Dispatcher(complete, errors=RAG_ERRORS, observers=log_observers())
            gate = Admission(serving, tokens)
            doors = []
            if serving.http:
                doors.append(_http_door(dispatcher, gate, serving, tokens, probe))
            server = RpcServer(dispatcher, serving, gate=gate, doors=doors)
            async with EvidencePusher(subscriptions, dispatcher, gate, serving).running():
                yield server


def _http_door(
    dispatcher: Dispatcher,
    gate: Admission,
    config: ServingConfig,
    tokens: TokenCheck,
    probe: ReadinessProbe,
) -> Door:
    """Every path that HTTP answers is in this list."""
    # Its libraries take 100 ms to import.
    from llm_trader.rpc.http.app import JSON, RpcOverHttp, http_application
    from llm_trader.rpc.http.server import HttpServer

    async def live(authenticated: bool) -> tuple[int, Any]:
        return 200, {"live": True}

    async def ready(authenticated: bool) -> tuple[int, Any]:
        readiness = await probe.readiness()
        # The reasons name folders and addresses.
        shown = readiness if authenticated else {"ready": readiness.ready}
        return (200 if readiness.ready else 503), shown

    async def describe(authenticated: bool) -> tuple[int, Any]:
        return 200, await dispatcher.description()

    rpc = RpcOverHttp(dispatcher, gate, config, tokens)
    routes = [
        *rpc.routes(),
        rpc.page("/livez", live, open_to_all=True),
        rpc.page("/readyz", ready, open_to_all=True),
        rpc.page("/openrpc.json", describe),
    ]
    if config.graphql:
        graphql = _graphql(dispatcher, gate, config)
        routes.append(rpc.documents("/graphql", graphql.answer, frozenset({JSON})))
    return HttpServer(http_application(routes, config), config, gate)


def _graphql(dispatcher: Dispatcher, gate: Admission, config: ServingConfig) -> GraphQlEndpoint:
    """Raises `ConfigurationError` where the extra `graphql` is not installed."""
    try:
        # Its libraries take 0.8 s to import.
        from llm_trader.serving.graphql.endpoint import GraphQlEndpoint
    except ImportError as error:
        raise ConfigurationError(
            f"GraphQL needs strawberry ({error}): pip install 'llm-trader-rag[graphql]', or leave "
            "out --graphql (serving.graphql)"
        ) from error
    return GraphQlEndpoint(dispatcher, gate, config)


def _tokens(config: RpcConfig, environ: Mapping[str, str]) -> TokenCheck:
    name = config.auth_tokens_env
    if name is None:
        return TokenCheck()
    value = checked_text(environ.get(name, ""), name, "serving.auth_tokens_env")
    tokens = [token.strip() for token in value.split(",") if token.strip()]
    if not tokens:
        raise ConfigurationError(
            f"serving.auth_tokens_env names {name}, but that environment variable holds no token"
        )
    return TokenCheck(tokens)


def _calibration(settings: Settings) -> LoadedCalibration | None:
    """None if none is set. Raises `ConfigurationError` if the file is not a calibration."""
    path = settings.retrieval.calibration
    if path is None:
        return None
    return LoadedCalibration(read_calibration(path), settings.retrieval.max_calibration_age_days)


def _log_calibration(calibration: Calibration, retriever: Retriever, settings: Settings) -> None:
    """Log the calibration, and why queries will not use it, if so; each reply says so, too."""
    index = retriever.index.collection
    _log.info(
        "calibration_loaded", digest=calibration.digest, known_by=iso8601(calibration.known_by_ms)
    )
    # All symbols share the vectors and the search, so the first one tells what differs.
    for symbol in calibration.scope.symbols[:1]:
        if objections := calibration.scope.differences(scope_of(index, symbol, settings.retrieval)):
            _log.warning("calibration_not_used", digest=calibration.digest, because=objections)


def _market(settings: Settings, retriever: Retriever, opened: ExitStack) -> SnapshotSource | None:
    path = settings.market.store
    if not path.exists():
        if path != MarketConfig().store:
            raise ConfigurationError(
                f"there is no market store at {path}; correct --store (market.store), or make one "
                f"with: llm-trader data import <folder> --store {path}"
            )
        _log.warning(
            "market_store_missing", path=str(path), effect="queries must contain their whole state"
        )
        return None
    store = opened.enter_context(MarketStore.open(path))
    refuse_another_exchange(store, retriever.index)
    rules = snapshot_rules_of(retriever.index, settings)
    return SnapshotSource(store, retriever.space.intraday, settings.snapshot.interval_ms, rules)
