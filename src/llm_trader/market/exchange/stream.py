"""Candles of a venue over WebSockets, by ccxt.pro.

One `CandleStream` is one connection from its beginning to its loss. ccxt itself would connect
again in silence, and hand over only the last row of what came in between two calls; neither is
wanted here. So the object of ccxt lives as long as its connection, and each update is taken where
ccxt keeps it: in the cache of the series, which hands it on. `watch_ohlcv_for_symbols` is called
once for each message of subscriptions, for what ccxt does with it.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from llm_trader.clock import Clock
from llm_trader.errors import ConfigurationError
from llm_trader.market.collecting.candle_closing import CandleValues
from llm_trader.market.exchange.client import readdressed
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.timeframe import SECOND_MS, Millis, Timeframe

# Called with symbol, timeframe, open time and values of each update.
OnUpdate = Callable[[str, Timeframe, Millis, CandleValues], None]

# Bybit takes 21,000 characters on one connection, in messages of which one wrong name fails all.
_SERIES_OF_A_MESSAGE: Final = 50
_LOOK_EVERY_S: Final = 1.0
# A server that does not answer the closing of a connection is not waited for longer.
_CLOSE_WITHIN_S: Final = 2.0
_LIBRARIES: Final = {"binance": "binanceusdm", "bybit": "bybit"}
_HOSTS: Final = {"binance": "wss://fstream.binance.com", "bybit": "wss://stream.bybit.com"}

_log = structlog.get_logger(__name__)


class StreamLostError(Exception):
    """A connection that has ended, was refused, or is silent."""


@dataclass(eq=False)
class CandleStream:
    """Subscribes to candles; `run` returns never, but raises `StreamLostError`."""

    venue: str
    config: ExchangeConfig
    clock: Clock
    instruments: Sequence[Instrument]
    timeframes: Sequence[Timeframe]
    on_update: OnUpdate
    # Symbols that the exchange refuses to stream; their candles come by REST.
    refused: set[str] = field(default_factory=set)
    heard_ms: Millis | None = None
    _exchange: Any = None
    _client: Any = None
    _broken: str = ""

    async def run(self) -> None:
        self._exchange = self._opened()
        watching = {self._watch(pairs): pairs for pairs in self._messages()}
        began_ms = self.clock.now_ms()
        try:
            while True:
                await self.clock.sleep(_LOOK_EVERY_S)
                for task in [task for task in watching if task.done()]:
                    watching |= self._after(task, watching.pop(task))
                self._check_connection()
                self._check_silence(began_ms)
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await self._close()

    async def _close(self) -> None:
        session = self._exchange.session
        try:
            await asyncio.wait_for(self._exchange.close(), _CLOSE_WITHIN_S)
        except TimeoutError:
            if session is not None:
                await session.close()
                self._exchange.session = None  # or ccxt complains that it was left open

    def fail(self, reason: str) -> None:
        """Have the connection given up, such as after a frame that cannot be read."""
        self._broken = reason

    def _messages(self) -> Iterator[list[list[str]]]:
        pairs = [[i.symbol, str(t)] for i in self.instruments for t in self.timeframes]
        for first in range(0, len(pairs), _SERIES_OF_A_MESSAGE):
            yield pairs[first : first + _SERIES_OF_A_MESSAGE]

    def _watch(self, pairs: list[list[str]]) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self._exchange.watch_ohlcv_for_symbols(pairs))

    def _after(
        self, task: asyncio.Task[Any], pairs: list[list[str]]
    ) -> dict[asyncio.Task[Any], list[list[str]]]:
        """What else is to be watched after a subscription was answered."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return {}
        self._check_connection()
        errors = importlib.import_module("ccxt.base.errors")
        if isinstance(error, errors.NetworkError) or not isinstance(error, errors.BaseError):
            raise StreamLostError(_text(error))
        if len(pairs) > 1:  # one of them spoils it for the others
            middle = len(pairs) // 2
            return {self._watch(part): part for part in (pairs[:middle], pairs[middle:])}
        symbol = pairs[0][0]
        if symbol not in self.refused:
            self.refused.add(symbol)
            _log.warning("stream_refused", symbol=symbol, reason=_text(error))
        return {}

    def _check_connection(self) -> None:
        if self._broken:
            raise StreamLostError(self._broken)
        clients = list(self._exchange.clients.values())
        if self._client is None and clients:
            self._client = clients[0]
        if self._client is None:
            return
        if self._client.error is not None:
            raise StreamLostError(_text(self._client.error))
        if self._client not in clients or (self._client.isConnected and self._client.closed()):
            raise StreamLostError("the exchange closed the connection")

    def _check_silence(self, began_ms: Millis) -> None:
        silence_s = (self.clock.now_ms() - (self.heard_ms or began_ms)) / SECOND_MS
        if silence_s > self.config.silence_s:
            raise StreamLostError(f"no candle came for {silence_s:.0f} s")

    def _opened(self) -> Any:
        try:
            ccxt = importlib.import_module("ccxt.pro")
            cache = importlib.import_module("ccxt.async_support.base.ws.cache")
        except ImportError as error:
            raise ConfigurationError(
                f"streams of {self.venue} need ccxt ({error}): "
                "pip install 'llm-trader-rag[exchange]'"
            ) from None
        exchange = getattr(ccxt, _LIBRARIES[self.venue])({"aiohttp_trust_env": True})
        address = getattr(self.config, f"{self.venue}_ws_url")
        if address:
            urls = exchange.urls["api"]
            urls["ws"] = _with_address(exchange, urls["ws"], {_HOSTS[self.venue]: address})
        # The symbols that are known to be listed, so that ccxt asks for no list of its own.
        exchange.set_markets([_market(exchange, instrument) for instrument in self.instruments])
        recorder = _recorder_class(cache.ArrayCacheByTimestamp)
        exchange.ohlcvs = {
            instrument.symbol: {
                str(timeframe): recorder(self._receiver(instrument.symbol, timeframe))
                for timeframe in self.timeframes
            }
            for instrument in self.instruments
        }
        return exchange

    def _receiver(self, symbol: str, timeframe: Timeframe) -> Callable[[list[Any]], None]:
        def receive(row: list[Any]) -> None:
            self.heard_ms = self.clock.now_ms()
            if all(isinstance(value, int | float) for value in row):
                self.on_update(symbol, timeframe, int(row[0]), CandleValues(*map(float, row[1:6])))

        return receive


