"""Calls in both directions between a parent and a worker, over one socket pair.

A frame is its length in four bytes and then JSON. When one side ends, the other one notices.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog

from llm_trader.errors import ConfigurationError, LlmTraderError

Handler = Callable[[Any], Awaitable[Any]]

_LENGTH_BYTES: Final = 4
# A restart of a server or its readings at a scrape take less, unless it hangs.
PATIENCE_S: Final = 5.0

_log = structlog.get_logger(__name__)


class ChannelClosedError(LlmTraderError):
    """The other process has ended."""

    code = "channel_closed"


class _Frame(msgspec.Struct, array_like=True):
    """A call has a `name`; the reply to it has none, and an `error` if the call failed."""

    id: int
    name: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    problems: list[str] | None = None


class Channel:
    """`handlers` answer the calls of the other side. Use it as a context manager."""

    def __init__(self, connection: socket.socket, handlers: Mapping[str, Handler]) -> None:
        self._connection = connection
        self._handlers = handlers
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = asyncio.Event()

    async def __aenter__(self) -> Channel:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._connection)
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        for task in self._tasks:
            task.cancel()
        self._writer.close()

    def abandon(self) -> None:
        """Closes a channel that was never used."""
        self._connection.close()

    async def call(self, name: str, body: Any = None, patience_s: float = PATIENCE_S) -> Any:
        """What the other side's handler returns, as plain data.

        Raises `ChannelClosedError`, `ConfigurationError` with the message of a call that failed,
        and `TimeoutError`.
        """
        if self.closed.is_set():
            raise ChannelClosedError("the other process has ended")
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(_Frame(number, name, msgspec.Raw(msgspec.json.encode(body, enc_hook=str))))
        try:
            async with asyncio.timeout(patience_s):
                return msgspec.json.decode(await answer)
        finally:
            self._waiting.pop(number, None)

    def _send(self, frame: _Frame) -> None:
        content = msgspec.json.encode(frame)
        with suppress(OSError, RuntimeError):  # the other side has ended; the reader will notice
            self._writer.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)

    async def _read(self) -> None:
        try:
            while True:
                length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
                content = await self._reader.readexactly(length)
                frame = msgspec.json.decode(content, type=_Frame)
                if frame.name is not None:
                    task = asyncio.create_task(self._answer(frame.id, frame.name, frame.body))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                elif (answer := self._waiting.get(frame.id)) and not answer.done():
                    if frame.error is None:
                        answer.set_result(frame.body)
                    else:
                        details = {} if frame.problems is None else {"problems": frame.problems}
                        answer.set_exception(ConfigurationError(frame.error, **details))
        except (EOFError, OSError):
            pass
        finally:
            self.closed.set()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ChannelClosedError("the other process has ended"))

    async def _answer(self, number: int, name: str, body: msgspec.Raw) -> None:
        try:
            result = await self._handlers[name](msgspec.json.decode(body))
            reply = _Frame(number, body=msgspec.Raw(msgspec.json.encode(result, enc_hook=str)))
        except LlmTraderError as error:
            problems = error.details.get("problems")
            reply = _Frame(number, error=error.message, problems=problems)
        except Exception as error:  # noqa: BLE001  the caller should hear of it and not wait
            _log.error("worker_call_failed", call=name, exc_info=error)
            reply = _Frame(number, error=f"{name} failed: {error!r}")
        self._send(reply)
