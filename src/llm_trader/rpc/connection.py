"""One client's connection: bytes in, documents, answers side by side, bytes out.

1. `data_received` splits the bytes into documents; a task of its own answers each document.
   At the limit of concurrent answers, documents queue and reading pauses.
2. One timer limits both an incomplete document and silence; it is moved only when it runs out.
3. When the input ends, running answers are finished and sent; then `run` closes the connection.
4. Closing sends FIN and discards input for a moment: unread input would turn the close into an
   RST, which can destroy the last reply on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

from llm_trader.rpc.admission import Admission, Session
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext
from llm_trader.rpc.errors import InvalidRequestError
from llm_trader.rpc.framing import Frame, FrameSplitter, Oversize


class Connection(asyncio.Protocol):
    """Serves one client until the end of its input, a timeout, or `end_input`."""

    _transport: asyncio.Transport

    def __init__(
        self,
        dispatcher: Dispatcher,
        gate: Admission,
        config: RpcConfig,
        on_open: Callable[[Connection], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._gate = gate
        self._config = config
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self.session = Session()
        self._splitter = FrameSplitter(config.max_frame_kib << 10)
        self._queue: deque[tuple[Frame, float]] = deque()
        self._answers: set[asyncio.Task[None]] = set()
        self._heard_s = time.monotonic()
        self._frame_began_s: float | None = None
        self._input_ended = asyncio.Event()
        self._peer_ended = asyncio.Event()
        self._closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def pending(self) -> int:
        """The number of documents without a sent answer."""
        return len(self._answers) + len(self._queue)

    async def run(self) -> None:
        """Returns when the connection is closed."""
        try:
            await self._input_ended.wait()
            await self.settled()
            await self._hang_up()
        finally:
            self._timer.cancel()
            for answer in self._answers:
                answer.cancel()
            self._transport.close()

    async def settled(self) -> None:
        """Returns once no answer is running."""
        while self._answers:
            await asyncio.wait(self._answers)

    def end_input(self) -> None:
        """Stops reading; running answers are finished, then the connection closes."""
        if not self._input_ended.is_set():
            self._enqueue(self._splitter.finish())
            self._input_ended.set()

    def turn_away(self, refusal: bytes) -> None:
        """Sends the refusal and closes."""
        self._transport.write(refusal + b"\n")
        self._input_ended.set()

    # --- Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self.session.peer = f"{peer[0]}:{peer[1]}" if peer else "unknown:0"
        self._timer = self._loop.call_later(self._config.idle_timeout_s, self._check_timeouts)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        if self._input_ended.is_set():
            return
        self._heard_s = time.monotonic()
        frames = self._splitter.feed(data)
        if not self._splitter.in_frame:
            self._frame_began_s = None
        elif frames or self._frame_began_s is None:
            self._frame_began_s = self._heard_s
            self._set_timer(self._config.frame_timeout_s)
        self._enqueue(frames)
        if frames and isinstance(frames[-1], Oversize):
            self._input_ended.set()

    def eof_received(self) -> bool:
        self._peer_ended.set()
        self.end_input()
        return True  # keeps the connection open for the replies

    def connection_lost(self, error: Exception | None) -> None:
        for event in (self._input_ended, self._peer_ended, self._closed, self._writable):
            event.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # --- Answers

    def _enqueue(self, frames: list[Frame]) -> None:
        self._queue.extend((frame, self._heard_s) for frame in frames)
        self._start_answers()
        if self._queue:
            self._transport.pause_reading()

    def _start_answers(self) -> None:
        while self._queue and len(self._answers) < self._config.max_in_flight_per_connection:
            answer = self._loop.create_task(self._answer(*self._queue.popleft()))
            self._answers.add(answer)
            answer.add_done_callback(self._answer_ended)

    def _answer_ended(self, answer: asyncio.Task[None]) -> None:
        self._answers.discard(answer)
        if self._queue:
            self._start_answers()
            if not self._queue:
                self._frame_began_s = self._frame_began_s and time.monotonic()
                self._transport.resume_reading()

    async def _answer(self, frame: Frame, received_s: float) -> None:
        size = frame.limit_bytes if isinstance(frame, Oversize) else len(frame)
        context = RequestContext(
            session=self.session,
            received_s=received_s,
            deadline_s=time.monotonic() + self._config.request_deadline_s,
            request_bytes=size,
        )
        reply: bytes | None
        if isinstance(frame, Oversize):
            message = f"a document may have at most {size} bytes"
            refusal = InvalidRequestError(message, limit_bytes=size)
            reply = self._dispatcher.refuse(refusal, context)
        else:
            reply = await self._dispatcher.handle(frame, context, self._gate)
        if reply is not None and not self._transport.is_closing():
            self._transport.write(reply + b"\n")
            await self._wait_or_abort(self._writable)

    async def _wait_or_abort(self, event: asyncio.Event) -> None:
        """Ends the connection at once if the client does not read what was sent in time."""
        if event.is_set():
            return
        try:
            async with asyncio.timeout(self._config.write_timeout_s):
                await event.wait()
        except TimeoutError:
            self._transport.abort()

    # --- Timeouts and the end

    def _set_timer(self, delay_s: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._check_timeouts)

    def _check_timeouts(self) -> None:
        """Ends the input when a document or the silence has lasted too long."""
        now_s, config = time.monotonic(), self._config
        if self._queue:  # reading is paused, so the client cannot send
            remaining_s = config.frame_timeout_s
        elif self._frame_began_s is not None:
            remaining_s = self._frame_began_s + config.frame_timeout_s - now_s
        elif self._answers:  # a client that waits for an answer is not idle
            remaining_s = config.idle_timeout_s
        else:
            remaining_s = self._heard_s + config.idle_timeout_s - now_s
        if remaining_s > 0:
            self._set_timer(remaining_s)
        else:
            self.end_input()

    async def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            if not self._transport.is_closing():
                self._transport.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.discard_s):
                await self._peer_ended.wait()
        self._transport.close()
        await self._wait_or_abort(self._closed)
