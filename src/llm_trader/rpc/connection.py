"""One client's connection: bytes in, documents, answers side by side, bytes out.

1. Read and split. Two clocks bound the waiting: one for a document under way, one for silence.
2. A document that comes alone is answered by the task that reads. If that answer has to wait for
   anything, a new task takes the reading over, so nothing is held up; mostly it does not have
   to, which saves a task per request.
3. Documents that come together get a task each. Past the limit of answers at once, reading stops.
4. At the end of input the answers under way are finished and sent, then the connection closes.
5. Closing sends FIN and reads on for a moment: unread input would turn the close into an RST,
   which can destroy the last reply on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

from llm_trader.rpc import envelope
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.deadlines import Begun, ReadClock
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext, Session
from llm_trader.rpc.errors import InvalidRequestError, error_object
from llm_trader.rpc.framing import Frame, FrameSplitter, Oversize
from llm_trader.rpc.limits import Admission

CHUNK_BYTES: Final = 1 << 16


class Connection:
    """Serves one client until its end of input, a limit, or `end_input`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        dispatcher: Dispatcher,
        gate: Admission,
        config: RpcConfig,
    ) -> None:
        self._session = Session(peer_name(writer))
        self._reader = reader
        self._writer = writer
        self._transport = writer.transport
        self._dispatcher = dispatcher
        self._gate = gate
        self._config = config
        self._splitter = FrameSplitter(config.max_document_bytes)
        self._clock = ReadClock()
        self._frame_deadline_s: float | None = None
        self._input_over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._answer_ended = asyncio.Event()
        self.pending = 0

    async def run(self) -> None:
        send_at_once(self._writer)
        try:
            await self._read_on()
            while self._tasks:
                await asyncio.wait(self._tasks)
            await hang_up(self._reader, self._writer, self._config)
        finally:
            for task in self._tasks:
                task.cancel()
            self._clock.close()
            self._writer.close()

    async def settled(self) -> None:
        """Returns once no answer is under way."""
        while self.pending:
            await self._ended_answer()

    def end_input(self) -> None:
        """Reads no further; what is under way is finished, then the connection closes."""
        self._input_over = True
        self._clock.ring()

    async def _read_on(self) -> None:
        """Reads until the input is over, or until an answer kept this task and reading moved on."""
        while frames := await self._next_frames():
            if self.pending == 0 and len(frames) == 1:
                if await self._answer_here(frames[0]):
                    return
            else:
                await self._answer_apart(frames)

    async def _next_frames(self) -> list[Frame]:
        """One frame or more; none when the input is over."""
        while not self._input_over:
            data = await self._read()
            if data:
                frames = self._splitter.feed(data)
                self._note_frame_deadline(bool(frames))
            else:
                frames = self._splitter.finish()
            if not data or (frames and isinstance(frames[-1], Oversize)):
                self._input_over = True
            if frames:
                return frames
        return []

    def _note_frame_deadline(self, another_began: bool) -> None:
        if not self._splitter.in_frame:
            self._frame_deadline_s = None
        elif another_began or self._frame_deadline_s is None:
            self._frame_deadline_s = time.monotonic() + self._config.frame_timeout_s

    async def _read(self) -> bytes:
        """The next bytes; none at the end of input or when a clock ran out."""
        while not self._input_over:
            idle_deadline_s = time.monotonic() + self._config.idle_timeout_s
            self._clock.start(self._frame_deadline_s or idle_deadline_s)
            try:
                return await self._reader.read(CHUNK_BYTES)
            except ConnectionError:
                return b""
            except asyncio.CancelledError:
                if not self._clock.rang():
                    raise
                if self._frame_deadline_s is not None or not self.pending:
                    return b""
            finally:
                self._clock.stop()
        return b""

    async def _answer_here(self, frame: Frame) -> bool:
        """True when the answer had to wait, so that another task reads by now."""
        self.pending += 1
        answer = Begun(self._answer(frame))
        if answer.done:
            return False
        self._start(self._read_on())
        await answer
        return True

    async def _answer_apart(self, frames: list[Frame]) -> None:
        for frame in frames:
            while self.pending >= self._config.max_in_flight_per_connection:
                await self._ended_answer()
            self.pending += 1
            self._start(self._answer(frame))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ended_answer(self) -> None:
        self._answer_ended.clear()
        await self._answer_ended.wait()

    async def _answer(self, frame: Frame) -> None:
        try:
            reply = _too_long(frame) if isinstance(frame, Oversize) else await self._handle(frame)
            if reply is not None:
                await self._send(reply)
        finally:
            self.pending -= 1
            self._answer_ended.set()

    def _handle(self, document: bytes) -> Awaitable[bytes | None]:
        now_s = time.monotonic()
        deadline_s = now_s + self._config.request_deadline_s
        context = RequestContext(session=self._session, received_s=now_s, deadline_s=deadline_s)
        return self._dispatcher.handle(document, context, self._gate)

    async def _send(self, reply: bytes) -> None:
        if self._transport.is_closing():
            return
        self._writer.write(reply + b"\n")
        if self._transport.get_write_buffer_size() == 0:
            return
        try:
            async with asyncio.timeout(self._config.write_timeout_s):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):
            self._transport.abort()


async def hang_up(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, config: RpcConfig
) -> None:
    """Sends what is left and FIN, discards input for a moment, closes. Never raises `OSError`."""
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(config.discard_s):
            while await reader.read(CHUNK_BYTES):
                pass
    writer.close()
    try:
        async with asyncio.timeout(config.write_timeout_s):
            await writer.wait_closed()
    except OSError:
        writer.transport.abort()


def peer_name(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if peer else "unknown:0"


def send_at_once(writer: asyncio.StreamWriter) -> None:
    """Turns Nagle's algorithm off, which holds a small reply back for up to 40 ms."""
    connected = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _too_long(frame: Oversize) -> bytes:
    refusal = InvalidRequestError(
        f"a document may have at most {frame.limit_bytes} bytes", limit_bytes=frame.limit_bytes
    )
    return envelope.failure(envelope.NULL, error_object(refusal))
