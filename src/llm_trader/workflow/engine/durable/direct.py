"""Carries out at once the runs that this process accepts; on SQLite, where no other one may.

A run is accepted into the library's queue with a delay. This process begins it without waiting for
the queue, and notes its stages in the journal, for all runs under way in one transaction. When the
delay has passed, the library follows: it finds the stages in the journal and takes them into its
own record, and carries out what is missing after a crash.

A symbol has one run under way, and its runs keep their order: while one of a symbol waits in the
queue, as after a crash, later ones go through the queue as well.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog

from llm_trader.batches import Batches
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.workflow.engine.durable.carrying import Carrier, KeepStage, StoreStage, Watch
from llm_trader.workflow.engine.durable.database import RunDatabase
from llm_trader.workflow.engine.durable.journal import END, StageRow
from llm_trader.workflow.engine.durable.run_log import RunLog
from llm_trader.workflow.engine.protocol import Accepted, RunResult, RunStart, RunSummary
from llm_trader.workflow.nodes.running import Services

# A burst of fifty has ended by then, so that the library's own records do not slow it down.
FOLLOWS_AFTER_S: Final = 2.0

_log = structlog.get_logger(__name__)


class _CancelledError(Exception):
    """The run was cancelled, here or by another process."""


class DirectRuns(RunLog):
    """`prepare` is called once the library has its tables, before anything is accepted."""

    def __init__(
        self,
        database: RunDatabase,
        services: Services,
        watch: Watch,
        *,
        at_once: int,
        follows_after_s: float,
    ) -> None:
        super().__init__(database, dict(services.scripts))
        if self._journal is None:
            raise ConfigurationError("several processes share this database through its queue")
        self._stages = self._journal
        self._carrier = Carrier(self.graph, services, watch)
        self._follows_after_s = follows_after_s or None
        self._is_stopped = False
        self._room = asyncio.Semaphore(at_once)
        self._turns: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Runs in the library's queue by symbol, and those of them that are not on disk yet.
        self._queued: dict[str, set[str]] = {}
        self._entering: set[str] = set()
        self._rows: Batches[StageRow, bool] = Batches(self._record_all)
        self._removals: Batches[str, None] = Batches(self._remove_all)

    async def prepare(self) -> None:
        await self._clean_journal()
        for key, run_id in await self.unended():
            self._queued.setdefault(key, set()).add(run_id)

    async def stop(self) -> None:
        """Runs under way are left as they are, to the next process."""
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def start(self, run: RunStart) -> Accepted:
        if run.run_id in self._ends:
            return await self._accept(run, self._follows_after_s)
        key = run.symbol or run.run_id
        if key in self._queued:
            await self._refresh(key)
        if key in self._queued:
            return await self._queue(run, key)
        return await self._begin(run)

    async def _begin(self, run: RunStart) -> Accepted:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends[run.run_id] = ended  # before it is on disk, so that the library awaits it
        begun = False
        try:
            accepted = await self._accept(run, self._follows_after_s)
            if accepted.is_new and not self._is_stopped:
                task = asyncio.create_task(self._see_through(run))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                begun = True
            return accepted
        finally:
            if not begun:
                self._settle(run.run_id)

    async def wait(self, run_id: str) -> RunResult:
        await self._ended(run_id)
        return await super().wait(run_id)

    async def _ended(self, run_id: str) -> None:
        """Returns at once for a run that this process did not begin."""
        if (future := self._ends.get(run_id)) is not None:
            await asyncio.shield(future)

    @asynccontextmanager
    async def _turn(self, run: RunStart) -> AsyncIterator[None]:
        """One run per symbol, in the order of asking, and a limited number in all."""
        key = run.symbol or run.run_id
        lock = self._turns.setdefault(key, asyncio.Lock())
        self._waiting[key] += 1
        try:
            async with lock, self._room:
                yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._turns[key]

    async def follow(self, run: RunStart, keep_step: KeepStage) -> RunSummary:
        """Takes the noted stages into the library's record, and carries out what is missing."""
        await self._ended(run.run_id)
        async with self._turn(run):
            noted = await asyncio.to_thread(self._stages.stages, run.run_id)

            async def keep(stage: str, store: StoreStage) -> str:
                async def look_up() -> str:
                    return noted[stage]

                return await keep_step(stage, look_up if stage in noted else store)

            try:
                summary = await self._carrier.carry_out(run, keep)
                await self._removals.add(run.run_id)
            finally:
                self._left_queue(run)
        return summary

    def _left_queue(self, run: RunStart) -> None:
        """A run that came through the queue has ended."""
        key = run.symbol or run.run_id
        if key in self._queued:
            self._queued[key].discard(run.run_id)
            if not self._queued[key]:
                del self._queued[key]

    async def _queue(self, run: RunStart, key: str) -> Accepted:
        is_waiting = run.run_id in self._queued[key]
        self._queued[key].add(run.run_id)
        self._entering.add(run.run_id)
        is_new = False
        try:
            accepted = await self._accept(run, None)
            is_new = accepted.is_new
            return accepted
        finally:
            self._entering.discard(run.run_id)
            if not is_new and not is_waiting:
                self._left_queue(run)

    async def _refresh(self, key: str) -> None:
        """One that was cancelled never leaves the queue by itself."""
        unended = {run_id for _, run_id in await self.unended()} | self._entering
        left = self._queued.get(key, set()) & unended
        if left:
            self._queued[key] = left
        else:
            self._queued.pop(key, None)

    async def _see_through(self, run: RunStart) -> None:
        async def keep(stage: str, store: StoreStage) -> str:
            stored = await store()
            if await self._rows.add(StageRow(run.run_id, stage, stored)):
                raise _CancelledError
            return stored

        try:
            async with self._turn(run):
                summary = await self._carrier.carry_out(run, keep)
                end = msgspec.json.encode(summary).decode()
                await self._rows.add(StageRow(run.run_id, END, end))
        except _CancelledError:
            _log.info("workflow_run_cancelled", run_id=run.run_id)
        except LlmTraderError as error:
            _log.warning("workflow_run_left_to_queue", run_id=run.run_id, reason=error.message)
        finally:
            self._settle(run.run_id)

    def _settle(self, run_id: str) -> None:
        future = self._ends.pop(run_id, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def _record_all(self, rows: Sequence[StageRow]) -> list[bool]:
        """For each row whether its run is cancelled: then no further stage begins."""
        await asyncio.to_thread(self._stages.record, rows)
        going_on = [row.run_id for row in rows if row.stage != END]
        cancelled = await self.cancelled(going_on) if going_on else set()
        return [row.run_id in cancelled for row in rows]

    async def _remove_all(self, run_ids: Sequence[str]) -> list[None]:
        await asyncio.to_thread(self._stages.remove, run_ids)
        return [None] * len(run_ids)

    async def _clean_journal(self) -> None:
        """Of a run that has ended, or was deleted, nothing is needed."""
        noted = await asyncio.to_thread(self._stages.run_ids)
        needed = {run_id for _, run_id in await self.unended()} | await self.cancelled(noted)
        await asyncio.to_thread(self._stages.remove, [r for r in noted if r not in needed])
