"""Carries out at once the runs that this process accepts; on SQLite, where no other one may.

A run is accepted into the library's queue with a delay. This process begins it without waiting for
the queue, and notes its stages in the journal, for all runs under way in one transaction. When the
delay has passed, the library follows: it finds the stages in the journal and takes them into its
own record, and carries out what is missing, as of a run that was resumed by hand.

After a crash the next process goes on with what was under way before it accepts anything. A symbol
has one run under way, and its runs keep their order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
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
        self._prepared = asyncio.Event()
        self._rows: Batches[StageRow, bool] = Batches(self._record_all)
        self._removals: Batches[str, None] = Batches(self._remove_all)

    async def prepare(self) -> None:
        """Goes on with the runs of the process before, in the order in which it accepted them."""
        runs = await self.unended()
        ends = await asyncio.to_thread(self._stages.ends)
        for run in runs:
            if run.run_id not in ends:
                noted = await self.stages_of(run.run_id)
                self._ends[run.run_id] = asyncio.get_running_loop().create_future()
                self._see_through_in_background(run, noted)
        await self._clean_journal({run.run_id for run in runs})
        self._prepared.set()

    async def stop(self) -> None:
        """Runs under way are left as they are, to the next process."""
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def start(self, run: RunStart) -> Accepted:
        if run.run_id in self._ends:
            return await self._accept(run, self._follows_after_s)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ends[run.run_id] = ended  # before it is on disk, so that the library awaits it
        begun = False
        try:
            accepted = await self._accept(run, self._follows_after_s)
            if accepted.is_new and not self._is_stopped:
                self._see_through_in_background(run, {})
                begun = True
            return accepted
        finally:
            if not begun:
                self._settle(run.run_id)

    def _see_through_in_background(self, run: RunStart, noted: Mapping[str, str]) -> None:
        task = asyncio.create_task(self._see_through(run, noted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
        await self._prepared.wait()
        await self._ended(run.run_id)
        async with self._turn(run):
            noted = await asyncio.to_thread(self._stages.stages, run.run_id)

            async def keep(stage: str, store: StoreStage) -> str:
                async def look_up() -> str:
                    return noted[stage]

                return await keep_step(stage, look_up if stage in noted else store)

            summary = await self._carrier.carry_out(run, keep)
            await self._removals.add(run.run_id)
        return summary

    async def _see_through(self, run: RunStart, noted: Mapping[str, str]) -> None:
        async def keep(stage: str, store: StoreStage) -> str:
            if stage in noted:
                return noted[stage]
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

    async def _clean_journal(self, unended: set[str]) -> None:
        """Of a run that has ended, or was deleted, nothing is needed."""
        noted = await asyncio.to_thread(self._stages.run_ids)
        needed = unended | await self.cancelled(noted)
        await asyncio.to_thread(self._stages.remove, [r for r in noted if r not in needed])
