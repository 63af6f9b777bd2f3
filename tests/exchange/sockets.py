"""The WebSocket connections of the exchange."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from aiohttp import WSMsgType, web

from tests.exchange import bybit_streams
from tests.exchange.binance_streams import BinanceStreams
from tests.exchange.bybit_streams import BybitStreams
from tests.exchange.markets import Market
from tests.exchange.streams import Feed, StreamKey, Update

# A venue cuts off who does not read.
_LARGEST_BACKLOG = 8 << 20


class Streams(Protocol):
    """One connection's subscriptions, in the language of a venue."""

    @property
    def keys(self) -> list[StreamKey]: ...

    def answer(self, text: str) -> str: ...

    def frame(self, update: Update) -> str: ...


def is_upgrade(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def opened_streams(request: web.Request, market: Market) -> Streams | None:
    """None where the path is of no WebSocket."""
    if request.path == bybit_streams.PATH:
        return BybitStreams(market)
    return BinanceStreams.opened(request.path, request.query, market)


class Connection:
    """A client that hears streams."""

    def __init__(self, request: web.Request, streams: Streams, feed: Feed) -> None:
        self._request = request
        self._streams = streams
        self._feed = feed
        # The venues do not compress.
        self._socket = web.WebSocketResponse(autoping=False, compress=False)
        self._heard: set[StreamKey] = set()

    async def serve(self) -> web.WebSocketResponse:
        await self._socket.prepare(self._request)
        try:
            self._follow_subscriptions()
            async for message in self._socket:
                if message.type is WSMsgType.PING:
                    await self._socket.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    await self._socket.send_str(self._streams.answer(message.data))
                    self._follow_subscriptions()
        finally:
            self._feed.unsubscribe(self, self._heard)
        return self._socket

    def send(self, updates: Iterable[Update]) -> None:
        self.write(b"".join([_framed(self._streams.frame(update)) for update in updates]))

    def write(self, content: bytes) -> None:
        transport = self._request.transport
        if not content or transport is None or transport.is_closing():
            return
        transport.write(content)
        if transport.get_write_buffer_size() > _LARGEST_BACKLOG:
            transport.abort()

    def _follow_subscriptions(self) -> None:
        wanted = set(self._streams.keys)
        self._feed.unsubscribe(self, self._heard - wanted)
        new = [key for key in self._streams.keys if key not in self._heard]
        self._heard = wanted
        self._feed.subscribe(self, new)


def _framed(text: str) -> bytes:
    """A whole text frame of WebSocket, which a server sends unmasked."""
    content = text.encode()
    size = len(content)
    if size < 126:
        return bytes((0x81, size)) + content
    return b"\x81\x7e" + size.to_bytes(2, "big") + content
