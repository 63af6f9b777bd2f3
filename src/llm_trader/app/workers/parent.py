"""The parent of the workers: it answers no queries and opens neither index nor store.

1. It binds the ports, and starts a worker for each slot. If the first one cannot start, neither
   does the server.
2. When a worker dies, another one accepts for its slot until its successor is ready. One that does
   not answer for too long is killed.
3. To replace the workers, it starts a successor beside each, one after the other, lets it accept,
   and lets the old one finish its answers.
4. SIGHUP reloads the settings, SIGUSR2 replaces the workers, SIGTERM and SIGINT stop all of them.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from llm_trader.app.reloading import SettingsFile, files_read, logged, reload_on_hangup, shown
from llm_trader.app.workers.channel import Handler
from llm_trader.app.workers.fleet import Report, WorkerStart, metrics_of_all
from llm_trader.app.workers.process import WorkerProcess
from llm_trader.app.workers.slots import STEADY_S, slots_by_worker, wait_before_restart_s
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc.handover import Handover
from llm_trader.rpc.server import run, stop_on_signals
from llm_trader.rpc.slot_sockets import HTTP, TCP, SlotSockets
from llm_trader.serving.admin import Reloaded
from llm_trader.serving.metrics.summing import Family
from llm_trader.settings.reload import with_settings_of
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import Millis

# What a killed worker may have counted in vain.
_REPORT_EVERY_S: Final = 5.0
# Beyond `drain_timeout_s`: closing connections, the last report, and the end of the process.
_ENDING_S: Final = 5.0

_log = structlog.get_logger(__name__)


class Parent:
    def __init__(self, file: SettingsFile, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._count = file.in_use.serving.workers
        self._sockets = SlotSockets.bound(file.in_use.serving, self._count)
        self._handovers = [Handover.new() for _ in range(self._count)]
        self._current: dict[int, WorkerProcess] = {}
        self._running: set[WorkerProcess] = set()
        self._failures = dict.fromkeys(range(self._count), 0)
        self._restarts = 0
        self._ended = Report()
        self._stopping = False
        self._rolling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self.reload = logged(self._reload)

    # --- The whole

    async def start(self) -> None:
        """Raises `ConfigurationError` if a worker cannot start."""
        # One alone, so that a mistake shows once, and the next ones find the files in memory.
        await self._start_current(0)
        await asyncio.gather(*(self._start_current(slot) for slot in range(1, self._count)))
        self._sockets.listen()
        await self._assign()
        for door, event in ((TCP, "rpc_listening"), (HTTP, "http_listening")):
            if door in self._sockets:
                host, port = self._sockets.address(door)
                _log.info(event, host=host, port=port, workers=self._count)
        self._keep(self._look())

    async def stop(self) -> None:
        """Lets all workers finish their answers, for up to `drain_timeout_s`."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*(self._retire(worker) for worker in list(self._running)))
        self._sockets.close()
        for handover in self._handovers:
            handover.close()
        _log.info("workers_stopped")

    async def roll(self, before: Settings | None = None) -> None:
        """Replaces the workers one after the other; stops at one that cannot start.

        Then what the workers are started with is again as `before`.
        """
        async with self._rolling:
            for slot in range(self._count):
                old = self._current.get(slot)
                try:
                    await self._start_current(slot)
                except ConfigurationError as error:
                    _log.error(
                        "worker_not_replaced",
                        slot=slot,
                        reason=error.message,
                        effect="the workers that were not replaced yet go on as they are",
                    )
                    if before is not None:
                        now = self._file.in_use
                        self._file.in_use = with_settings_of(now, before, ["restart"])
                    return
                await self._assign()
                if old is not None:
                    await self._retire(old, hand_over=True)
            _log.info("workers_replaced", workers=self._count)

    def roll_soon(self) -> None:
        self._keep(self.roll())

    async def _reload(self) -> Reloaded:
        before = self._file.in_use
        after, changed = self._file.read_again()
        effective = with_settings_of(before, after, ["live", "restart", "unread"])
        live = with_settings_of(before, after, ["live", "unread"])
        self._file.in_use = effective
        problems = [p for worker in self._ready() for p in await self._configure(worker, live)]
        if problems:
            self._file.in_use = before
            for worker in self._ready():
                await self._configure(worker, before)
            raise ConfigurationError("; ".join(problems), problems=problems)
        if changed.restart:
            self._keep(self.roll(before))
        return Reloaded(
            applied=shown(changed.live),
            restarting=shown(changed.restart),
            needs_restart=shown(changed.parent),
            files=files_read(effective),
        )

    async def _configure(self, worker: WorkerProcess, settings: Settings) -> list[str]:
        try:
            return list(await worker.channel.call("configure", settings))
        except (LlmTraderError, TimeoutError) as error:
            return [f"worker {worker.slot}: {error or 'no answer in time'}"]

    # --- Workers

    async def _start_current(self, slot: int) -> None:
        """Starts a worker and makes it the current one of its slot when it is ready."""
        worker = await self._spawn(slot)
        await worker.started
        self._current[slot] = worker
        self._keep(self._kill_when_hung(worker))
        reloaded = with_settings_of(worker.settings, self._file.in_use, ["live", "unread"])
        if reloaded != worker.settings:
            await self._configure(worker, reloaded)

    async def _spawn(self, slot: int) -> WorkerProcess:
        handover = self._handovers[slot].descriptors
        start = WorkerStart(slot, self._file.in_use, self._sockets.descriptors, handover)
        worker = WorkerProcess(start, self._answers())
        await worker.spawn(self._environ)
        self._running.add(worker)
        self._keep(self._watch(worker), cancelled_at_stop=False)
        return worker

    def _answers(self) -> dict[str, Handler]:
        """The answers to what a worker asks about all workers."""

        async def counts_of_all(body: Any) -> tuple[int, int, int]:
            return await self._counts()

        async def metrics_of_all(body: Any) -> list[Family]:
            return await self._metrics()

        async def reload(body: Any) -> Reloaded:
            return await self.reload()

        return {"counts_of_all": counts_of_all, "metrics_of_all": metrics_of_all, "reload": reload}

    async def _kill_when_hung(self, worker: WorkerProcess) -> None:
        """Kills a worker that does not answer for too long; `_watch` then starts a successor."""
        if await worker.hangs(lambda: self._file.in_use.serving.worker_timeout_s):
            _log.error(
                "worker_hung",
                slot=worker.slot,
                pid=worker.process.pid,
                timeout_s=self._file.in_use.serving.worker_timeout_s,
                effect="it is killed and replaced; its connections end",
            )
            worker.kill()

    async def _watch(self, worker: WorkerProcess) -> None:
        """Waits until it has ended; starts a successor unless it was told to end."""
        code = await worker.process.wait()
        await worker.channel.__aexit__()
        self._running.discard(worker)
        self._ended = self._ended.plus(worker.last.kept())
        worker.ended.set()
        if not worker.started.done():
            worker.started.set_exception(ConfigurationError(f"a worker ended with code {code}"))
        if self._stopping or self._current.get(worker.slot) is not worker:
            return
        del self._current[worker.slot]
        _log.error("worker_died", slot=worker.slot, pid=worker.process.pid, exit_code=code)
        steady = time.monotonic() - worker.since_s >= STEADY_S
        self._failures[worker.slot] = 1 if steady else self._failures[worker.slot] + 1
        self._keep(self._restart(worker.slot))
        await self._assign()

    async def _restart(self, slot: int) -> None:
        while not self._stopping and slot not in self._current:
            wait_s = wait_before_restart_s(self._failures[slot])
            await asyncio.sleep(wait_s)
            async with self._rolling:  # which may have filled the slot
                if slot in self._current:
                    return
                try:
                    await self._start_current(slot)
                except ConfigurationError as error:
                    self._failures[slot] += 1
                    _log.error(
                        "worker_not_started",
                        slot=slot,
                        reason=error.message,
                        again_in_s=wait_before_restart_s(self._failures[slot]),
                    )
                    continue
            self._restarts += 1
            _log.info("worker_restarted", slot=slot, pid=self._current[slot].process.pid)
            await self._assign()

    async def _retire(self, worker: WorkerProcess, *, hand_over: bool = False) -> None:
        """Lets it finish its answers and end; kills it if it takes too long."""
        drain_s = self._file.in_use.serving.drain_timeout_s + _ENDING_S
        if not worker.is_ready:  # it has nothing to finish
            worker.kill()
        with suppress(LlmTraderError, TimeoutError):
            if hand_over:
                await worker.channel.call("hand_over", patience_s=drain_s)
            await worker.channel.call("stop")
        try:
            await asyncio.wait_for(worker.ended.wait(), drain_s)
        except TimeoutError:
            _log.error("worker_killed", slot=worker.slot, reason=f"it did not end in {drain_s:g} s")
            worker.kill()
            await worker.ended.wait()

    async def _assign(self) -> None:
        """Tells each worker which slots to accept for, and how many others there are."""
        if self._stopping:
            return
        ready = sorted(self._current)
        for slot, slots in slots_by_worker(self._count, ready).items():
            body = {"slots": slots, "ready": len(ready), "all": self._count}
            with suppress(LlmTraderError, TimeoutError):  # one that has ended is noticed elsewhere
                await self._current[slot].channel.call("use_slots", body)

    def _ready(self) -> list[WorkerProcess]:
        return [self._current[slot] for slot in sorted(self._current)]

    # --- Counts

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            await self._reports()

    async def _reports(self) -> list[Report]:
        workers = [worker for worker in self._running if worker.is_ready]
        return list(await asyncio.gather(*(worker.report() for worker in workers)))

    async def _counts(self) -> tuple[int, int, int]:
        total = self._ended.counts
        for counts in await asyncio.gather(*(w.counts() for w in self._running if w.is_ready)):
            total = total.plus(counts)
        return total.answered, total.refused, len(self._current)

    async def _metrics(self) -> list[Family]:
        reports = await self._reports()
        return metrics_of_all(reports, self._ended, len(self._current), self._restarts)

    def _keep(self, work: Coroutine[Any, Any, None], *, cancelled_at_stop: bool = True) -> None:
        task = asyncio.create_task(work)
        kept = self._tasks if cancelled_at_stop else self._watching
        kept.add(task)
        task.add_done_callback(kept.discard)


def serve_with_workers(
    settings: Settings,
    environ: Mapping[str, str],
    clock: Callable[[], Millis],
    read_settings: Callable[[], Settings] | None = None,
) -> None:
    """Answer queries in several processes until SIGTERM or SIGINT; all finish the running ones."""

    async def main() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        file = SettingsFile(settings, read_settings or (lambda: settings), clock)
        parent = Parent(file, environ)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, parent.roll_soon)
        try:
            starting = asyncio.create_task(parent.start())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                reload_on_hangup(parent.reload)
            else:
                starting.cancel()
            await stopped
        finally:
            await parent.stop()

    run(main())
