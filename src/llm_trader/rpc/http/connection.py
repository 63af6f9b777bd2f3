"""One HTTP connection: what uvicorn does not limit.

1. A request must arrive within a time from its first byte, headers and body. Middleware runs too
   late for that: after the headers.
2. Headers and body have a greatest size, and what is received counts at the gate.
3. Requests that are sent ahead are parsed only as far as they can be answered.
4. A client that does not read its replies is cut off; the work for one that is gone is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import structlog
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.admission import Admission, Session
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.errors import OverloadedError
from llm_trader.rpc.http.receipt import Receipt
from llm_trader.rpc.http.status import refusal, refusal_of
from llm_trader.rpc.unread_watch import UnreadWatch

T = TypeVar("T")

# Bytes that are parsed at a time: a full read may hold thousands of requests.
_PARSED_AT_ONCE: Final = 1 << 11
# Browsers with many cookies send 8 KiB.
_MAX_HEAD_BYTES: Final = 1 << 15
# Around the body: sizes of chunks, trailers.
_CHUNKING_BYTES: Final = 1 << 16

_log = structlog.get_logger(__name__)


class _HeldFlow(FlowControl):
    """Does not read on while there is something to parse."""

    has_unparsed = False

    def resume_reading(self) -> None:
        if not self.has_unparsed:
            super().resume_reading()


class _QuietTransport:
    """A transport on which writing to a client that is gone does nothing, nor closing twice."""

    def __init__(self, transport: asyncio.Transport, peer: str) -> None:
        self._transport = transport
        self._peer = peer

    def write(self, data: bytes) -> None:
        # uvloop raises RuntimeError between a reset and the call of `connection_lost`.
        try:
            self._transport.write(data)
        except (OSError, RuntimeError):
            _log.debug("http_connection_reset", peer=self._peer)

    def close(self) -> None:
        # asyncio's TLS forgets its connection when it is closed twice.
        if not self._transport.is_closing():
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpConnection(HttpToolsProtocol):
    """Serves one client; `on_open` and `on_close` are called once each."""

    door = "http"
    flow: _HeldFlow

    def __init__(
        self,
        config: Config,
        state: ServerState,
        gate: Admission,
        limits: RpcConfig,
        on_open: Callable[[HttpConnection], None],
        on_close: Callable[[HttpConnection], None],
    ) -> None:
        super().__init__(config, state, {"connection": self})
        self.gate = gate
        self.limits = limits
        self._on_open = on_open
        self._on_close = on_close
        self.unread = UnreadWatch(gate, limits.write_timeout_s)
        self.session = Session(unsent=self.unread.unsent)
        self._answers: set[asyncio.Future[Any]] = set()
        self._unparsed = b""
        self._in_head = True
        self._in_message = False
        self._head_bytes = self._body_bytes = self._raw_body_bytes = 0
        self._accounted_bytes = 0
        self._answering: RequestResponseCycle | None = None
        self._refusal: bytes | None = None
        self._receipt = Receipt(gate.clock, limits.frame_timeout_s, self)
        self._idle_timer: asyncio.TimerHandle | None = None

    async def answer(self, work: Awaitable[T]) -> T:
        """The result of work for the client; it is cancelled when the client is gone."""
        task = asyncio.ensure_future(work)
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
        return await task

    def turn_away(self, error: LlmTraderError) -> None:
        """Answers 503 to whatever is sent, and closes."""
        self._refuse(_response(503, refusal_of(error)))

    def refuse(self, status: int, message: str) -> None:
        """Answers what was received so far with an error, after all earlier ones, and closes."""
        self._refuse(_response(status, refusal(message)))

    def _refuse(self, response: bytes) -> None:
        if self._refusal is not None or self.transport.is_closing():
            return
        self._refusal = response
        self._unparsed = b""
        cycle = self.cycle if not self._in_head else None
        for waiting in [entry for entry in self.pipeline if entry[0] is cycle]:
            self.pipeline.remove(waiting)
        if cycle is not None and cycle is self._answering:
            if cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
            self._answering = None
        if self._answering is None:
            self._send_refusal()

    # --- What moving to another process needs

    @property
    def stays(self) -> bool:
        """Whether it is closing, encrypted, or speaks WebSocket."""
        is_plain = self.scheme == "http" and self.transport.get_protocol() is self
        return not is_plain or self._refusal is not None or self.transport.is_closing()

    def can_move(self) -> bool:
        receiving = self._unparsed or self._in_message or self._receipt.has_begun
        answering = self._answering is not None or self.pipeline
        return not (receiving or answering or self.unread.buffered_bytes())

    def descriptor(self) -> int:
        return int(self.transport.get_extra_info("socket").fileno())

    def leave(self) -> None:
        self.transport.abort()

    # --- Called by the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _HeldFlow(transport)
        host, port = self.client or ("unknown", 0)
        self.session.peer = f"{host}:{port}"
        self.unread.connection_made(transport, self.session.peer)
        self.transport = cast(asyncio.Transport, _QuietTransport(transport, self.session.peer))
        self._idle_timer = self.loop.call_later(self.limits.idle_timeout_s, self._close_unused)
        self._on_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended()

    def ended(self) -> None:
        """The connection is closed, whichever protocol it spoke in the end."""
        self._stop_timers()
        self._unset_keepalive_if_required()
        self._unparsed = b""
        for answer in self._answers:
            answer.cancel()
        self.unread.connection_lost()
        self.account(0)
        self._on_close(self)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._receipt.begin()
        self._unparsed = self._unparsed + data if self._unparsed else data
        self._parse()
        try:
            self.gate.expect_memory(self._account())
        except OverloadedError as error:
            self.turn_away(error)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread.resume_writing()

    # --- Parsing

    def _parse(self) -> None:
        protocol = self.transport.get_protocol()
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            if self.transport.get_protocol() is not protocol:  # it speaks WebSocket from now on
                break
            data, self._unparsed = (
                self._unparsed[:_PARSED_AT_ONCE],
                self._unparsed[_PARSED_AT_ONCE:],
            )
            if self._in_head:
                self._head_bytes += len(data)
            else:
                self._raw_body_bytes += len(data)
            super().data_received(data)
            if self._in_head and self._head_bytes > _MAX_HEAD_BYTES:
                self.refuse(431, f"headers may have at most {_MAX_HEAD_BYTES} bytes")
            if self._raw_body_bytes > 2 * self._max_body_bytes + _CHUNKING_BYTES:
                self._refuse_body()
        if self._in_message:  # it may be a second one in the same bytes
            self._receipt.begin()
        self.flow.has_unparsed = bool(self._unparsed)
        if self.flow.has_unparsed:
            self.flow.pause_reading()
        elif not self.pipeline and self._in_head:
            self.flow.resume_reading()

    @property
    def _max_body_bytes(self) -> int:
        return self.limits.max_frame_kib << 10

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_message = True

    def on_headers_complete(self) -> None:
        if self._refusal is not None:
            return
        declared = next((v for name, v in self.headers if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared[:20]) > self._max_body_bytes:
            self._refuse_body()
            return
        self._head_bytes = self._body_bytes = self._raw_body_bytes = 0
        super().on_headers_complete()
        self._in_head = False
        # The parser loses what follows a request to speak another protocol, such as CONNECT.
        if self.parser.should_upgrade() and not self._should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self._refusal is not None:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._max_body_bytes:
            self._refuse_body()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refusal is not None:
            return
        self._receipt_ends()
        self._in_message = False
        if self.cycle is not None:  # else it is a handshake of WebSocket
            super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, "this is not HTTP/1.1")

    def _refuse_body(self) -> None:
        self.refuse(413, f"a body may have at most {self._max_body_bytes} bytes")

    def _should_upgrade(self) -> bool:
        # A handshake of another kind gets no answer at all; without a method it is refused already.
        is_get = self.scope.get("method") == "GET" and self.url.isascii()
        return is_get and super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        self._receipt_ends()
        if self._answering is not None:
            self.refuse(400, "open a WebSocket on a connection of its own")
            return
        self._stop_timers()
        super().handle_websocket_upgrade()
        websocket = cast(Any, self.transport.get_protocol())
        if not websocket.handshake_initiated:  # its parser is stricter, and says nothing
            self.connections.discard(websocket)
            self.connections.add(self)
            self.transport.set_protocol(self)
            self.refuse(400, "this is not a handshake of WebSocket")

    # --- Answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._answering = None
        super().on_response_complete()
        if self._answering is None and self._refusal is not None:
            self._send_refusal()
        elif self._unparsed:
            self.loop.call_soon(self._go_on)
        self._account()
        # In the next pass, when uvloop has written the reply.
        self.loop.call_soon(self.gate.at_rest, self)

    def _go_on(self) -> None:
        if self._refusal is None and not self.transport.is_closing():
            self._receipt.begin()
            self._unset_keepalive_if_required()
            self._parse()
            self._account()

    def _account(self) -> int:
        body_bytes = self._body_bytes if self._answering is not None else 0
        return self.account(len(self._unparsed) + self._head_bytes + body_bytes)

    def account(self, received_bytes: int) -> int:
        """What is received and not answered, at the gate."""
        self.gate.received_bytes += received_bytes - self._accounted_bytes
        self._accounted_bytes = received_bytes
        return received_bytes

    # --- Timeouts and the end

    def _receipt_ends(self) -> None:
        self._receipt.end()
        self._head_bytes = 0

    def is_reading_paused(self) -> bool:
        return self.flow.read_paused

    def receipt_takes_too_long(self) -> None:
        self.refuse(408, f"a request must arrive within {self.limits.frame_timeout_s:g} s")

    def _close_unused(self) -> None:
        """Closes a connection that sent nothing at all; later silences are uvicorn's to end."""
        if self.cycle is None and not self._receipt.has_begun:
            self.transport.close()

    def _stop_timers(self) -> None:
        self._receipt.end()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _send_refusal(self) -> None:
        """Sends it and FIN, and discards input for a moment: an RST would destroy it."""
        if self.transport.is_closing() or self._refusal is None:
            return
        self._stop_timers()
        self.flow.has_unparsed = False
        self.flow.resume_reading()
        self.transport.write(self._refusal)
        # uvloop raises RuntimeError where the client has reset the connection.
        with contextlib.suppress(OSError, RuntimeError):
            self.transport.write_eof()
        self.loop.call_later(self.limits.discard_s, self.transport.close)


def _response(status: int, body: bytes) -> bytes:
    retry = b"retry-after: 1\r\n" if status == 503 else b""
    return STATUS_LINE[
        status
    ] + b"content-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b" % (
        len(body),
        retry,
        body,
    )
