"""One run of a workflow by hand, and what became of runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llm_trader.app.decisions import with_provider
from llm_trader.app.indexes import snapshot_rules
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job, blocking
from llm_trader.app.llm_deciders import DeciderChoice
from llm_trader.app.workflow.paper_prices import PaperPrices
from llm_trader.app.workflow.parts import open_parts, require_workflow_extra
from llm_trader.clock import WallClock
from llm_trader.delivery.jobs import snapshot_id
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis
from llm_trader.workflow.engine.protocol import (
    RunDetails,
    RunOptions,
    RunStart,
    RunState,
    RunSummary,
    run_id,
)
from llm_trader.workflow.graph.loading import load_graph
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.values import Received

if TYPE_CHECKING:
    from llm_trader.workflow.engine.durable.run_log import RunLog


class HandRun(NamedTuple):
    """`was_known` if the state had been decided on before; `notes` are sentences to read first."""

    details: RunDetails
    was_known: bool
    notes: list[str]


@blocking
async def run_workflow(
    job: Job,
    path: Path,
    symbol: str,
    as_of_ms: Millis | None,
    choice: DeciderChoice,
    clock: Callable[[], Millis],
) -> HandRun:
    """Decides on a state of the local store, durably.

    Without a time it is the newest one. Raises `StoreLockedError` while another process serves.
    """
    require_workflow_extra()
    from llm_trader.workflow.engine.durable.database import run_database
    from llm_trader.workflow.engine.durable.engine import durable_engine

    graph, config = load_graph(path, SCRIPTS), job.settings.workflow.runs
    choice, notes = with_provider(job, choice)
    async with AsyncExitStack() as opened:
        parts = await opened.enter_async_context(open_parts(job, choice, clock))
        store = opened.enter_context(MarketStore.open(job.settings.market.store))
        received = _received(job, store, symbol, as_of_ms)
        database = run_database(config, job.environ)
        engine = durable_engine(database, config, parts.services, follows_after_s=0)
        runs = await opened.enter_async_context(engine)
        if isinstance(parts.broker, PaperBroker):
            PaperPrices(parts.broker, store, WallClock(clock)).seen(received)
        accepted = await runs.start(
            RunStart(
                run_id=run_id(graph.name, received),
                workflow=graph.name,
                graph=graph.text,
                method="snapshot.post",
                event=received,
                options=RunOptions(shadow=config.shadow, ab=config.ab),
                accepted_at_ms=received.received_at_ms,
            )
        )
        await runs.wait(accepted.run_id)
        await runs.completed(accepted.run_id)
        return HandRun(await runs.show(accepted.run_id), not accepted.is_new, notes)


@blocking
async def list_runs(job: Job, limit: int, state: RunState | None) -> Sequence[RunSummary]:
    async with _run_log(job) as runs:
        return await runs.runs(limit=limit, state=state)


@blocking
async def show_run(job: Job, name: str) -> RunDetails:
    async with _run_log(job) as runs:
        return await runs.show(name)


@blocking
async def resume_run(job: Job, name: str) -> None:
    """A process that serves takes it up, at once or when it is started."""
    async with _run_log(job) as runs:
        await runs.resume(name)


@blocking
async def cancel_run(job: Job, name: str) -> None:
    async with _run_log(job) as runs:
        await runs.cancel(name)


@asynccontextmanager
async def _run_log(job: Job) -> AsyncIterator[RunLog]:
    require_workflow_extra()
    from llm_trader.workflow.engine.durable.database import run_database
    from llm_trader.workflow.engine.durable.run_log import RunLog

    database = run_database(job.settings.workflow.runs, job.environ)
    if not database.exists():
        raise InvalidInputError(
            f"there are no runs in {database.shown} yet; begin with: llm-trader workflow serve "
            "workflows/llm-trader/main.yml"
        )
    log = RunLog(database, dict(SCRIPTS))
    try:
        yield log
    finally:
        log.close()


def _received(job: Job, store: MarketStore, symbol: str, as_of_ms: Millis | None) -> Received:
    """The state of the store as a collector would have posted it."""
    settings = job.settings
    intraday = intraday_timeframe(settings, store, [symbol])
    source = SnapshotSource(
        store, intraday, settings.snapshot.interval_ms, snapshot_rules(settings)
    )
    if as_of_ms is None:
        as_of_ms = source.end_ms(symbol) or job.now_ms
    as_of_ms = source.grid.floor(as_of_ms)
    table = source.view(symbol).exactly_at(as_of_ms)
    if not table.usable()[0]:
        reasons = "; ".join(table.refusals())
        raise InvalidInputError(f"the store has no usable state of {symbol} then: {reasons}")
    version = StateSpace(intraday).feature_version
    return Received(
        symbol=symbol,
        as_of_ms=as_of_ms,
        snapshot=table.snapshot(0),
        snapshot_id=snapshot_id(symbol, as_of_ms, store.exchange, version),
        received_at_ms=job.now_ms,
    )
