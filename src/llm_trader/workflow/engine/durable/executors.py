"""Which processes carry runs out, and the runs of those that died, on Postgres.

Each process holds an advisory lock of Postgres on a connection of its own, under a number made of
its name. The server gives the lock up when the process dies. Who gets the lock of another process
has found a dead one, and puts its runs back into the queue while it has that lock, so that only one
does.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
import structlog

from llm_trader.errors import StoreError
from llm_trader.workflow.engine.durable.run_log import RunLog

_SECONDS: Final = 10

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class Executors:
    """`name` is that of this process."""

    url: str = field(repr=False)
    name: str
    log: RunLog
    _connection: psycopg.Connection[Any] | None = field(default=None, init=False)

    async def enter(self) -> None:
        """Takes the lock of this process. Raises `StoreError` if Postgres does not answer."""
        try:
            self._connection = await asyncio.to_thread(self._locked_connection)
        except psycopg.Error as error:
            raise StoreError(f"Postgres does not answer: {error}") from error

    async def leave(self) -> None:
        if self._connection is not None:
            await asyncio.to_thread(self._connection.close)
            self._connection = None

    async def sweep(self) -> int:
        """Puts the runs of dead processes back into the queue; returns how many."""
        await self._stay_locked()
        count = 0
        for executor in await self.log.executors_of_running():
            if executor != self.name:
                count += await self._adopt(executor)
        return count

    async def _adopt(self, executor: str) -> int:
        if not await self._try_lock(executor):
            return 0
        try:
            # Anew: another sweep may have been here before the lock was free.
            runs = (await self.log.executors_of_running()).get(executor, [])
            if runs:
                await self.log.requeue(runs)
                _log.warning("workflow_runs_adopted", of=executor, runs=len(runs))
            return len(runs)
        finally:
            await self._execute("SELECT pg_advisory_unlock(%s)", _number(executor))

    async def _try_lock(self, executor: str) -> bool:
        row = await self._execute("SELECT pg_try_advisory_lock(%s)", _number(executor))
        return bool(row and row[0])

    async def _stay_locked(self) -> None:
        """A connection that was lost took the lock with it."""
        try:
            await self._execute("SELECT 1")
        except StoreError:
            _log.warning("workflow_lock_lost", executor=self.name)
            await self.enter()

    async def _execute(self, statement: str, *values: int) -> Any:
        connection = self._connection
        if connection is None:
            raise StoreError("this process has no connection to Postgres")
        try:
            return await asyncio.to_thread(_first_row, connection, statement, values)
        except psycopg.Error as error:
            raise StoreError(f"Postgres does not answer: {error}") from error

    def _locked_connection(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.url, autocommit=True, connect_timeout=_SECONDS)
        connection.execute("SELECT pg_advisory_lock(%s)", (_number(self.name),))
        return connection


def _first_row(connection: psycopg.Connection[Any], statement: Any, values: Any) -> Any:
    return connection.execute(statement, values).fetchone()


def _number(executor: str) -> int:
    digest = hashlib.sha256(f"llm-trader {executor}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
