"""One client's connection: bytes in, documents, answers side by side, bytes out.

1. Bytes are split into documents, no more than can be answered soon, and a task of its own answers
   each document.
   At the limit of concurrent answers, documents queue and reading pauses. So they do behind a
   batch, while the client leaves replies unread, and when more waits than the deadline allows.
   A client that speaks HTTP is told the port for it, and nothing of what it sends is a document.
   A document that lacks only its line end is answered after a moment of silence.
2. One timer limits an incomplete document, silence, and the time without a key; another one
   unread replies. Both are moved only when they run out, and count only while the loop is free.
3. When the input ends, running answers are finished and sent; then `run` closes the connection.
   When the connection is lost, they are cancelled.
4. Between two documents the connection can move to another process (`handover`).
5. Closing sends FIN and discards input for a moment: unread input would turn the close into an
   RST, which can destroy the last reply on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from llm_trader.rpc import envelope
from llm_trader.rpc.admission import Admission, Session
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext, is_batch
from llm_trader.rpc.errors import PROTOCOL_ERRORS, InvalidRequestError, OverloadedError
from llm_trader.rpc.framing import Frame, FrameSplitter, Oversize
from llm_trader.rpc.http_on_tcp import http_error
from llm_trader.rpc.unread_watch import UnreadWatch

# Copying a larger reply to append its line end costs more memory than a second write.
_LARGE_REPLY_BYTES: Final = 1 << 16
# Bytes that are split into documents at a time, and how long in a pass of the event loop: a full
# read may hold 100,000 documents.
_SPLIT_BYTES: Final = 1 << 12
_SPLIT_S: Final = 0.0005
_STARTED_AT_ONCE: Final = 4
# A person with netcat waits that long for an answer to a line without its end.
_UNENDED_S: Final = 2.0
_HTTP_REQUEST: Final = re.compile(rb"[A-Z]{3,10} \S+ HTTP/\d(\.\d)?\s*")
_NOTHING: Final = memoryview(b"")
# Some queries are worked on in vain meanwhile.
_LOSS_CHECK_S: Final = 0.2


class Connection(asyncio.Protocol):
    """Serves one client until the end of its input, a timeout, or `end_input`."""

    door = "tcp"
    _transport: asyncio.Transport
    _socket: socket.socket

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
        self._clock = gate.clock
        self._unread = UnreadWatch(gate, config.write_timeout_s)
        self._unsent = self._unread.unsent
        self.session = Session(unsent=self._unsent)
        self._splitter = FrameSplitter(config.max_frame_kib << 10)
        self._unsplit = _NOTHING
        self._received_s = 0.0
        self._will_go_on = False
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0
        self._answers: set[asyncio.Task[None]] = set()
        self._answering_bytes = 0
        self._received_bytes = 0
        self._batch: asyncio.Task[None] | None = None
        self._reading_paused = False
        self._loss_timer: asyncio.TimerHandle | None = None
        self._probed = False
        self._opened_s = self._heard_s = self._clock.now_s()
        self._frame_began_s: float | None = None
        self._has_sent_documents = False
        self._input_ended = asyncio.Event()
        self._peer_ended = asyncio.Event()
        self._closed = asyncio.Event()
        self._log = structlog.get_logger(__name__).bind()

    @property
    def pending(self) -> int:
        """The number of documents without a sent answer."""
        return len(self._answers) + len(self._queue) + bool(self._unsplit)

    @property
    def unauthenticated(self) -> bool:
        """Whether the client must send a key before anything else is done for it."""
        return not (self._input_ended.is_set() or self._gate.is_known(self.session))

    async def run(self) -> None:
        """Returns when the connection is closed."""
        try:
            await self._input_ended.wait()
            await self.settled()
            await self._hang_up()
        finally:
            self._timer.cancel()
            self._cancel_answers()
            if self._unread.buffered_bytes():
                self._transport.abort()
            self._close()

    async def settled(self) -> None:
        """Returns once no answer is running."""
        while self._answers:
            await asyncio.wait(self._answers)

    def end_input(self) -> None:
        """Stops reading; running answers are finished, then the connection closes."""
        if not self._input_ended.is_set():
            unsplit, self._unsplit = bytes(self._unsplit), _NOTHING
            self._line_up(self._splitter.feed(unsplit) + self._splitter.finish())
            self._input_ended.set()
            self._go_on()

    def turn_away(self, refusal: bytes) -> None:
        """Sends the refusal and closes; nothing more of the input is answered."""
        self._transport.write(refusal + b"\n")
        self._discard_input()
        self._input_ended.set()

    # --- What moving to another process needs

    @property
    def stays(self) -> bool:
        """Whether it is closing, or encrypted."""
        return self._input_ended.is_set() or not self._transport.can_write_eof()

    def can_move(self) -> bool:
        busy = self.pending or self._splitter.in_frame or self._unread.buffered_bytes()
        return not (busy or self._transport.is_closing())

    def descriptor(self) -> int:
        return self._socket.fileno()

    def leave(self) -> None:
        self._input_ended.set()
        self._transport.abort()

    # --- Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._socket = transport.get_extra_info("socket")
        peer = transport.get_extra_info("peername")
        self.session.peer = f"{peer[0]}:{peer[1]}" if peer else "unknown:0"
        self._unread.connection_made(self._transport, self.session.peer)
        self._timer = self._loop.call_later(self._patience_s(), self._check_timeouts)
        self._on_open(self)

    def data_received(self, data: bytes) -> None:
        if self._input_ended.is_set():
            return
        self._heard_s = self._clock.now_s()
        self._received_s = time.monotonic()
        self._unsplit = memoryview(bytes(self._unsplit) + data if self._unsplit else data)
        self._go_on()
        try:
            self._gate.expect_memory(self._account_received())
        except OverloadedError as error:
            self.turn_away(envelope.reply(envelope.NULL, PROTOCOL_ERRORS.error_object(error)))

    def eof_received(self) -> bool:
        self._peer_ended.set()
        self.end_input()
        self._watch_loss()
        # Keeps the connection open for the replies, which TLS cannot.
        return self._transport.can_write_eof()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._log.debug("rpc_connection_reset", peer=self.session.peer, error=str(error))
        self._cancel_answers()
        for event in (self._input_ended, self._peer_ended, self._closed):
            event.set()
        self._unread.connection_lost()
        self._account_received()

    def pause_writing(self) -> None:
        self._unread.pause_writing()
        self._pause_or_resume_reading()

    def resume_writing(self) -> None:
        self._unread.resume_writing()
        self._go_on()

    # --- Documents

    def _go_on(self) -> None:
        """Starts to answer what may start, and splits no more than that."""
        self._will_go_on = False
        until_s = time.monotonic() + _SPLIT_S
        while self._unsplit and not self._queue and time.monotonic() < until_s:
            self._split(_SPLIT_BYTES if len(self._unsplit) > _SPLIT_BYTES else None)
        # A call joins the queue in the next pass; only then is the share of the others known.
        for _ in range(_STARTED_AT_ONCE):
            if self._queue and self._may_start(self._queue[0]):
                self._start_answer(self._queue.popleft())
        if self._may_start(self._queue[0]) if self._queue else self._unsplit:
            self._go_on_soon()
        self._pause_or_resume_reading()

    def _go_on_soon(self) -> None:
        if not self._will_go_on:
            self._will_go_on = True
            self._loop.call_soon(self._go_on)

    def _split(self, size: int | None) -> None:
        chunk, self._unsplit = self._unsplit[:size], self._unsplit[size:] if size else _NOTHING
        frames = self._splitter.feed(bytes(chunk))
        if not self._splitter.in_frame:
            self._frame_began_s = None
        elif frames or self._frame_began_s is None:
            self._frame_began_s = self._heard_s
            self._set_timer(min(self._config.frame_timeout_s, _UNENDED_S))
        if frames and not self._has_sent_documents:
            self._has_sent_documents = True
            if isinstance(frames[0], bytes) and _HTTP_REQUEST.fullmatch(frames[0]):
                self.turn_away(http_error(self._gate.http_address))
                return
        self._line_up(frames)
        if frames and isinstance(frames[-1], Oversize):
            self._discard_input()
            self._input_ended.set()

    def _answer_unended(self) -> None:
        frames = self._splitter.take_unended()
        if frames:
            self._frame_began_s = None
            self._line_up(frames)
            self._go_on()
            self._account_received()

    def _line_up(self, frames: list[Frame]) -> None:
        self._queue.extend(frames)
        self._queued_bytes += sum(map(_size, frames))

    def _discard_input(self) -> None:
        self._unsplit = _NOTHING
        self._splitter = FrameSplitter(0)

    # --- Answers

    def _start_answer(self, frame: Frame) -> None:
        size = _size(frame)
        self._queued_bytes -= size
        answer = self._loop.create_task(self._answer(frame))
        self._answers.add(answer)
        self._answering_bytes += size
        if isinstance(frame, bytes) and is_batch(frame):
            self._batch = answer
        answer.add_done_callback(functools.partial(self._answer_ended, size))

    def _may_start(self, frame: Frame) -> bool:
        if not self._answers:
            return self._unsent.writable.is_set()
        return (
            self._batch is None
            and len(self._answers) < self._config.max_in_flight_per_connection
            and self._answering_bytes + _size(frame) <= self._config.max_frame_kib << 10
            and self._unsent.writable.is_set()
            and self._gate.has_share(self.session)
        )

    def _answer_ended(self, size: int, answer: asyncio.Task[None]) -> None:
        self._answers.discard(answer)
        self._answering_bytes -= size
        if answer is self._batch:
            self._batch = None
        if self._queue or self._unsplit or self._reading_paused:
            self._go_on()
        self._account_received()
        self._gate.at_rest(self)

    def _pause_or_resume_reading(self) -> None:
        pause = bool(self._queue or self._unsplit) or not self._unsent.writable.is_set()
        if pause == self._reading_paused or self._transport.is_closing():
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
            self._watch_loss()
        else:
            self._frame_began_s = self._frame_began_s and self._clock.now_s()
            self._transport.resume_reading()

    def _watch_loss(self) -> None:
        if self._loss_timer is None:
            self._loss_timer = self._loop.call_later(_LOSS_CHECK_S, self._check_loss)

    def _check_loss(self) -> None:
        """Cancels the work for a client that is gone.

        The loop tells of a reset only where it reads. A client that closed looks like one that has
        sent all and waits for its replies, until something is sent to it.
        """
        self._loss_timer = None
        if self._transport.is_closing() or not self.pending:
            return
        if number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            error = os.strerror(number)
            self._log.debug("rpc_connection_reset", peer=self.session.peer, error=error)
            self._transport.abort()
            return
        if not self._probed and self._peer_sends_no_more() and not self._unread.buffered_bytes():
            self._probed = True
            self._transport.write(b" ")  # JSON allows a blank before the next reply
        if self._reading_paused or self._peer_ended.is_set():
            self._watch_loss()

    def _peer_sends_no_more(self) -> bool:
        if self._peer_ended.is_set() or not hasattr(select, "POLLRDHUP"):
            return self._peer_ended.is_set()
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def _cancel_answers(self) -> None:
        self._discard_input()
        self._queue.clear()
        self._queued_bytes = 0
        for answer in self._answers:
            answer.cancel()

    def _account_received(self) -> int:
        """The bytes that wait for their end, for a place, or for an answer."""
        received = len(self._unsplit) + self._splitter.held_bytes
        received += self._queued_bytes + self._answering_bytes
        self._gate.received_bytes += received - self._received_bytes
        self._received_bytes = received
        return received

    async def _answer(self, frame: Frame) -> None:
        size = frame.limit_bytes if isinstance(frame, Oversize) else len(frame)
        context = RequestContext(
            session=self.session,
            received_s=self._received_s,
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
            self._send(reply)
            if self.session.barred:
                self._input_ended.set()
            await self._unsent.writable.wait()

    def _send(self, reply: bytes) -> None:
        if len(reply) < _LARGE_REPLY_BYTES:
            self._transport.write(reply + b"\n")
        else:
            # A view, as what is not sent at once would be copied twice.
            self._transport.write(memoryview(reply))
            self._transport.write(b"\n")

    # --- Timeouts and the end

    def _set_timer(self, delay_s: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._check_timeouts)

    def _patience_s(self) -> float:
        """The time until the next check at the latest."""
        config = self._config
        if self.unauthenticated:
            return min(config.idle_timeout_s, config.authentication_timeout_s)
        return config.idle_timeout_s

    def _check_timeouts(self) -> None:
        """Ends the input when a document, the silence or the wait for a key lasts too long."""
        now_s, config = self._clock.now_s(), self._config
        if self.unauthenticated and self._opened_s + config.authentication_timeout_s <= now_s:
            remaining_s = 0.0
        elif self._reading_paused:  # so the client cannot send
            remaining_s = config.frame_timeout_s
        elif self._frame_began_s is not None:
            remaining_s = self._frame_began_s + config.frame_timeout_s - now_s
            quiet_s = now_s - self._heard_s
            if quiet_s >= _UNENDED_S and not self._unsplit:
                self._answer_unended()
            remaining_s = min(remaining_s, _UNENDED_S - quiet_s % _UNENDED_S)
        elif self._answers:  # a client that waits for an answer is not idle
            remaining_s = config.idle_timeout_s
        else:
            remaining_s = self._heard_s + config.idle_timeout_s - now_s
        if remaining_s > 0:
            self._set_timer(min(remaining_s, self._patience_s()))
        else:
            self._log.debug("rpc_connection_timed_out", peer=self.session.peer)
            self.end_input()

    async def _hang_up(self) -> None:
        if self._transport.can_write_eof():  # TLS has a farewell of its own
            # uvloop raises RuntimeError where the client has reset the connection.
            with contextlib.suppress(OSError, RuntimeError):
                if not self._transport.is_closing():
                    self._transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.discard_s):
                    await self._peer_ended.wait()
        self._close()
        await self._closed_or_abort()

    def _close(self) -> None:
        # asyncio's TLS forgets its connection when it is closed twice.
        if not self._transport.is_closing():
            self._transport.close()

    async def _closed_or_abort(self) -> None:
        """Waits while the client reads what is left."""
        while not self._closed.is_set():
            left = self._unread.buffered_bytes() + self._unread.kernel_bytes()
            until_s = self._clock.now_s() + self._config.write_timeout_s
            while (remaining_s := until_s - self._clock.now_s()) > 0 and not self._closed.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(remaining_s):
                        await self._closed.wait()
            if self._unread.buffered_bytes() + self._unread.kernel_bytes() >= left:
                self._transport.abort()
                return


def _size(frame: Frame) -> int:
    return 0 if isinstance(frame, Oversize) else len(frame)
