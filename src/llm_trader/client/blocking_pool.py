"""The sockets of the client for threads; a thread has one to itself."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from llm_trader.client.course import Exchange
from llm_trader.client.endpoint import Endpoint
from llm_trader.client.errors import error_of, typed
from llm_trader.errors import LlmTraderError
from llm_trader.rpc.conversation import (
    ConnectionLostError,
    Conversation,
    NoReplyError,
    Reply,
    cannot_connect,
)

_READ_BYTES: Final = 1 << 18
Outcome = Reply | LlmTraderError


class BlockingPool:
    """At most `connections` are in use at once; those that are in no use wait for the next call."""

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        self._endpoint = endpoint
        self._free = threading.BoundedSemaphore(connections)
        self._idle: list[BlockingConnection] = []

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def connection(self, until_s: float) -> Iterator[BlockingConnection]:
        if not self._free.acquire(timeout=max(until_s - time.monotonic(), 0)):
            raise NoReplyError("all connections of this client are in use")
        try:
            connection = self._take_idle() or BlockingConnection(self._endpoint, until_s)
            try:
                yield connection
            except BaseException:  # a request may be there in part, as after Ctrl-C
                connection.is_lost = True
                raise
            finally:
                if connection.is_lost:
                    connection.close()
                else:
                    self._idle.append(connection)
        finally:
            self._free.release()

    def _take_idle(self) -> BlockingConnection | None:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not connection.was_closed():
                    return connection
                connection.close()
        return None


class BlockingConnection:
    """One socket; it is used by one thread at a time."""

    def __init__(self, endpoint: Endpoint, until_s: float) -> None:
        timeout_s = max(until_s - time.monotonic(), 0.001)
        host, port = endpoint.host, endpoint.port
        self.is_lost = False
        self._conversation = Conversation(endpoint.codec())
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
            if endpoint.tls is not None:
                self._socket = endpoint.tls.wrap_socket(self._socket, server_hostname=host)
        except OSError as error:
            raise cannot_connect(host, port, timeout_s, error) from None
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if endpoint.token_of_connection is not None:
            self._authenticate(endpoint.token_of_connection, timeout_s)

    def close(self) -> None:
        self.is_lost = True
        self._socket.close()

    def was_closed(self) -> bool:
        """Whether the server closed it while nobody listened."""
        with suppress(LlmTraderError):
            self._hear()
        return self.is_lost

    def exchange(self, exchanges: list[Exchange], now_s: float) -> list[Outcome]:
        """Each reply, or why there is none."""
        unsent = bytearray()
        asked: dict[int, Exchange] = {}
        for exchange in exchanges:
            call_id, sent = self._conversation.ask(exchange.method, exchange.params)
            asked[call_id] = exchange
            unsent += sent
        outcomes: dict[int, Outcome] = {}
        try:
            while len(outcomes) < len(asked):
                left_s = self._give_up_late(asked, outcomes, time.monotonic() - now_s)
                if left_s is None:
                    break
                self._wait(bool(unsent), left_s)
                self._send_some(unsent)
                outcomes |= self._hear()
        except LlmTraderError as error:
            for call_id in asked:
                outcomes.setdefault(call_id, error)
        self.is_lost |= bool(unsent)  # what is sent next would be the rest of a request
        return [outcomes[call_id] for call_id in asked]

    def _give_up_late(
        self, asked: dict[int, Exchange], outcomes: dict[int, Outcome], passed_s: float
    ) -> float | None:
        """The time until the next call is late; None if no call is waiting."""
        waiting = {n: e.timeout_s - passed_s for n, e in asked.items() if n not in outcomes}
        for call_id, left_s in waiting.items():
            if left_s <= 0:
                exchange = asked[call_id]
                message = f"{exchange.method}: no reply in {exchange.timeout_s:g} s"
                outcomes[call_id] = NoReplyError(message)
                self._conversation.forget(call_id)
        return min((left_s for left_s in waiting.values() if left_s > 0), default=None)

    def _wait(self, has_unsent: bool, seconds: float) -> None:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if has_unsent else 0)
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, events)
            selector.select(seconds)

    def _send_some(self, unsent: bytearray) -> None:
        try:
            if unsent:
                del unsent[: self._socket.send(unsent)]
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._lost(ConnectionLostError(f"the connection failed: {error}"))

    def _hear(self) -> dict[int, Outcome]:
        heard: dict[int, Outcome] = {}
        try:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                self._lost(self._conversation.closed_by_server())
            heard.update(self._conversation.hear(data))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except (OSError, ValueError) as error:
            self._lost(ConnectionLostError(f"the connection failed: {error}"))
        return heard

    def _lost(self, reason: LlmTraderError) -> None:
        self.is_lost = True
        refusal = self._conversation.refusal
        if refusal is not None:
            raise typed(refusal)
        raise reason

    def _authenticate(self, token: str, timeout_s: float) -> None:
        exchange = Exchange("rpc.authenticate", {"token": token}, timeout_s)
        (outcome,) = self.exchange([exchange], time.monotonic())
        if isinstance(outcome, Reply) and outcome.error is None:
            return
        self.close()
        if isinstance(outcome, Reply) and outcome.error is not None:
            raise error_of(outcome.error)
        if isinstance(outcome, LlmTraderError):
            raise outcome
