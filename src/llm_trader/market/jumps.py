"""Jumps: prices that differ by more than a factor of 3 from one candle to the next, or inside one.

A redenomination, a split or a bad tick makes one; markets nearly never do. What crosses a jump is
kept out, as what crosses a hole is, until the user says that it is real. An acceptance is a span of
time: it holds for the candles of every timeframe that overlap it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from llm_trader.arrays import Rows
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import Millis, Timeframe, iso8601

JUMP_FACTOR: Final = 3.0


class CandleSpan(NamedTuple):
    """The open time of a candle and its close."""

    start_ms: Millis
    end_ms: Millis

    @property
    def length_ms(self) -> Millis:
        return self.end_ms - self.start_ms

    def overlaps(self, other: CandleSpan) -> bool:
        return self.start_ms < other.end_ms and other.start_ms < self.end_ms


class Jump(msgspec.Struct, frozen=True):
    """One jump, at `time_ms`, the open time of the candle at which it arrives.

    `after` is that candle's open, high, low or close, as `price` says, and `before` what it is
    compared with: the close before it, or open or close of the candle itself.
    """

    symbol: str
    timeframe: str
    time: str
    time_ms: Millis
    price: str
    before: float
    after: float
    ratio: float
    accepted: bool

    @property
    def span(self) -> CandleSpan:
        return CandleSpan(self.time_ms, self.time_ms + Timeframe.parse(self.timeframe).ms)

    def __str__(self) -> str:
        return (
            f"jump of {self.symbol} {self.timeframe} at {self.time} from {self.before:.10g} to "
            f"{self.after:.10g} ({self.price}), {in_words(self.ratio)}"
        )


def in_words(ratio: float) -> str:
    """Such as ×1000 or ÷1000."""
    return f"×{ratio:.4g}" if ratio >= 1 else f"÷{1 / ratio:.4g}"


def jump_rows(candles: CandleSeries) -> Rows:
    """The rows at which a jump arrives.

    It is one between the close before (of the row before, also across a hole), the candle's open
    and its close, or a spike: a high or a low that far from both open and close.
    """
    # Nearly all series have none, and two passes tell.
    if not len(candles) or candles.high.max() <= JUMP_FACTOR * candles.low.min():
        return np.empty(0, np.intp)
    before = np.concatenate((candles.open[:1], candles.close[:-1]))
    upper, lower = np.maximum(candles.open, candles.close), np.minimum(candles.open, candles.close)
    moved = np.maximum(upper, before) > JUMP_FACTOR * np.minimum(lower, before)
    spiked = (candles.high > JUMP_FACTOR * upper) | (JUMP_FACTOR * candles.low < lower)
    return np.flatnonzero(moved | spiked)


def mark_jumps(candles: CandleSeries, accepted: Sequence[CandleSpan]) -> CandleSeries:
    """The candles with their unaccepted jumps."""
    times = candles.open_time_ms[jump_rows(candles)]
    kept = [t for t in times.tolist() if not is_accepted(t, candles.timeframe, accepted)]
    return candles.with_jumps(np.array(kept, dtype=np.int64))


def is_accepted(open_ms: Millis, timeframe: Timeframe, accepted: Iterable[CandleSpan]) -> bool:
    """Whether a jump that arrives at a candle is one of those that were accepted."""
    candle = CandleSpan(open_ms, open_ms + timeframe.ms)
    return any(map(candle.overlaps, accepted))


def jumps_of_parts(
    symbol: str, parts: Iterable[CandleSeries], accepted: Sequence[CandleSpan]
) -> list[Jump]:
    """The same as `find_jumps` of candles in parts.

    Each part begins with the last candle of the one before, which therefore counts there.
    """
    jumps: list[Jump] = []
    end_ms: Millis | None = None
    for part in parts:
        jumps += (
            jump
            for jump in find_jumps(symbol, part, accepted)
            if end_ms is None or jump.time_ms > end_ms
        )
        end_ms = int(part.open_time_ms[-1])
    return jumps


def find_jumps(
    symbol: str, candles: CandleSeries, accepted: Sequence[CandleSpan] = ()
) -> list[Jump]:
    """All jumps in order of time, each with the two prices that differ most."""
    rows = jump_rows(candles)
    if not len(rows):
        return []
    open_, close = candles.open[rows], candles.close[rows]
    before = np.where(rows > 0, candles.close[rows - 1], open_)
    upper, lower = np.maximum(open_, close), np.minimum(open_, close)
    names = ("open", "close", "close", "high", "low")
    references = np.stack([before, before, open_, upper, lower])
    prices = np.stack([open_, close, close, candles.high[rows], candles.low[rows]])
    pairs = np.abs(np.log(prices / references)).argmax(axis=0)
    jumps = []
    for place, (time_ms, pair) in enumerate(
        zip(candles.open_time_ms[rows].tolist(), pairs.tolist(), strict=True)
    ):
        price_before, price_after = float(references[pair, place]), float(prices[pair, place])
        jumps.append(
            Jump(
                *(symbol, str(candles.timeframe), iso8601(time_ms), time_ms, names[pair]),
                *(price_before, price_after, price_after / price_before),
                is_accepted(time_ms, candles.timeframe, accepted),
            )
        )
    return jumps


def jump_remedy(unaccepted: Sequence[Jump], store: str) -> str:
    """What to do about jumps, with the command for the first one of the finest candles."""
    first = min(unaccepted, key=lambda jump: (jump.span.length_ms, jump.time_ms))
    return (
        "states and outcomes that cross a jump are left out; import the true candles again, or, if "
        f"it is real: llm-trader data accept-jump --store {store} --symbol {first.symbol} "
        f"--at {first.time}"
    )
