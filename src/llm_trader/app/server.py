"""The query server: index and market store behind JSON-RPC."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import structlog

from llm_trader import __version__
from llm_trader.app.calibration import loaded_calibration, log_loaded, query_defaults
from llm_trader.app.checks import retriever_of
from llm_trader.app.indexes import refuse_another_exchange, refuse_one_folder_for_both
from llm_trader.errors import ConfigurationError
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.retriever import Retriever
from llm_trader.rpc.auth import TokenCheck, check_binding
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.limits import ServerLimits
from llm_trader.rpc.server import RpcServer, run, serve, stop_on_signals
from llm_trader.serving.methods import RagMethods
from llm_trader.settings.tree import ServingSettings, Settings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import MINUTE_MS


def serve_forever(
    settings: Settings,
    environ: Mapping[str, str],
    on_ready: Callable[[str, int], None] | None = None,
) -> None:
    """Answer queries until SIGTERM or SIGINT, then finish what is under way.

    The market store is optional: without one, queries must bring their state along.
    """

    async def main() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        async with query_server(settings, environ) as server:
            # What has been made by now stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            await serve(server, stop, on_ready)

    run(main())


@asynccontextmanager
async def query_server(settings: Settings, environ: Mapping[str, str]) -> AsyncIterator[RpcServer]:
    """A server that is not listening yet; what it opens is closed with it."""
    refuse_one_folder_for_both(settings)
    serving = settings.serving
    tokens = _tokens(serving, environ)
    check_binding(serving.host, tokens.required, serving.allow_unauthenticated_remote)
    calibration, defaults = loaded_calibration(settings), query_defaults(settings)
    async with retriever_of(settings, environ, calibration) as retriever:
        log_loaded(calibration, retriever.index.collection, defaults)
        with ExitStack() as opened:
            market = _market(settings, retriever, opened)
            methods = RagMethods(
                retriever,
                market,
                defaults=defaults,
                min_matches=serving.min_matches,
                max_data_age_ms=serving.max_data_age_minutes * MINUTE_MS,
                version=__version__,
                market_location=str(settings.market.store) if market else None,
            ).methods()
            complete = with_builtin_methods(
                methods, title="LLM Trader RAG", version=__version__, tokens=tokens
            )
            yield RpcServer(
                Dispatcher(complete),
                host=serving.host,
                port=serving.port,
                limits=_limits(serving),
                tokens=tokens,
            )


def _market(settings: Settings, retriever: Retriever, opened: ExitStack) -> SnapshotSource | None:
    path: Path = settings.market.store
    if not path.exists():
        structlog.get_logger(__name__).warning(
            "market_store_missing", path=str(path), effect="queries must bring their whole state"
        )
        return None
    store = opened.enter_context(MarketStore.open(path))
    refuse_another_exchange(store, retriever.index)
    interval_ms = settings.snapshot.interval_minutes * MINUTE_MS
    return SnapshotSource(store, retriever.space.intraday, interval_ms)


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
