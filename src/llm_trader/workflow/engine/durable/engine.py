"""Carries runs out, so that a run which was accepted ends whatever becomes of the process.

1. `start` puts the run into the queue, with the text of its graph: on disk when it returns.
2. A process with room takes it, and walks the graph. Each stage of it is a step, recorded when it
   ends; no order is placed before the decision that led to it is on record.
3. After a crash the run is walked again: recorded stages are read, and the first one without a
   record begins anew. So a node may begin twice, and its service must bear that.

On SQLite a process resumes all runs that were under way when it starts. On Postgres each process
looks every few seconds for runs of dead ones (`executors`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

from llm_trader.background import in_background
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.timeframe import DAY_MS
from llm_trader.workflow.engine.attempts import attempt_node
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.database import RunDatabase
from llm_trader.workflow.engine.durable.executors import Executors
from llm_trader.workflow.engine.durable.run_log import (
    APPLICATION,
    QUEUE,
    VERSION,
    WORKFLOW,
    RunLog,
    input_record,
    records_of,
    start_of,
    stored_stage,
)
from llm_trader.workflow.engine.protocol import NodeRecord, RunSummary
from llm_trader.workflow.engine.summaries import summary_of
from llm_trader.workflow.engine.walk import Stage, walk
from llm_trader.workflow.graph.document import InputNode
from llm_trader.workflow.graph.model import GraphNode
from llm_trader.workflow.nodes.running import NodeRun, Services
from llm_trader.workflow.values import plain

_SQLITE_EXECUTOR: Final = "local"
_HOUR_S: Final = 3600.0

# Told when a node begins and when it has ended: (run, node, "begins" or "ends").
Watch = Callable[[str, str, str], None]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Carrier:
    """What the registered workflow needs of this process."""

    log: RunLog
    services: Services
    watch: Watch


# The library calls one function per process, registered by name.
_carrier: _Carrier | None = None


@asynccontextmanager
async def durable_engine(
    database: RunDatabase,
    config: RunsConfig,
    services: Services,
    *,
    watch: Watch = lambda run, node, what: None,
) -> AsyncIterator[RunLog]:
    """Runs are carried out while it is open, in the event loop of the caller.

    Raises `StoreLockedError` for a second process on SQLite, `ConfigurationError` for a database
    that does not answer.
    """
    global _carrier
    if _carrier is not None:
        raise ConfigurationError("this process carries out the runs of a database already")
    async with AsyncExitStack() as opened:
        if (lock := database.lock()) is not None:
            opened.callback(lock.release)
        database.prepare()
        name = _SQLITE_EXECUTOR if lock is not None else _executor_name()
        log = RunLog(database, dict(services.scripts))
        opened.callback(log.close)
        _carrier = _Carrier(log, services, watch)
        opened.callback(_forget_carrier)
        opened.push_async_callback(_shut_down)
        if database.is_shared:
            executors = Executors(database.url, name, log)
            await executors.enter()
            opened.push_async_callback(executors.leave)
        _launch(database, name)
        await _register_queue(config)
        if database.is_shared:
            await opened.enter_async_context(in_background(_sweep(executors, config.sweep_s)))
        await opened.enter_async_context(in_background(_tidy(log, config, services)))
        await _report_stranded(log)
        _log.info("workflow_engine_started", database=database.shown, executor=name)
        yield log


def _launch(database: RunDatabase, executor: str) -> None:
    """Called in the event loop, so that runs are carried out in it."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        # Otherwise the library writes to the terminal in a format of its own.
        logger.addHandler(logging.NullHandler())
    config: DBOSConfig = {
        "name": APPLICATION,
        "system_database_url": database.url,
        "application_version": VERSION,
        "executor_id": executor,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "WARNING",
        "enable_otlp": False,
        "scheduler_polling_interval_sec": _HOUR_S,
    }
    try:
        DBOS(config=config)
        DBOS.launch()
    except Exception as error:
        raise ConfigurationError(
            f"the database of runs {database.shown} cannot be used: {error}"
        ) from error


async def _register_queue(config: RunsConfig) -> None:
    await DBOS.register_queue_async(
        QUEUE,
        worker_concurrency=config.at_once,
        partition_concurrency=1,
        polling_interval_sec=config.poll_ms / 1000,
        on_conflict="always_update",
    )


async def _report_stranded(log: RunLog) -> None:
    """Runs of a version whose steps are others can be carried out by that version alone."""
    for version, count in (await log.of_other_versions()).items():
        _log.warning(
            "workflow_runs_of_another_version",
            version=version,
            runs=count,
            remedy="start the program that accepted them once more, or cancel them",
        )


async def _shut_down() -> None:
    """Runs under way are left as they are, and resumed by the next process."""
    await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=0)


def _forget_carrier() -> None:
    global _carrier
    _carrier = None


def _executor_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


async def _sweep(executors: Executors, pause_s: float) -> None:
    while True:
        try:
            await executors.sweep()
        except LlmTraderError as error:
            _log.warning("workflow_sweep_failed", reason=error.message)
        await asyncio.sleep(pause_s)


async def _tidy(log: RunLog, config: RunsConfig, services: Services) -> None:
    while True:
        with suppress(LlmTraderError):  # the next hour will do
            before_ms = services.clock.now_ms() - config.keep_days * DAY_MS
            while await log.remove_ended(before_ms):
                pass
        await asyncio.sleep(_HOUR_S)


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
async def _carry_out(stored: dict[str, Any]) -> dict[str, Any]:
    carrier = _carrier
    if carrier is None:
        raise ConfigurationError("no engine is open in this process")
    start = start_of(stored)
    try:
        graph = carrier.log.graph(start.graph)
    except LlmTraderError as error:
        _log.error("workflow_graph_unusable", run_id=start.run_id, reason=error.message)
        summary = summary_of(start, "failed", ())
        return _stored(msgspec.structs.replace(summary, error=error.message))
    run = NodeRun(start.run_id, start.options)

    async def step(node: GraphNode, inputs: Any) -> NodeRecord:
        if isinstance(node.document, InputNode):
            return input_record(node, start)  # the run was stored with it
        carrier.watch(start.run_id, node.name, "begins")
        record = await attempt_node(node, inputs, run, carrier.services)
        carrier.watch(start.run_id, node.name, "ends")
        return record

    async def keep(
        stage: Stage, carry_out: Callable[[], Awaitable[list[NodeRecord]]]
    ) -> list[NodeRecord]:
        if isinstance(stage[0].document, InputNode):
            return await carry_out()
        records: list[NodeRecord] = []

        async def store() -> str:
            records.extend(await carry_out())
            return stored_stage(records)

        stored = await DBOS.run_step_async({"name": stage[-1].name}, store)
        return records or records_of(stored, graph)

    result = await walk(graph, start, step, keep)
    return _stored(summary_of(start, result.state, result.records))


def _stored(summary: RunSummary) -> dict[str, Any]:
    """What a list shows of the run is its result."""
    encoded: dict[str, Any] = plain(summary)
    return encoded
