"""The HTTP door of the query server: every path that it answers is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_trader import __version__
from llm_trader.errors import ConfigurationError
from llm_trader.rpc.admission import Admission, open_to_strangers
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.server import Door
from llm_trader.rpc.slot_sockets import SlotSockets
from llm_trader.rpc.tls import ServerTls
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.methods import RagMethods
from llm_trader.serving.page.methods import page_settings
from llm_trader.serving.readiness import Readiness, ReadinessProbe

if TYPE_CHECKING:
    from llm_trader.rpc.http.app import RpcOverHttp
    from llm_trader.serving.graphql.endpoint import GraphQlEndpoint
    from llm_trader.serving.mcp.calls import ToolCalls
    from llm_trader.serving.mcp.endpoint import McpEndpoint
    from llm_trader.serving.metrics.exposition import ServerMetrics


def http_door(
    dispatcher: Dispatcher,
    gate: Admission,
    rag: RagMethods,
    probe: ReadinessProbe,
    metrics: ServerMetrics | None,
    mcp: McpEndpoint | None,
    tls: ServerTls | None,
    sockets: SlotSockets | None,
) -> Door:
    # Its libraries take 100 ms to import.
    from llm_trader.rpc.http.app import JSON, RpcOverHttp, http_application
    from llm_trader.rpc.http.server import HttpServer

    config = rag.queries.config
    rpc = RpcOverHttp(dispatcher, gate)
    routes = [*rpc.routes(), *_health(rpc, probe), _description(rpc, dispatcher)]
    if _shows_page(config):
        routes += _page(rpc, gate, rag, probe)
    if metrics is not None:
        routes.append(rpc.page("/metrics", metrics.page, media_type=metrics.media_type))
    if config.graphql:
        graphql = _graphql(dispatcher, gate, config)
        routes.append(rpc.documents("/graphql", graphql.answer, graphql.refuse, frozenset({JSON})))
    if mcp is not None:
        routes.append(rpc.documents("/mcp", mcp.answer, mcp.refuse, frozenset({JSON})))
    return HttpServer(http_application(routes, config), config, gate, tls, sockets)


def _health(rpc: RpcOverHttp, probe: ReadinessProbe) -> list[Any]:
    async def live(authenticated: bool) -> tuple[int, Any]:
        return 200, {"live": True}

    async def ready(authenticated: bool) -> tuple[int, Any]:
        readiness = await probe.readiness()
        return (200 if readiness.ready else 503), _shown(readiness, authenticated)

    return [
        rpc.page("/livez", live, open_to_all=True),
        rpc.page("/readyz", ready, open_to_all=True),
    ]


def _shown(readiness: Readiness, authenticated: bool) -> Any:
    # The reasons name folders and addresses.
    return readiness if authenticated else {"ready": readiness.ready}


def _shows_page(config: ServingConfig) -> bool:
    return not open_to_strangers(config.host, False) if config.page is None else config.page


def _page(rpc: RpcOverHttp, gate: Admission, rag: RagMethods, probe: ReadinessProbe) -> list[Any]:
    """The page itself is open to all: it holds no data, and asks for a key where calls need one."""
    from llm_trader.serving.page.files import PageFiles, ReportFiles

    async def first_facts(authenticated: bool) -> tuple[int, Any]:
        return 200, page_settings(rag, keys_required=gate.keys.required)

    async def readiness(authenticated: bool) -> tuple[int, Any]:
        # For a page, not being ready is an answer; browsers would log the status as an error.
        return 200, _shown(await probe.readiness(), authenticated)

    page = PageFiles()
    return [
        rpc.files("/", page.index, open_to_all=True),
        rpc.page("/page/settings", first_facts, open_to_all=True),
        rpc.page("/page/readiness", readiness, open_to_all=True),
        rpc.files("/page/{name:path}", page.find, open_to_all=True),
        rpc.files("/reports/{name:path}", ReportFiles(rag.queries.config.reports).find),
    ]


def _description(rpc: RpcOverHttp, dispatcher: Dispatcher) -> Any:
    async def describe(authenticated: bool) -> tuple[int, Any]:
        return 200, await dispatcher.description()

    return rpc.page("/openrpc.json", describe)


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


def mcp_endpoint(calls: ToolCalls) -> McpEndpoint:
    """Raises `ConfigurationError` where the extra `mcp` is not installed."""
    try:
        # Its libraries take 1 s to import.
        from llm_trader.serving.mcp.endpoint import McpEndpoint
    except ImportError as error:
        raise ConfigurationError(
            f"tools for assistants need the MCP SDK ({error}): pip install 'llm-trader-rag[mcp]', "
            "or leave out --mcp (serving.mcp)"
        ) from error
    return McpEndpoint(calls, __version__)
