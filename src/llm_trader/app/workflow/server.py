"""Takes snapshots and events, and carries their runs out, until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from llm_trader import __version__
from llm_trader.app.decisions import with_provider
from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice
from llm_trader.app.server import access, client_limits
from llm_trader.app.workflow.paper_prices import PaperPrices
from llm_trader.app.workflow.parts import Parts, open_parts, require_workflow_extra
from llm_trader.app.workflow.timetable import Timetable, intervals_of
from llm_trader.background import in_background
from llm_trader.clock import WallClock
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.market.store import MarketStore
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.errors import PROTOCOL_ERRORS
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.observer import log_observers
from llm_trader.rpc.server import Door, RpcServer, run, serve, stop_on_signals
from llm_trader.rpc.tls import ServerTls
from llm_trader.storage.file_follower import following
from llm_trader.timeframe import Millis, Timeframe
from llm_trader.workflow.engine.protocol import RunOptions
from llm_trader.workflow.graph.loading import load_graph
from llm_trader.workflow.graph.model import Graph
from llm_trader.workflow.intake import IntakeMethods
from llm_trader.workflow.intake_config import IntakeConfig
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.paper.broker import PaperBroker

if TYPE_CHECKING:
    from llm_trader.workflow.engine.durable.carrying import Watch
    from llm_trader.workflow.engine.durable.run_log import RunLog

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkflowChoice:
    """What a command chooses; an empty list of symbols takes those of the store."""

    decider: DeciderChoice = field(default_factory=DeciderChoice)
    live: bool = False
    symbols: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class WorkflowServer:
    """A server that is not listening yet; its runs are carried out already."""

    server: RpcServer
    intake: IntakeMethods
    runs: RunLog
    parts: Parts


def serve_workflow(
    job: Job, path: Path, choice: WorkflowChoice, clock: Callable[[], Millis]
) -> None:
    """Until SIGTERM or SIGINT. Runs under way then are resumed by the next process."""

    async def main() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        async with workflow_server(job, path, choice, clock) as parts:
            await serve(parts.server, stop)

    run(main())


@asynccontextmanager
async def workflow_server(
    job: Job,
    path: Path,
    choice: WorkflowChoice,
    clock: Callable[[], Millis],
    *,
    watch: Watch = lambda run, node, what: None,
) -> AsyncIterator[WorkflowServer]:
    """Raises `LlmTraderError` for whatever prevents it, before anything is begun."""
    require_workflow_extra()
    from llm_trader.workflow.engine.durable.database import run_database
    from llm_trader.workflow.engine.durable.engine import durable_engine

    settings, config = job.settings, job.settings.workflow.runs
    graph = load_graph(path, SCRIPTS)
    intervals = intervals_of(graph, settings)
    keys, tls, followed = access(settings.intake, job.environ, clock, "intake")
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(following(*followed))
        decider, notes = with_provider(job, choice.decider)
        for note in notes:
            _log.warning("workflow_decider", note=note)
        parts = await opened.enter_async_context(open_parts(job, decider, clock, live=choice.live))
        store = _market_store(job, opened)
        prices = None
        if isinstance(parts.broker, PaperBroker):
            prices = PaperPrices(parts.broker, store, WallClock(clock))
        runs = await opened.enter_async_context(
            durable_engine(run_database(config, job.environ), config, parts.services, watch=watch)
        )
        intake = IntakeMethods(
            engine=runs,
            graph=graph,
            options=RunOptions(shadow=config.shadow, ab=config.ab),
            clock=WallClock(clock),
            max_queued=settings.intake.max_queued,
            seen=(lambda received: None) if prices is None else prices.seen,
        )
        if prices is not None:
            await opened.enter_async_context(in_background(prices.follow()))
        await _keep_timetable(job, intervals, choice.symbols, store, intake, opened, clock)
        server = await _server(job, intake, keys, tls, opened)
        _log_mode(graph, parts, intake.options, settings.workflow.guards.kill_switch)
        yield WorkflowServer(server, intake, runs, parts)


async def _server(
    job: Job, intake: IntakeMethods, keys: KeyRing, tls: ServerTls | None, opened: AsyncExitStack
) -> RpcServer:
    config = job.settings.intake
    methods = with_builtin_methods(
        list(intake.methods()), title="LLM Trader workflow", version=__version__
    )
    gate = Admission(config, keys, await client_limits(config, job.environ, opened))
    dispatcher = Dispatcher(methods, errors=PROTOCOL_ERRORS, observers=log_observers())
    doors = [_http_door(dispatcher, gate, config, intake, tls)] if config.http else []
    return RpcServer(dispatcher, config, gate=gate, doors=doors, tls=tls)


def _http_door(
    dispatcher: Dispatcher,
    gate: Admission,
    config: IntakeConfig,
    intake: IntakeMethods,
    tls: ServerTls | None,
) -> Door:
    from llm_trader.rpc.http.app import RpcOverHttp, http_application
    from llm_trader.rpc.http.server import HttpServer

    async def live(authenticated: bool) -> tuple[int, Any]:
        return 200, {"live": True}

    async def ready(authenticated: bool) -> tuple[int, Any]:
        try:
            depth = await intake.engine.depth()
        except LlmTraderError as error:
            return 503, {"ready": False, **({"reason": error.message} if authenticated else {})}
        shown = {"ready": True, **({"queue_depth": depth} if authenticated else {})}
        return 200, shown

    async def describe(authenticated: bool) -> tuple[int, Any]:
        return 200, await dispatcher.description()

    rpc = RpcOverHttp(dispatcher, gate)
    routes = [
        *rpc.routes(),
        rpc.page("/livez", live, open_to_all=True),
        rpc.page("/readyz", ready, open_to_all=True),
        rpc.page("/openrpc.json", describe),
    ]
    return HttpServer(http_application(routes, config), config, gate, tls, None)


def _market_store(job: Job, opened: AsyncExitStack) -> MarketStore | None:
    """This machine's own, if it has one; the collector may be elsewhere."""
    path = job.settings.market.store
    if not path.exists():
        return None
    return opened.enter_context(MarketStore.open(path))


async def _keep_timetable(
    job: Job,
    intervals: Mapping[str, Timeframe],
    symbols: Sequence[str],
    store: MarketStore | None,
    intake: IntakeMethods,
    opened: AsyncExitStack,
    clock: Callable[[], Millis],
) -> None:
    for name, every in intervals.items():
        if store is None:
            raise ConfigurationError(
                f"{name} of the graph has every: {every}, which takes snapshots from the "
                f"market store, and there is none at {job.settings.market.store}; collect one, or "
                "name its folder with --store (market.store)"
            )
        table = Timetable(job.settings, store, symbols, every, WallClock(clock))
        await opened.enter_async_context(in_background(table.follow(intake.take_snapshot)))


def _log_mode(graph: Graph, parts: Parts, options: RunOptions, kill_switch: Path) -> None:
    _log.info(
        "workflow_serving",
        graph=graph.name,
        digest=graph.digest,
        decider=parts.decider,
        broker=parts.broker.name,
        shadow=options.shadow,
        ab=options.ab,
    )
    if (reason := KillSwitch(kill_switch).reason()) is not None:
        _log.warning("kill_switch_on", effect="no position is opened", reason=reason)
