"""Carries runs out, so that a run which was accepted ends whatever becomes of the process.

1. `start` puts the run into the queue, with the text of its graph: on disk when it returns.
2. On SQLite this process begins it at once (`direct`); on Postgres a process with room takes it out
   of the queue. It walks the graph (`carrying`). Each stage is recorded when it ends; no order is
   placed before the decision that led to it is on record.
3. After a crash the run is walked again: recorded stages are read, and the first one without a
   record begins anew. So a node may begin twice, and its service must bear that.

On SQLite a process resumes all runs that were under way when it starts. On Postgres each process
looks every few seconds for runs of dead ones (`executors`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer

from llm_trader.background import in_background
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.timeframe import DAY_MS
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.carrying import Carrier, StoreStage, Watch
from llm_trader.workflow.engine.durable.database import RunDatabase
from llm_trader.workflow.engine.durable.direct import FOLLOWS_AFTER_S, DirectRuns
from llm_trader.workflow.engine.durable.executors import Executors
from llm_trader.workflow.engine.durable.run_log import (
    APPLICATION,
    QUEUE,
    VERSION,
    WORKFLOW,
    RunLog,
    start_of,
)
from llm_trader.workflow.engine.protocol import RunSummary
from llm_trader.workflow.nodes.running import Services
from llm_trader.workflow.values import plain

_SQLITE_EXECUTOR: Final = "local"
_HOUR_S: Final = 3600.0
# On SQLite the queue has only what was left over by a crash and what the library follows.
_SLOW_POLL_S: Final = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Process:
    """What the registered workflow needs of this process; `direct` is None on Postgres."""

    carrier: Carrier
    direct: DirectRuns | None


# The library calls one function per process, registered by name.
_process: _Process | None = None


@asynccontextmanager
async def durable_engine(
    database: RunDatabase,
    config: RunsConfig,
    services: Services,
    *,
    watch: Watch = lambda run, node, what: None,
    follows_after_s: float = FOLLOWS_AFTER_S,
) -> AsyncIterator[RunLog]:
    """Runs are carried out while it is open, in the event loop of the caller.

    On SQLite the library has the record of a run when that has ended, and not before
    `follows_after_s` from its acceptance.

    Raises `StoreLockedError` for a second process on SQLite, `ConfigurationError` for a database
    that does not answer.
    """
    global _process
    if _process is not None:
        raise ConfigurationError("this process carries out the runs of a database already")
    async with AsyncExitStack() as opened:
        if (lock := database.lock()) is not None:
            opened.callback(lock.release)
        database.prepare()
        name = _SQLITE_EXECUTOR if lock is not None else _executor_name()
        direct = None
        if lock is not None:
            direct = DirectRuns(
                database,
                services,
                watch,
                at_once=config.at_once,
                follows_after_s=follows_after_s,
            )
        log = direct or RunLog(database, dict(services.scripts))
        opened.callback(log.close)
        _process = _Process(Carrier(log.graph, services, watch), direct)
        opened.callback(_forget_process)
        opened.push_async_callback(_shut_down)
        if database.is_shared:
            executors = Executors(database.url, name, log)
            await executors.enter()
            opened.push_async_callback(executors.leave)
        _launch(database, name)
        if direct is not None:
            opened.push_async_callback(direct.stop)
            await direct.prepare()
        await _register_queue(config, is_shared=database.is_shared)
        if database.is_shared:
            await opened.enter_async_context(in_background(_sweep(executors, config.sweep_s)))
        await opened.enter_async_context(in_background(_tidy(log, config, services)))
        await _report_stranded(log)
        _log.info("workflow_engine_started", database=database.shown, executor=name)
        yield log


def _launch(database: RunDatabase, executor: str) -> None:
    """Called in the event loop, so that runs are carried out in it."""
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


async def _register_queue(config: RunsConfig, *, is_shared: bool) -> None:
    poll_s = config.poll_ms / 1000
    await DBOS.register_queue_async(
        QUEUE,
        worker_concurrency=config.at_once,
        partition_concurrency=1,
        polling_interval_sec=poll_s if is_shared else max(poll_s, _SLOW_POLL_S),
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
    # The library has made its threads those of the event loop, and now they have ended.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())


def _forget_process() -> None:
    global _process
    _process = None


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
    process = _process
    if process is None:
        raise ConfigurationError("no engine is open in this process")
    start = start_of(stored)
    if process.direct is None:
        summary = await process.carrier.carry_out(start, _keep_step)
    else:
        summary = await process.direct.follow(start, _keep_step)
    return _stored(summary)


async def _keep_step(stage: str, store: StoreStage) -> str:
    stored: str = await DBOS.run_step_async({"name": stage}, store)
    return stored


def _stored(summary: RunSummary) -> dict[str, Any]:
    """What a list shows of the run is its result."""
    encoded: dict[str, Any] = plain(summary)
    return encoded
