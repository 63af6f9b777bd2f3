"""The WebSocket connections of the exchange."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from aiohttp import WSCloseCode, WSMsgType, web

from tests.exchange import bybit_streams
from tests.exchange.binance_streams import BinanceStreams
from tests.exchange.bybit_streams import BybitStreams
from tests.exchange.markets import Market
from tests.exchange.stream_faults import ConnectionFault, StreamFaults
from tests.exchange.streams import Feed, StreamKey, Update

# Frames wait a little, so that those of one moment are written together.
_TICK_S = 0.01
# A venue cuts off who does not read.
_LARGEST_BACKLOG = 8 << 20
# Binance pings every 3 minutes, and takes 10 messages a second.
_PING_S = 180.0
_MESSAGES_PER_S = 10


class Streams(Protocol):
    """One connection's subscriptions, in the language of a venue."""

    @property
    def keys(self) -> list[StreamKey]: ...

    def answer(self, text: str) -> str: ...

    def frame(self, update: Update) -> str: ...

    def error_frame(self) -> str: ...


class Sockets:
    """All connections, and what happens to them."""

    def __init__(self, market: Market, feed: Feed) -> None:
        self.faults = StreamFaults()
        self.connections: dict[Connection, None] = {}
        self.accepted = 0
        self._market = market
        self.feed = feed

    async def connect(self, request: web.Request) -> web.StreamResponse:
        refusal = self.faults.next_refusal()
        if refusal is not None:
            headers = {"Retry-After": str(refusal.retry_after_s)}
            return web.Response(status=refusal.status, headers=headers)
        streams = _opened_streams(request, self._market)
        if streams is None:
            return web.Response(status=404)
        self.accepted += 1
        connection = Connection(request, streams, self.feed)
        self.connections[connection] = None
        try:
            return await connection.serve()
        finally:
            del self.connections[connection]

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for fault in self.faults.due(self._market.now_ms):
                for connection in list(self.connections):
                    connection.fail(fault)
            self.feed.push(self.faults)
            now_s = time.monotonic()
            for connection in self.connections:
                connection.ping(now_s)


class Connection:
    """A client that hears streams."""

    def __init__(self, request: web.Request, streams: Streams, feed: Feed) -> None:
        self._request = request
        self._streams = streams
        self._feed = feed
        # The venues do not compress.
        self._socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False)
        self._heard: set[StreamKey] = set()
        self._received_s: deque[float] = deque(maxlen=_MESSAGES_PER_S + 1)
        self._pinged_s = time.monotonic()
        self._fault: ConnectionFault | None = None

    async def serve(self) -> web.WebSocketResponse:
        await self._socket.prepare(self._request)
        try:
            self._follow_subscriptions()
            async for message in self._socket:
                if self._fault == "half_open":
                    continue
                if message.type is WSMsgType.PING:
                    await self._socket.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self._take(message.data)
            await self._end()
        finally:
            self._feed.unsubscribe(self, self._heard)
        return self._socket

    def fail(self, fault: ConnectionFault) -> None:
        match fault:
            case "disconnect" | "refused_403" | "refused_429":
                if self._request.transport is not None:
                    self._request.transport.abort()
            case "half_open" | "stalled":
                self._fault = self._fault if self._fault == "half_open" else fault
            case "error_frame":
                self._write(_framed(self._streams.error_frame()))
            case "garbled":
                self._write(_framed('{"e":"kline","topic":"kline.3.'))

    def send(self, updates: Iterable[Update]) -> None:
        if self._fault is None:
            self._write(b"".join([_framed(self._streams.frame(update)) for update in updates]))

    def ping(self, now_s: float) -> None:
        if now_s - self._pinged_s >= _PING_S and isinstance(self._streams, BinanceStreams):
            self._pinged_s = now_s
            self._write(b"\x89\x00")

    async def _take(self, text: str) -> None:
        now_s = time.monotonic()
        self._received_s.append(now_s)
        too_many = len(self._received_s) > _MESSAGES_PER_S and now_s - self._received_s[0] < 1
        if too_many and isinstance(self._streams, BinanceStreams):
            await self._socket.close(
                code=WSCloseCode.POLICY_VIOLATION, message=b"Too many requests"
            )
            return
        await self._socket.send_str(self._streams.answer(text))
        self._follow_subscriptions()

    async def _end(self) -> None:
        """The client has closed; a half-open connection does not notice."""
        if self._fault != "half_open":
            await self._socket.close()
        # A transport has no event of its end.
        while self._request.transport is not None and not self._request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _write(self, content: bytes) -> None:
        transport = self._request.transport
        if not content or transport is None or transport.is_closing():
            return
        if self._fault == "half_open":
            return
        transport.write(content)
        if transport.get_write_buffer_size() > _LARGEST_BACKLOG:
            transport.abort()

    def _follow_subscriptions(self) -> None:
        keys = self._streams.keys
        new = [key for key in keys if key not in self._heard]
        self._feed.unsubscribe(self, self._heard.difference(keys))
        self._heard = set(keys)
        self._feed.subscribe(self, new)


def is_upgrade(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _opened_streams(request: web.Request, market: Market) -> Streams | None:
    """None where the path is of no WebSocket."""
    if request.path == bybit_streams.PATH:
        return BybitStreams(market)
    return BinanceStreams.opened(request.path, request.query, market)


def _framed(text: str) -> bytes:
    """A whole text frame of WebSocket, which a server sends unmasked."""
    content = text.encode()
    size = len(content)
    if size < 126:
        return bytes((0x81, size)) + content
    return b"\x81\x7e" + size.to_bytes(2, "big") + content
