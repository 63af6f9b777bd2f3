"""A worker as its parent knows it: its process, its channel, and its last report."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from llm_trader.app.workers.channel import Channel, Handler
from llm_trader.app.workers.fleet import Counts, Report, WorkerStart
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.settings.tree import Settings

_PROGRAM: Final = "llm_trader.app.workers.worker"
_REPORT_PATIENCE_S: Final = 2.0
# One long wait would also pass while the parent itself was stopped.
_PULSES: Final = 4


class WorkerProcess:
    """`started` ends when it is ready, and raises if it cannot start.

    `answers` are to what it asks about all workers.
    """

    process: asyncio.subprocess.Process

    def __init__(self, start: WorkerStart, answers: Mapping[str, Handler]) -> None:
        self.slot = start.slot
        self.since_s = time.monotonic()
        self.last = Report()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self._start = start
        own_end, self._end_of_worker = socket.socketpair()
        own_calls = {
            "start": self._asked_to_start,
            "ready": self._became_ready,
            "failed": self._failed_to_start,
            "ended": self._sent_last_report,
        }
        self.channel = Channel(own_end, {**answers, **own_calls})

    @property
    def settings(self) -> Settings:
        """What it was started with."""
        settings: Settings = self._start.settings
        return settings

    @property
    def is_ready(self) -> bool:
        started = self.started
        return started.done() and not started.cancelled() and started.exception() is None

    async def spawn(self, environ: Mapping[str, str]) -> None:
        """Raises `ConfigurationError` if the system does not start it."""
        end = self._end_of_worker
        try:
            self.process = await asyncio.create_subprocess_exec(
                # Without -P a file in the working folder could take the place of a module.
                *(sys.executable, "-P", "-m", _PROGRAM, str(end.fileno())),
                pass_fds=[end.fileno(), *self._start.descriptors],
                env=dict(environ),  # uvloop takes no other mapping
                stdin=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            self.channel.abandon()
            raise ConfigurationError(f"cannot start a worker: {error.strerror}") from error
        finally:
            end.close()
        await self.channel.__aenter__()

    async def hangs(self, timeout_s: Callable[[], float]) -> bool:
        """Returns True once it has not answered for so long, and False once it has ended."""
        missed = 0
        while missed < _PULSES:
            patience_s = timeout_s() / _PULSES
            try:
                await self.channel.call("pulse", patience_s=patience_s)
            except TimeoutError:
                missed += 1
            except LlmTraderError:
                return False
            else:
                missed = 0
                await asyncio.sleep(patience_s)
        return True

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    async def report(self) -> Report:
        """What still counts of the last one, if it does not answer."""
        with suppress(LlmTraderError, TimeoutError):
            body = await self.channel.call("report", patience_s=_REPORT_PATIENCE_S)
            self.last = msgspec.convert(body, Report)
            return self.last
        return self.last.kept()

    async def counts(self) -> Counts:
        """The last ones that it sent, if it does not answer."""
        with suppress(LlmTraderError, TimeoutError):
            body = await self.channel.call("counts", patience_s=_REPORT_PATIENCE_S)
            self.last = Report(msgspec.convert(body, Counts), self.last.families)
        return self.last.counts

    # --- Its calls

    async def _asked_to_start(self, body: Any) -> WorkerStart:
        return self._start

    async def _became_ready(self, body: Any) -> None:
        self.since_s = time.monotonic()
        if not self.started.done():
            self.started.set_result(None)

    async def _failed_to_start(self, message: str) -> None:
        if not self.started.done():
            self.started.set_exception(ConfigurationError(message))

    async def _sent_last_report(self, body: Any) -> None:
        self.last = msgspec.convert(body, Report)
