"""Indicators as the textbooks define them, in plain Python; `None` where not defined yet.

Wilder, New Concepts in Technical Trading Systems (1978), for RSI and ATR; the exponential mean
begins with the simple mean of its first period.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def ema(values: Sequence[float], period: int) -> list[float | None]:
    found: list[float | None] = [None] * len(values)
    if len(values) < period:
        return found
    mean = sum(values[:period]) / period
    found[period - 1] = mean
    keep = 2 / (period + 1)
    for i in range(period, len(values)):
        mean = keep * values[i] + (1 - keep) * mean
        found[i] = mean
    return found


def macd(values: Sequence[float]) -> list[float | None]:
    return [
        None if fast is None or slow is None else fast - slow
        for fast, slow in zip(ema(values, 12), ema(values, 26), strict=True)
    ]


def wilder_mean(values: Sequence[float], period: int) -> list[float]:
    """From the `period`-th value on: each counts 1/period, the mean before it the rest."""
    mean = sum(values[:period]) / period
    found = [mean]
    for value in values[period:]:
        mean = (mean * (period - 1) + value) / period
        found.append(mean)
    return found


def rsi(closes: Sequence[float], period: int) -> list[float | None]:
    moves = [after - before for before, after in pairwise(closes)]
    gains = wilder_mean([max(move, 0.0) for move in moves], period)
    losses = wilder_mean([max(-move, 0.0) for move in moves], period)
    return [None] * period + [
        50.0 if gain == loss == 0 else 100 * gain / (gain + loss)
        for gain, loss in zip(gains, losses, strict=True)
    ]


def atr(
    highs: Sequence[float], lows: Sequence[float], closes: Sequence[float], period: int
) -> list[float | None]:
    ranges = [
        max(high, before) - min(low, before)
        for high, low, before in zip(highs[1:], lows[1:], closes, strict=False)
    ]
    return [None] * period + wilder_mean(ranges, period)
