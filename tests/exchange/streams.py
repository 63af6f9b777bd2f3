"""Candle streams: what each one pushes and when, and who hears it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from llm_trader.timeframe import Millis, Timeframe
from tests.exchange.listings import Listing
from tests.exchange.markets import Market

if TYPE_CHECKING:
    from tests.exchange.stream_faults import StreamFaults


VENUE_PUSH_MS: dict[str, Millis] = {"binance": 250, "bybit": 1000}


class StreamKey(NamedTuple):
    venue: str
    symbol: str
    timeframe: Timeframe


class Update(NamedTuple):
    """A candle as the exchange shows it at `time_ms`: open, high, low, close, volume."""

    key: StreamKey
    open_ms: Millis
    time_ms: Millis
    texts: tuple[str, ...]
    is_final: bool


class Subscriber(Protocol):
    """A connection that hears streams."""

    def send(self, updates: Iterable[Update]) -> None: ...


@dataclass(frozen=True)
class PushRate:
    """How often a stream pushes: as its venue does, or `updates_per_candle` times."""

    updates_per_candle: int | None = None

    def push_ms(self, key: StreamKey) -> Millis:
        if self.updates_per_candle is None:
            return VENUE_PUSH_MS[key.venue]
        return max(1, key.timeframe.ms // self.updates_per_candle)


class CandleStream:
    """The updates of one candle series; those of a moment are always the same ones."""

    def __init__(self, key: StreamKey, listing: Listing, rate: PushRate, now_ms: Millis) -> None:
        self.key = key
        self._listing = listing
        self._push_ms = rate.push_ms(key)
        # Streams push at different moments, and soon after a candle's open.
        self._phase_ms = 1 + zlib.crc32(f"{key}".encode()) % VENUE_PUSH_MS[key.venue]
        self._sent_to_ms = now_ms
        # Nothing is due before.
        self.next_ms = now_ms

    def due(self, now_ms: Millis) -> list[Update]:
        """The ends of candles since the last call, and the newest state of the present one."""
        step_ms = self.key.timeframe.ms
        ends = range(self.key.timeframe.floor(self._sent_to_ms) + step_ms, now_ms + 1, step_ms)
        updates = [self.update(end_ms - step_ms, end_ms) for end_ms in ends]
        open_ms = self.key.timeframe.floor(now_ms)
        pushes = (now_ms - open_ms - self._phase_ms) // self._push_ms
        pushed_ms = open_ms + self._phase_ms + pushes * self._push_ms
        if pushes >= 0 and pushed_ms > self._sent_to_ms:
            updates.append(self.update(open_ms, pushed_ms))
        self._sent_to_ms = now_ms
        following_ms = open_ms + self._phase_ms + max(pushes + 1, 0) * self._push_ms
        self.next_ms = min(open_ms + step_ms, following_ms)
        return [update for update in updates if update is not None]

    def earlier(self, final: Update) -> Update | None:
        """A state of a candle in the middle of its time."""
        return self.update(final.open_ms, final.open_ms + self.key.timeframe.ms // 2)

    def update(self, open_ms: Millis, time_ms: Millis) -> Update | None:
        texts = self._listing.candle_texts(self.key.timeframe, open_ms, time_ms)
        if texts is None or self._listing.has_ended(time_ms):
            return None
        is_final = time_ms >= open_ms + self.key.timeframe.ms
        return Update(self.key, open_ms, time_ms, texts, is_final)


class Feed:
    """Gives each subscriber the updates of its streams, in the exchange's own time."""

    def __init__(self, market: Market, rate: PushRate) -> None:
        self._market = market
        self._rate = rate
        self._streams: dict[StreamKey, CandleStream] = {}
        self._subscribers: dict[StreamKey, dict[Subscriber, None]] = {}
        # All that was due by then is sent.
        self.pushed_to_ms: Millis = 0

    def subscribe(self, subscriber: Subscriber, keys: Iterable[StreamKey]) -> None:
        """The present candles come at once."""
        now_ms = self._market.now_ms
        present = []
        for key in keys:
            stream = self._streams.get(key)
            if stream is None:
                listing = self._market.listings[key.symbol]
                stream = CandleStream(key, listing, self._rate, now_ms)
                self._streams[key] = stream
            self._subscribers.setdefault(key, {})[subscriber] = None
            present.append(stream.update(key.timeframe.floor(now_ms), now_ms))
        subscriber.send([update for update in present if update is not None])

    def unsubscribe(self, subscriber: Subscriber, keys: Iterable[StreamKey]) -> None:
        for key in list(keys):
            hearing = self._subscribers.get(key, {})
            hearing.pop(subscriber, None)
            if not hearing:
                self._subscribers.pop(key, None)
                self._streams.pop(key, None)

    def push(self, faults: StreamFaults) -> None:
        """Sends what is due; to be called often."""
        now_ms = self._market.now_ms
        outgoing: dict[Subscriber, list[Update]] = {}
        for key, stream in self._streams.items():
            if now_ms < stream.next_ms:
                continue
            updates = stream.due(now_ms)
            if faults.shares:
                updates = faults.disturbed(updates, stream.earlier)
            for subscriber in self._subscribers[key]:
                outgoing.setdefault(subscriber, []).extend(updates)
        for subscriber, heard in outgoing.items():
            subscriber.send(heard)
        self.pushed_to_ms = now_ms
