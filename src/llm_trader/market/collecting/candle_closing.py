"""Which candles of a stream are final. Nothing here waits, reads a clock or talks to an exchange.

An update of a stream is a candle as it is so far, without a word about whether that is all of it
(ccxt #21885). So a candle counts as closed in one of two ways:

1. The stream has shown a later open time after it. What was seen of it last is final then, if its
   volume and range have only grown, and no connection was lost in between.
2. Otherwise the exchange confirms it by REST, some seconds after its end: `unconfirmed` says what
   to ask for. That is also how a hole is filled, before later candles are taken.

An update of a candle that was closed in the first way, with other values, changes nothing; it is
confirmed by REST, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from llm_trader.market.absent_spans import Span
from llm_trader.timeframe import Millis, Timeframe

# Updates are late by seconds; an hour of 3-minute candles takes no room.
_WRITTEN_REMEMBERED: Final = 20


class CandleValues(NamedTuple):
    open: float
    high: float
    low: float
    close: float
    volume: float

    def may_follow(self, former: CandleValues) -> bool:
        """Whether a candle can have come to this: trades only widen it."""
        return (
            self.open == former.open
            and self.high >= former.high
            and self.low <= former.low
            and (self.volume > former.volume or self == former)
        )


@dataclass(slots=True)
class CandleCloser:
    """The candles of one series that are not stored yet, the first of which opens at `next_ms`."""

    timeframe: Timeframe
    next_ms: Millis
    rejected: int = 0
    _forming: dict[Millis, CandleValues] = field(default_factory=dict)
    _doubtful: set[Millis] = field(default_factory=set)
    _newest_ms: Millis = -1
    _written: dict[Millis, CandleValues] = field(default_factory=dict)
    _contradicted: set[Millis] = field(default_factory=set)

    def update(self, open_ms: Millis, values: CandleValues, now_ms: Millis) -> bool:
        """Take an update of the stream; whether something may have to be done now.

        `now_ms` is the time of the exchange: a candle that is to open much later is a mistake.
        """
        if open_ms % self.timeframe.ms or open_ms > now_ms + self.timeframe.ms:
            self.rejected += 1
            return False
        if open_ms < self.next_ms:
            return self._repeated(open_ms, values)
        former = self._forming.get(open_ms)
        if former is None or values.may_follow(former):
            self._forming[open_ms] = values
        else:
            # They came in another order than they were made, or the exchange corrects itself.
            self._doubtful.add(open_ms)
        if open_ms <= self._newest_ms:
            return False
        self._newest_ms = open_ms
        return open_ms > self.next_ms

    def closed(self) -> list[tuple[Millis, CandleValues]]:
        """The candles that are final and follow those that are stored, with their open times."""
        candles = []
        open_ms = self.next_ms
        while open_ms < self._newest_ms and self._is_final(open_ms):
            candles.append((open_ms, self._forming[open_ms]))
            open_ms += self.timeframe.ms
        return candles

    def stored_from_stream(self, candles: list[tuple[Millis, CandleValues]]) -> None:
        """Note that candles of `closed` are stored."""
        for open_ms, values in candles:
            self._written[open_ms] = values
            self._go_on_at(open_ms + self.timeframe.ms)
        for open_ms in sorted(self._written)[:-_WRITTEN_REMEMBERED]:
            del self._written[open_ms]

    def doubt(self, open_ms: Millis) -> None:
        """Have a candle confirmed, such as one whose values were refused."""
        self._doubtful.add(open_ms)

    def unconfirmed(self, closed_ms: Millis) -> Span | None:
        """What is to be asked for of the time until which the exchange has closed its candles."""
        end_ms = self.timeframe.floor(closed_ms)
        return Span(self.next_ms, end_ms) if self.next_ms < end_ms else None

    def confirmed(self, span: Span, stored_end_ms: Millis) -> None:
        """Note that the exchange was asked for a span, and until when candles are stored now.

        What it does not have is left behind where the stream has closed a later candle; what lies
        at the end may only be late. What was not asked for is not left behind.
        """
        for open_ms in [ms for ms in self._written if span.start_ms <= ms < span.end_ms]:
            del self._written[open_ms]
        self._contradicted -= {ms for ms in self._contradicted if span.start_ms <= ms < span.end_ms}
        next_ms = max(stored_end_ms, self.next_ms)
        if next_ms < span.end_ms:
            later = (ms for ms in sorted(self._forming) if ms >= next_ms)
            final_ms = next(
                (ms for ms in later if ms < self._newest_ms and self._is_final(ms)), next_ms
            )
            next_ms = min(final_ms, span.end_ms)
        self._go_on_at(next_ms)

    def contradicted(self, closed_ms: Millis) -> Span | None:
        """The first stored candle that a later update differs from, once it can be asked for."""
        if not self._contradicted:
            return None
        open_ms = min(self._contradicted)
        end_ms = open_ms + self.timeframe.ms
        return Span(open_ms, end_ms) if end_ms <= closed_ms else None

    def disconnected(self) -> None:
        """Forget candles in progress: their last updates may have been lost."""
        self._forming.clear()
        self._doubtful.clear()
        self._newest_ms = -1

    def _repeated(self, open_ms: Millis, values: CandleValues) -> bool:
        written = self._written.get(open_ms)
        if written is None or written == values:
            return False
        self._contradicted.add(open_ms)
        return True

    def _is_final(self, open_ms: Millis) -> bool:
        return open_ms in self._forming and open_ms not in self._doubtful

    def _go_on_at(self, next_ms: Millis) -> None:
        self.next_ms = next_ms
        for open_ms in [ms for ms in self._forming if ms < next_ms]:
            del self._forming[open_ms]
        self._doubtful = {ms for ms in self._doubtful if ms >= next_ms}
