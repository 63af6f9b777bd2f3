"""Hears the fake exchange with a plain WebSocket client, frame by frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis
from tests.exchange.server import FakeExchange
from tests.exchange.stream_faults import ConnectionFault
from tests.market.builders import START_MS

NOW_MS = START_MS + DAY_MS
SYMBOL = "BTCUSDT"
VENUES = ("binance", "bybit")
# Longer than two ticks of the exchange.
QUIET_S = 0.04
PATHS = {"binance": "/market/ws", "bybit": "/v5/public/linear"}
TOPICS = {"binance": "{lower}@kline_{timeframe}", "bybit": "kline.{minutes}.{symbol}"}


def topic(venue: str, symbol: str, minutes: int = 3) -> str:
    timeframe = f"{minutes}m" if minutes < 60 else f"{minutes // 60}h"
    return TOPICS[venue].format(
        symbol=symbol, lower=symbol.lower(), minutes=minutes, timeframe=timeframe
    )


class Listener:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def ask(self, **message: Any) -> dict[str, Any]:
        """The next frame after a message."""
        await self.say(**message)
        reply: dict[str, Any] = await self.socket.receive_json(timeout=2)
        return reply

    async def subscribe(self, venue: str, *topics: str) -> dict[str, Any]:
        if venue == "binance":
            return await self.ask(method="SUBSCRIBE", params=list(topics), id=1)
        return await self.ask(op="subscribe", args=list(topics), req_id="1")

    async def texts(self) -> list[str]:
        """The frames until nothing comes for a while."""
        texts: list[str] = []
        while True:
            try:
                message = await self.socket.receive(timeout=QUIET_S)
            except TimeoutError:
                return texts
            if message.type is not aiohttp.WSMsgType.TEXT:
                return texts
            texts.append(message.data)

    async def frames(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in await self.texts()]

    async def pong(self) -> aiohttp.WSMessage:
        await self.socket.ping(b"here")
        return await self.socket.receive(timeout=0.1)


@asynccontextmanager
async def listening(exchange: FakeExchange, path: str) -> AsyncIterator[Listener]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            exchange.stream_url + path, autoping=False,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.05),
        ) as socket,
    ):  # fmt: skip
        yield Listener(socket)


async def pushed(exchange: FakeExchange) -> None:
    """Until all that is due by the clock of the exchange, which stands, is sent."""
    async with asyncio.timeout(5):
        # It runs in another thread.
        while exchange.sockets.feed.pushed_to_ms != exchange.market.now_ms:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def struck(exchange: FakeExchange, kind: ConnectionFault) -> None:
    """Until a fault has struck."""
    count = exchange.stream_faults.happened
    exchange.stream_faults.inject(kind)
    async with asyncio.timeout(5):
        while exchange.stream_faults.happened == count:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.01)


async def at_times(
    exchange: FakeExchange, listener: Listener, start_ms: Millis, count: int, step_ms: Millis
) -> list[dict[str, Any]]:
    """The frames while the clock of the exchange goes in steps."""
    frames = []
    for step in range(1, count + 1):
        exchange.market.now_ms = start_ms + step * step_ms
        await pushed(exchange)
        frames += await listener.frames()
    return frames


def candle_of(frame: dict[str, Any]) -> tuple[Millis, list[str], bool]:
    """Open time, texts of open, high, low, close and volume, and whether it is final."""
    if "k" in frame:
        row = frame["k"]
        return row["t"], [row[key] for key in "ohlcv"], row["x"]
    row = frame["data"][0]
    keys = ("open", "high", "low", "close", "volume")
    return row["start"], [row[key] for key in keys], row["confirm"]


async def heard(
    exchange: FakeExchange, venue: str, *, steps: int = 12, step_ms: Millis = MINUTE_MS // 2
) -> list[dict[str, Any]]:
    """The frames of 3m candles of a while; it begins at NOW_MS."""
    exchange.market.now_ms = NOW_MS
    async with listening(exchange, PATHS[venue]) as listener:
        await listener.subscribe(venue, topic(venue, SYMBOL))
        first = await listener.frames()
        return first + await at_times(exchange, listener, NOW_MS, steps, step_ms)
