"""JSON-RPC over WebSocket: a text frame is a document, its reply another one.

The server may also send notifications, through `Session.channel`. A client that reads so slowly
that one cannot be sent is dropped with the close code `TOO_SLOW`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.protocol import State

from llm_trader.rpc.admission import Admission, Session
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext, is_batch
from llm_trader.rpc.errors import OverloadedError, UnauthorizedError
from llm_trader.rpc.http.connection import HttpConnection
from llm_trader.rpc.http.receipt import Receipt

# Close codes: those of RFC 6455, and of the range for applications.
RESTARTING: Final = 1012
UNSUPPORTED: Final = 1003
POLICY: Final = 1008
OVERLOAD: Final = 1013
UNAUTHENTICATED: Final = 4401
TOO_SLOW: Final = 4408

_PARSED_AT_ONCE: Final = 1 << 11


class WebSocketConnection(WebSocketsSansIOProtocol):
    """Takes over the transport of an `HttpConnection`. Sends at once, without waiting."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.http: HttpConnection = app_state["connection"]
        self.app_state = {"connection": self.http, "websocket": self}
        self._unparsed = b""
        self._receipt = Receipt(self.http.gate.clock, self.http.limits.frame_timeout_s, self)
        self.on_shutdown: Callable[[], None] = self.close_for_restart

    def send_document(self, document: bytes) -> None:
        if self.handshake_complete and not self.close_sent and not self.transport.is_closing():
            self.conn.send_text(document)
            self.transport.write(b"".join(self.conn.data_to_send()))

    def push(self, document: bytes) -> bool:
        """Sends a notification; False if the client is dropped: too slow, or its key has ended."""
        if not self.http.gate.is_known(self.http.session):
            self.close_with(UNAUTHENTICATED, "the key was revoked or has ended")
            return False
        if not self.http.session.unsent.writable.is_set():
            self.close_with(TOO_SLOW, "you read too slowly; connect and subscribe again")
            return False
        self.send_document(document)
        return not self.transport.is_closing()

    def close_with(self, code: int, reason: str) -> None:
        if self.close_sent or not self.handshake_complete or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.stop_keepalive()
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._unparsed = b""
        self._resume_reading()  # for the client's own close frame
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)

    def close_for_restart(self) -> None:
        self.close_with(RESTARTING, "the server is stopping; connect again in a moment")

    def shutdown(self) -> None:
        if self.handshake_complete:
            self.on_shutdown()
        else:
            super().shutdown()

    # --- Called by the event loop

    def data_received(self, data: bytes) -> None:
        self._unparsed = self._unparsed + data if self._unparsed else data
        self._parse()
        try:
            self.http.gate.expect_memory(self._account())
        except OverloadedError as error:
            self.close_with(OVERLOAD, error.message[:120])

    def pause_writing(self) -> None:
        super().pause_writing()
        self.http.unread.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.http.unread.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        self._receipt.end()
        super().connection_lost(exc)
        self.http.ended()

    # --- Messages

    def send_receive_event_to_app(self) -> None:
        if self.conn.state is State.OPEN:
            super().send_receive_event_to_app()
        else:  # one of the two sides has said that it closes
            self.frames = []

    async def receive(self) -> Any:
        if self.queue.empty():
            self._parse()
        message = await self.queue.get()
        if self.queue.empty() and not self._unparsed:
            self._resume_reading()
        self._account()
        return message

    def _parse(self) -> None:
        """As far as a message at least; a full read may hold thousands."""
        while self._unparsed and not self.transport.is_closing():
            if not (self.queue.empty() or self.close_sent):
                break
            data, self._unparsed = (
                self._unparsed[:_PARSED_AT_ONCE],
                self._unparsed[_PARSED_AT_ONCE:],
            )
            super().data_received(data)
        if self._unparsed and not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()
        elif not self._unparsed and (self.queue.empty() or self.close_sent):
            self._resume_reading()

    def _resume_reading(self) -> None:
        if self.read_paused and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def _account(self) -> int:
        """What is received of messages that are not complete, or not asked for yet."""
        began_bytes = len(self.conn.reader.buffer) + sum(map(len, self.frames))
        if began_bytes:
            self._receipt.begin()
        else:
            self._receipt.end()
        return self.http.account(len(self._unparsed) + began_bytes)

    def is_reading_paused(self) -> bool:
        return self.read_paused

    def receipt_takes_too_long(self) -> None:
        timeout_s = self.http.limits.frame_timeout_s
        self.close_with(POLICY, f"a message must arrive within {timeout_s:g} s")


