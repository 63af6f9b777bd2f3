"""What ends a position at an open or within a candle, and at what price.

The functions take floats or Decimals: an evaluation simulates in floats, the paper broker keeps
its books in Decimals, and both trade by the same rules.

A stop beyond which the market opens fills at the open; a target never fills better than its price.
Within a candle the stop comes before the target where both are touched.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Generic, Literal, NamedTuple, TypeVar

from llm_trader.timeframe import Millis

N = TypeVar("N", float, Decimal)

ExitReason = Literal["stop", "target", "time", "signal", "end"]


class OpenPosition(NamedTuple, Generic[N]):
    """`side` is 1 for long and -1 for short. Where there is no stop, target or deadline, it is
    infinitely far away.
    """

    side: int
    entry_ms: Millis
    price: N
    stop: N
    target: N
    deadline_ms: float


class Exit(NamedTuple, Generic[N]):
    time_ms: Millis
    price: N
    reason: ExitReason


def exit_at_open(position: OpenPosition[N], time_ms: Millis, price: N) -> Exit[N] | None:
    """Whether a position ends by its own rules where a candle opens at `price`."""
    if (position.stop - price) * position.side >= 0:
        return Exit(time_ms, price, "stop")
    if (price - position.target) * position.side >= 0:
        return Exit(time_ms, position.target, "target")
    if time_ms >= position.deadline_ms:
        return Exit(time_ms, price, "time")
    return None


def exit_inside(position: OpenPosition[N], high: N, low: N, last_ms: Millis) -> Exit[N] | None:
    """Whether the rest of a candle, whose last millisecond is `last_ms`, ends a position."""
    worst, best = (low, high) if position.side > 0 else (high, low)
    if (position.stop - worst) * position.side >= 0:
        return Exit(last_ms, position.stop, "stop")
    if (best - position.target) * position.side >= 0:
        return Exit(last_ms, position.target, "target")
    return None
