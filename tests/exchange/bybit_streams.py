"""The public WebSocket streams of Bybit v5 at `/v5/public/linear`."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import count
from typing import Any

from llm_trader.timeframe import MINUTE_MS, Timeframe
from tests.exchange.bybit import KLINE_INTERVALS
from tests.exchange.listings import as_text, quote_volume
from tests.exchange.markets import Market
from tests.exchange.streams import StreamKey, Update

PATH = "/v5/public/linear"
_INTERVAL_NAMES = {minutes * MINUTE_MS: name for name, minutes in KLINE_INTERVALS.items()}
_connections = count(1)


class BybitStreams:
    """What one connection has subscribed to."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._connection = f"fake-{next(_connections)}"
        self.names: dict[str, StreamKey] = {}

    @property
    def keys(self) -> list[StreamKey]:
        return list(self.names.values())

    def error_frame(self) -> str:
        return self._reply({}, "error:system error", success=False)

    def answer(self, text: str) -> str:
        try:
            message = json.loads(text)
        except ValueError:
            return self._reply({}, "error:invalid json", success=False)
        if not isinstance(message, dict):
            return self._reply({}, "error:invalid request", success=False)
        match message.get("op"):
            case "ping":
                return self._reply(message, "pong")
            case "subscribe":
                return self._subscribe(message)
            case "unsubscribe":
                for name in message.get("args", []):
                    self.names.pop(name, None)
                return self._reply(message, "")
        return self._reply(message, "error:invalid op", success=False)

    def _subscribe(self, message: dict[str, Any]) -> str:
        """One wrong topic makes the whole request fail."""
        topics = message.get("args", [])
        found = {str(topic): self._key(str(topic)) for topic in topics}
        keys = {topic: key for topic, key in found.items() if key is not None}
        if not found or len(keys) < len(found):
            wrong = next((topic for topic, key in found.items() if key is None), "")
            text = f"error:handler not found,topic:{wrong}" if found else "Params Error"
            return self._reply(message, text, success=False)
        again = [topic for topic in keys if topic in self.names]
        if again:
            return self._reply(message, f"error:already subscribed,topic:{again[0]}", success=False)
        self.names |= keys
        return self._reply(message, "")

    def _key(self, topic: str) -> StreamKey | None:
        kind, _, rest = topic.partition(".")
        interval, _, symbol = rest.partition(".")
        minutes = KLINE_INTERVALS.get(interval)
        listing = self._market.listings.get(symbol)
        if kind != "kline" or minutes is None or listing is None:
            return None
        if symbol in self._market.unstreamed:
            return None
        timeframe = Timeframe(minutes * MINUTE_MS)
        if listing.has_ended(self._market.now_ms) or timeframe not in listing.candles:
            return None
        return StreamKey("bybit", symbol, timeframe)

    def _reply(self, message: dict[str, Any], text: str, *, success: bool = True) -> str:
        reply = {"success": success, "ret_msg": text, "conn_id": self._connection}
        if "req_id" in message:
            reply["req_id"] = message["req_id"]
        return json.dumps({**reply, "op": message.get("op", "")}, separators=(",", ":"))

    def frame(self, update: Update) -> str:
        return encoded(update)


@lru_cache(maxsize=512)
def encoded(update: Update) -> str:
    timeframe = update.key.timeframe
    interval = _INTERVAL_NAMES[timeframe.ms]
    open_, high, low, close, volume = update.texts
    return (
        f'{{"topic":"kline.{interval}.{update.key.symbol}","data":[{{"start":{update.open_ms},'
        f'"end":{update.open_ms + timeframe.ms - 1},"interval":"{interval}","open":"{open_}",'
        f'"close":"{close}","high":"{high}","low":"{low}","volume":"{volume}",'
        f'"turnover":"{as_text(quote_volume(update.texts))}",'
        f'"confirm":{"true" if update.is_final else "false"},"timestamp":{update.time_ms}}}],'
        f'"ts":{update.time_ms},"type":"snapshot"}}'
    )