class WebSocketEndpoint:
    """Answers the documents of a connection side by side, as those of a TCP connection."""

    def __init__(self, dispatcher: Dispatcher, gate: Admission) -> None:
        self._dispatcher = dispatcher
        self._gate = gate

    async def serve(self, websocket: WebSocket) -> None:
        connection: WebSocketConnection = websocket.scope["state"]["websocket"]
        session, token = connection.http.session, bearer_token(websocket)
        if token is not None and self._gate.keys.required:
            # A client with a wrong key may still send a right one with rpc.authenticate.
            with contextlib.suppress(UnauthorizedError):
                session.principal = self._gate.identify(token, session, time.monotonic())
        await websocket.accept()
        limits = self._gate.config
        await _Conversation(websocket, connection, self._dispatcher, self._gate, limits).run()


class _Conversation:
    """One client's documents and their answers."""

    def __init__(
        self,
        websocket: WebSocket,
        connection: WebSocketConnection,
        dispatcher: Dispatcher,
        gate: Admission,
        config: RpcConfig,
    ) -> None:
        self._websocket = websocket
        self._connection = connection
        self._session: Session = connection.http.session
        self._dispatcher = dispatcher
        self._gate = gate
        self._config = config
        self._answers: set[asyncio.Task[None]] = set()
        self._batch: asyncio.Task[None] | None = None

    async def run(self) -> None:
        session, connection = self._session, self._connection
        session.channel = connection
        connection.on_shutdown = self._shut_down
        loop = asyncio.get_running_loop()
        bouncer = loop.call_later(self._config.authentication_timeout_s, self._expect_token)
        try:
            while True:
                message = await self._websocket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                document = message.get("text")
                if document is None:
                    connection.close_with(UNSUPPORTED, "send text frames, each a JSON document")
                    break
                await self._until_may_start()
                self._start(document.encode())
        except WebSocketDisconnect:
            pass
        finally:
            bouncer.cancel()
            for answer in self._answers:
                answer.cancel()
            session.end()

    def _shut_down(self) -> None:
        """Closes once the running answers are sent; new calls are refused meanwhile."""
        if not self._answers:
            self._connection.close_for_restart()

    def _expect_token(self) -> None:
        if not self._gate.is_known(self._session):
            self._connection.close_with(UNAUTHENTICATED, "no key was sent in time")

    async def _until_may_start(self) -> None:
        """Until then nothing more is read from the client."""
        limit = self._config.max_in_flight_per_connection
        while self._answers and (
            self._batch is not None
            or len(self._answers) >= limit
            or not self._gate.has_share(self._session)
        ):
            await asyncio.wait(self._answers, return_when=asyncio.FIRST_COMPLETED)
        await self._session.unsent.writable.wait()

    def _start(self, document: bytes) -> None:
        answer = asyncio.create_task(self._answer(document))
        self._answers.add(answer)
        if is_batch(document):
            self._batch = answer
        answer.add_done_callback(self._ended)

    def _ended(self, answer: asyncio.Task[None]) -> None:
        self._answers.discard(answer)
        if answer is self._batch:
            self._batch = None
        if self._gate.draining:
            self._shut_down()

    async def _answer(self, document: bytes) -> None:
        now_s = time.monotonic()
        context = RequestContext(
            session=self._session,
            received_s=now_s,
            deadline_s=now_s + self._config.request_deadline_s,
            request_bytes=len(document),
        )
        reply = await self._dispatcher.handle(document, context, self._gate)
        if reply is not None:
            self._connection.send_document(reply)
            if self._session.barred:
                self._connection.close_with(POLICY, "too many wrong keys")
        await self._session.unsent.writable.wait()


def bearer_token(request: HTTPConnection) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