def _recorder_class(cache: type) -> Any:
    """A cache of ccxt that hands on each row as it comes."""

    class Recorder(cache):  # type: ignore[misc]
        def __init__(self, receive: Callable[[list[Any]], None]) -> None:
            super().__init__(1)
            self.receive = receive

        def append(self, item: list[Any]) -> None:
            super().append(item)
            self.receive(item)

    return Recorder


def _market(exchange: Any, instrument: Instrument) -> Any:
    """What ccxt needs to know of a contract; the symbol of the venue is also its name here."""
    return exchange.safe_market_structure(
        {
            "id": instrument.symbol,
            "lowercaseId": instrument.symbol.lower(),
            "symbol": instrument.symbol,
            "base": instrument.base,
            "quote": instrument.quote,
            "settle": instrument.settle,
            "baseId": instrument.base,
            "quoteId": instrument.quote,
            "settleId": instrument.settle,
            "type": "swap",
            "spot": False,
            "margin": False,
            "swap": True,
            "future": False,
            "option": False,
            "contract": True,
            "linear": True,
            "inverse": False,
            "active": True,
        }
    )


def _with_address(exchange: Any, urls: Any, addresses: Mapping[str, str]) -> Any:
    if isinstance(urls, Mapping):
        return {key: _with_address(exchange, url, addresses) for key, url in urls.items()}
    return readdressed(exchange.implode_hostname(urls), addresses)


def _text(error: BaseException) -> str:
    return str(error)[:300] or type(error).__name__
