"""The query server: it serves index and market store over JSON-RPC, by TCP, HTTP and WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from llm_trader import __version__
from llm_trader.app.garbage_collection import spare_long_lived_objects
from llm_trader.app.http_door import http_door, mcp_endpoint
from llm_trader.app.index_watch import watched
from llm_trader.app.indexes import (
    loaded_calibration,
    open_retriever,
    refuse_another_exchange,
    refuse_one_folder_for_both,
    secret,
    snapshot_rules_of,
)
from llm_trader.app.job import checked_text
from llm_trader.app.paper_account import LedgerReader
from llm_trader.app.reloading import SettingsFile, follow_settings
from llm_trader.app.request_observers import metrics_of, request_observers, served_forecasts
from llm_trader.background import in_background
from llm_trader.errors import ConfigurationError
from llm_trader.index.protocol import VectorIndex
from llm_trader.logs import configure_logging
from llm_trader.market.config import MarketConfig
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.calibration import (
    Calibration,
    scope_of,
)
from llm_trader.retrieval.retriever import Retriever
from llm_trader.rpc.admission import Admission, check_binding
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.client_limits import ClientLimits
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, Method
from llm_trader.rpc.key_file import read_keys
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.server import RpcServer, run, serve, stop_on_signals
from llm_trader.rpc.shared_limits import RedisLevels
from llm_trader.rpc.slot_sockets import SlotSockets
from llm_trader.rpc.tls import ServerTls, tls_of
from llm_trader.serving.admin import AdminMethods
from llm_trader.serving.decisions import DecisionReader
from llm_trader.serving.evidence_push import EvidencePusher
from llm_trader.serving.mcp.calls import ToolCalls
from llm_trader.serving.methods import RagMethods
from llm_trader.serving.page.methods import PageMethods
from llm_trader.serving.pattern_queries import PatternQueries
from llm_trader.serving.readiness import ReadinessProbe
from llm_trader.serving.subscriptions import Subscriptions
from llm_trader.serving.wire import RAG_ERRORS
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.storage.file_follower import FileFollower, following
from llm_trader.timeframe import Millis, iso8601

if TYPE_CHECKING:
    from llm_trader.serving.mcp.endpoint import McpEndpoint
    from llm_trader.serving.metrics.exposition import ServerMetrics

_log = structlog.get_logger(__name__)


@dataclass
class ServerParts:
    """A server with what a reload of the settings changes in it."""

    server: RpcServer
    gate: Admission
    rag: RagMethods
    probe: ReadinessProbe
    subscriptions: Subscriptions
    admin: AdminMethods
    metrics: ServerMetrics | None
    followed: Sequence[FileFollower]
    tools: ToolCalls

    def configure(self, settings: Settings) -> list[str]:
        """Applies what can change while it runs; returns what went wrong."""
        calibration = loaded_calibration(settings)
        self.gate.configure(settings.serving)
        queries = self.rag.queries
        queries.retriever.calibration = calibration
        queries.defaults = settings.retrieval.search()
        queries.config = self.probe.config = self.subscriptions.config = settings.serving
        configure_logging(settings.logging.level, settings.logging.format)
        if calibration is not None:
            _log_calibration(calibration.calibration, queries.retriever, settings)
        problems = [follower.look(force=True) for follower in self.followed]
        return [problem for problem in problems if problem is not None]


def serve_forever(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Callable[[], Millis],
    read_settings: Callable[[], Settings] | None = None,
) -> None:
    """Answer queries until SIGTERM or SIGINT, then finish the running ones.

    The market store is optional: without one, queries must contain their state. SIGHUP reads the
    settings again.
    """

    async def main() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        async with server_parts(settings, environ, clock) as parts:
            spare_long_lived_objects()
            if read_settings is not None:
                follow_settings(parts, SettingsFile(settings, read_settings, clock))
            await serve(parts.server, stop)

    run(main())


@asynccontextmanager
async def query_server(
    settings: Settings, environ: Mapping[str, str], clock: Callable[[], Millis] | None = None
) -> AsyncIterator[RpcServer]:
    """A server that is not listening yet, with its index and market store."""
    async with server_parts(settings, environ, clock) as parts:
        yield parts.server


@asynccontextmanager
async def server_parts(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Callable[[], Millis] | None = None,
    sockets: SlotSockets | None = None,
) -> AsyncIterator[ServerParts]:
    """The parts of a server that is not listening yet, on `sockets` of a parent if there are some.

    `clock` gives the present time, for the ages in `rag.stats`.
    """
    refuse_one_folder_for_both(settings)
    serving = settings.serving
    # Before anything is opened: a mistake in the flags should not cost the time of loading.
    keys, tls, followed = access(serving, environ, clock)
    calibration = loaded_calibration(settings)
    async with (
        open_retriever(settings, environ, calibration) as retriever,
        watched(retriever.index),
        following(*followed),
        AsyncExitStack() as opened,
    ):
        if calibration is not None:
            _log_calibration(calibration.calibration, retriever, settings)
        await _log_empty_index(retriever.index)
        market = _market(settings, retriever, opened)
        rag = _rag_methods(settings, retriever, market, clock)
        subscriptions, admin = Subscriptions(market, serving), AdminMethods()
        methods = _all_methods(settings, rag, subscriptions, admin, opened)
        forecasts = rag.queries.forecasts = served_forecasts(settings, market, clock, opened)
        gate = Admission(serving, keys, await client_limits(serving, environ, opened))
        metrics = metrics_of(rag, gate)
        observers = request_observers(settings, methods, metrics, clock, opened)
        dispatcher = Dispatcher(methods, errors=RAG_ERRORS, observers=observers)
        in_qdrant = settings.index.qdrant.url is not None
        probe = ReadinessProbe(retriever, market, serving, clock, in_qdrant=in_qdrant)
        tools = ToolCalls(dispatcher, gate, rag.queries, __version__, clock)
        doors = []
        if serving.http:
            mcp = await _running_mcp(tools, opened) if serving.mcp else None
            doors.append(http_door(dispatcher, gate, rag, probe, metrics, mcp, tls, sockets))
        server = RpcServer(dispatcher, serving, gate=gate, doors=doors, tls=tls, sockets=sockets)
        if forecasts is not None:
            await opened.enter_async_context(in_background(forecasts.follow()))
        async with in_background(EvidencePusher(subscriptions, dispatcher, gate).run()):
            yield ServerParts(
                server, gate, rag, probe, subscriptions, admin, metrics, followed, tools
            )


def access(
    config: RpcConfig,
    environ: Mapping[str, str],
    clock: Callable[[], Millis] | None,
    section: str = "serving",
) -> tuple[KeyRing, ServerTls | None, list[FileFollower]]:
    """Keys and certificate, and the files of both, which a running server follows.

    Each file is read now for the first time.
    """
    keys = KeyRing(tokens_of(config, environ, section), now_ms=clock)
    tls = tls_of(config, clock)
    followed = []
    if path := config.keys_file:
        followed.append(FileFollower("keys", [path], lambda: keys.follow_file(read_keys(path))))
    if tls is not None:
        followed.append(FileFollower("certificate", tls.paths, tls.load))
    open_to_all = config.allow_unauthenticated_remote
    check_binding(config.host, keys.required, open_to_all, encrypted=tls is not None)
    return keys, tls, followed


async def _running_mcp(tools: ToolCalls, opened: AsyncExitStack) -> McpEndpoint:
    endpoint = mcp_endpoint(tools)
    await opened.enter_async_context(endpoint.running())
    return endpoint


def _rag_methods(
    settings: Settings,
    retriever: Retriever,
    market: SnapshotSource | None,
    clock: Callable[[], Millis] | None,
) -> RagMethods:
    defaults = settings.retrieval.search()
    return RagMethods(
        PatternQueries(retriever, market, defaults, settings.serving),
        version=__version__,
        market_location=str(settings.market.store) if market else None,
        clock=clock,
    )


def _all_methods(
    settings: Settings,
    rag: RagMethods,
    subscriptions: Subscriptions,
    admin: AdminMethods,
    opened: AsyncExitStack,
) -> list[Method]:
    """Those of every reader that the server has, and the built-in ones."""
    decisions = opened.enter_context(closing(DecisionReader(settings.decisions.record)))
    page = PageMethods(rag, LedgerReader(settings.workflow.paper.ledger))
    sources = (rag, decisions, page, subscriptions, admin)
    return with_builtin_methods(
        [method for source in sources for method in source.methods()],
        title="LLM Trader RAG",
        version=__version__,
        errors=RAG_ERRORS,
    )


async def _log_empty_index(index: VectorIndex) -> None:
    if not (await index.info()).symbols:
        _log.warning(
            "index_empty",
            location=index.location,
            effect="every query is refused until rag-ingest has added states",
        )


async def client_limits(
    config: RpcConfig, environ: Mapping[str, str], opened: AsyncExitStack
) -> ClientLimits:
    """The limits of clients, in Redis where the settings name one."""
    shared = None
    if config.limits_redis_url is not None:
        password = secret(
            environ, config.limits_redis_password_env, "serving.limits_redis_password_env"
        )
        shared = await opened.enter_async_context(aclosing(RedisLevels(config, password=password)))
    return await opened.enter_async_context(aclosing(ClientLimits(config, shared)))


def tokens_of(config: RpcConfig, environ: Mapping[str, str], section: str = "serving") -> list[str]:
    """The tokens of the environment. Raises `ConfigurationError` if its variable holds none."""
    name = config.auth_tokens_env
    if name is None:
        return []
    value = checked_text(environ.get(name, ""), name, f"{section}.auth_tokens_env")
    tokens = [token.strip() for token in value.split(",") if token.strip()]
    if not tokens:
        raise ConfigurationError(
            f"{section}.auth_tokens_env names {name}, but that environment variable holds no token"
        )
    return tokens


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


def _market(
    settings: Settings, retriever: Retriever, opened: AsyncExitStack
) -> SnapshotSource | None:
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
