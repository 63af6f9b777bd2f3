"""The WebSocket streams of Binance USD-M futures.

Since 2026-04-23 streams are split by path: depth and book tickers at `/public`, candles and all
else at `/market`, user data at `/private`. The older paths without it carry all streams. After
`/ws` frames are bare; after `/stream` each is wrapped with its stream's name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import Timeframe
from tests.exchange.listings import as_text, quote_volume
from tests.exchange.markets import Market
from tests.exchange.streams import StreamKey, Update

_PATH = re.compile(r"/(?:(public|market|private)/)?(ws|stream)(?:/(.*))?")
_METHODS = "SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY, GET_PROPERTY"
_CANDLE_STREAM = re.compile(r"([a-z0-9_]+)@kline_(\w+)")


class BinanceStreams:
    """What one connection has subscribed to."""

    def __init__(self, category: str | None, *, wrapped: bool, market: Market) -> None:
        self._category = category
        self._wrapped = wrapped
        self._market = market
        self.names: dict[str, StreamKey | None] = {}

    @classmethod
    def opened(cls, path: str, query: Mapping[str, str], market: Market) -> BinanceStreams | None:
        """None where the path is of no WebSocket."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        streams = cls(match[1], wrapped=match[2] == "stream", market=market)
        names = query.get("streams", "") if match[2] == "stream" else match[3] or ""
        # ccxt numbers its connections there, such as /ws/0.
        streams._subscribe(name for name in names.split("/") if "@" in name)
        return streams

    @property
    def keys(self) -> list[StreamKey]:
        return [key for key in self.names.values() if key is not None]

    def error_frame(self) -> str:
        return _dump(_error(-1000, "An unknown error occurred while processing the request."))

    def answer(self, text: str) -> str:
        try:
            message = json.loads(text)
        except ValueError as error:
            return _dump(_error(3, f"Invalid JSON: {error}"))
        if not isinstance(message, dict):
            return _dump(_error(3, "Invalid JSON: expected an object"))
        identity = message.get("id")
        if not isinstance(identity, int) or identity < 0:
            text = "Invalid request: request ID must be an unsigned integer"
            return _dump(_error(2, text))
        return _dump({**self._result(message), "id": identity})

    def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        method, params = message.get("method"), message.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": list(self.names)}
        if method == "GET_PROPERTY" and params == ["combined"]:
            return {"result": self._wrapped}
        if method == "SET_PROPERTY" and params[:1] == ["combined"]:
            self._wrapped = bool(params[1])
            return {"result": None}
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return _error(
                2, f"Invalid request: unknown variant {method}, expected one of {_METHODS}"
            )
        if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
            return _error(2, "Invalid request: params must be an array of stream names")
        if not params:
            return _error(2, "Invalid request: streams must have non-zero length")
        if method == "SUBSCRIBE":
            self._subscribe(params)
        else:
            for name in params:
                self.names.pop(name, None)
        # An unknown name is no error: nothing will ever come.
        return {"result": None}

    def _subscribe(self, names: Iterable[str]) -> None:
        for name in names:
            self.names[name] = self._key(name)

    def _key(self, name: str) -> StreamKey | None:
        """None where nothing is pushed, also where the path is that of other streams."""
        match = _CANDLE_STREAM.fullmatch(name)
        retired = self._category is None and self._market.old_paths_retired
        if match is None or retired or self._category in ("public", "private"):
            return None
        listing = self._market.listings.get(match[1].upper())
        try:
            timeframe = Timeframe.parse(match[2])
        except InvalidInputError:
            return None
        known = listing is not None and timeframe in listing.candles
        known = known and match[1].upper() not in self._market.unstreamed
        return StreamKey("binance", match[1].upper(), timeframe) if known else None

    def frame(self, update: Update) -> str:
        text = encoded(update)
        if not self._wrapped:
            return text
        name = f"{update.key.symbol.lower()}@kline_{update.key.timeframe}"
        return f'{{"stream":"{name}","data":{text}}}'


@lru_cache(maxsize=512)
def encoded(update: Update) -> str:
    symbol, timeframe = update.key.symbol, update.key.timeframe
    open_, high, low, close, volume = update.texts
    trades = trade_count(float(volume))
    # An id is unique, and -1 stands for none.
    first = update.open_ms // 1000 * 1000 if trades else -1
    last = first + trades - 1 if trades else -1
    quote = quote_volume(update.texts)
    return (
        f'{{"e":"kline","E":{update.time_ms},"s":"{symbol}","k":{{"t":{update.open_ms},'
        f'"T":{update.open_ms + timeframe.ms - 1},"s":"{symbol}","i":"{timeframe}","f":{first},'
        f'"L":{last},"o":"{open_}","c":"{close}","h":"{high}","l":"{low}","v":"{volume}",'
        f'"n":{trades},"x":{"true" if update.is_final else "false"},"q":"{as_text(quote)}",'
        f'"V":"{as_text(float(volume) / 2)}","Q":"{as_text(quote / 2)}","B":"0"}}}}'
    )


def trade_count(volume: float) -> int:
    """A plausible one, which grows with the volume."""
    return 1 + int(volume) if volume else 0


def _error(code: int, text: str) -> dict[str, Any]:
    return {"error": {"code": code, "msg": text}}


def _dump(reply: dict[str, Any]) -> str:
    return json.dumps(reply, separators=(",", ":"))
