"""A process that answers queries for a parent: `python -m llm_trader.app.workers.worker NUMBER`.

The number is the descriptor of its end of the socket pair. It opens index and store itself, because
LMDB must not be open across a fork. When the parent has ended, it finishes its answers and ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from llm_trader.app.garbage_collection import spare_long_lived_objects
from llm_trader.app.server import ServerParts, server_parts
from llm_trader.app.workers.channel import Channel, ChannelClosedError
from llm_trader.app.workers.fleet import Counts, Report, WorkerStart
from llm_trader.errors import LlmTraderError
from llm_trader.logs import configure_logging
from llm_trader.rpc.handover import Handover
from llm_trader.rpc.server import run
from llm_trader.rpc.slot_sockets import SlotSockets
from llm_trader.serving.admin import Reloaded
from llm_trader.serving.metrics.summing import Family, plain
from llm_trader.settings.tree import Settings

_FAILED = 2
_CALLS_OF_PARENT = ("pulse", "use_slots", "counts", "report", "configure", "hand_over", "stop")
# A reload reads some files.
_RELOAD_PATIENCE_S = 30.0


class Worker:
    """Answers the calls of the parent, and asks it about all workers."""

    def __init__(
        self, parts: ServerParts, channel: Channel, handover: Handover, stop: asyncio.Event
    ) -> None:
        self._handover = handover
        self._parts = parts
        self._channel = channel
        self._stop = stop
        parts.rag.of_all = self._counts_of_all
        parts.admin.reload = self._reload
        if parts.metrics is not None:
            parts.metrics.of_all = self._metrics_of_all

    async def serve(self) -> None:
        """Answers until the parent says `stop`, or has ended."""
        spare_long_lived_objects()
        server, channel = self._parts.server, self._channel
        await server.start()
        server.adopt_from(self._handover)
        await channel.call("ready")
        await _first_of(self._stop, channel.closed)
        await server.stop()
        with suppress(ChannelClosedError, TimeoutError):
            await channel.call("ended", await self.report(None))

    # --- What the parent calls

    async def pulse(self, body: Any) -> None:
        """The answer shows that the event loop goes on."""

    async def use_slots(self, body: Any) -> None:
        self._parts.probe.workers = body["ready"], body["all"]
        self._parts.server.use_slots(body["slots"])

    async def counts(self, body: Any) -> Counts:
        queries = self._parts.rag.queries
        return Counts(queries.answered, queries.refused)

    async def report(self, body: Any) -> Report:
        metrics = self._parts.metrics
        families = [] if metrics is None else plain(await metrics.families())
        return Report(await self.counts(None), families)

    async def configure(self, body: Any) -> list[str]:
        return self._parts.configure(settings_from_plain(body))

    async def hand_over(self, body: Any) -> None:
        await self._parts.server.hand_over(self._handover)

    async def stop(self, body: Any) -> None:
        self._stop.set()

    # --- What is asked about all workers

    async def _counts_of_all(self) -> tuple[int, int, int]:
        try:
            body = await self._channel.call("counts_of_all")
        except (LlmTraderError, TimeoutError):
            return (*msgspec.structs.astuple(await self.counts(None)), 1)
        return tuple(body)

    async def _metrics_of_all(self) -> list[Family] | None:
        try:
            body = await self._channel.call("metrics_of_all")
        except (LlmTraderError, TimeoutError):
            return None
        return msgspec.convert(body, list[Family])

    async def _reload(self) -> Reloaded:
        body = await self._channel.call("reload", patience_s=_RELOAD_PATIENCE_S)
        return msgspec.convert(body, Reloaded)


def settings_from_plain(body: Any) -> Settings:
    return msgspec.convert(body, Settings, dec_hook=lambda _, value: Path(value))


async def work(connection: socket.socket) -> int:
    """Returns the exit code."""
    stop = asyncio.Event()
    handlers: dict[str, Any] = {}
    _obey_parent_alone(stop)
    async with Channel(connection, handlers) as channel:
        start = msgspec.convert(await channel.call("start"), WorkerStart)
        settings = settings_from_plain(start.settings)
        configure_logging(settings.logging.level, settings.logging.format)
        structlog.contextvars.bind_contextvars(worker=start.slot)
        sockets = SlotSockets.inherited(start.sockets)
        handover = Handover.inherited(start.handover)
        try:
            async with server_parts(settings, os.environ, _now_ms, sockets) as parts:
                worker = Worker(parts, channel, handover, stop)
                handlers |= {name: getattr(worker, name) for name in _CALLS_OF_PARENT}
                await worker.serve()
        except ChannelClosedError:
            return 0
        except LlmTraderError as error:
            with suppress(ChannelClosedError, TimeoutError):
                await channel.call("failed", error.message)
            return _FAILED
    return 0


def _obey_parent_alone(stop: asyncio.Event) -> None:
    """Ctrl-C and a hang-up of the terminal reach all processes; the parent says what follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)


async def _first_of(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _now_ms() -> int:
    return int(time.time() * 1000)


if __name__ == "__main__":
    sys.exit(run(work(socket.socket(fileno=int(sys.argv[1])))))
