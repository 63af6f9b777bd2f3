"""Stretches of repeated candles: a feed that stood still and went on sending."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import HOUR_MS, Millis, iso8601

# As long as `serving.max_unchanged_minutes` allows by default. Quiet minutes repeat one another in
# small markets; a whole hour of equal prices and volumes is rare there, too.
SHORTEST_MS: Final[Millis] = HOUR_MS


class FrozenStretch(msgspec.Struct, frozen=True):
    """Candles that repeat the one before: the first one's open time and the last one's close."""

    start: str
    end: str
    start_ms: Millis
    end_ms: Millis
    candles: int


def frozen_stretches(parts: Iterable[CandleSeries]) -> list[FrozenStretch]:
    """The stretches of at least an hour in which each candle has the prices and volume before.

    The candles come in parts in order of time; each begins with the last candle of the one before.
    """
    spans: list[tuple[Millis, Millis]] = []
    step = 0
    for part in parts:
        step = part.timeframe.ms
        for start_ms, end_ms in _repeats(part):
            goes_on = bool(spans) and spans[-1][1] == start_ms
            start_ms = spans.pop()[0] if goes_on else start_ms
            spans.append((start_ms, end_ms))
    return [
        FrozenStretch(iso8601(start), iso8601(end), start, end, (end - start) // step)
        for start, end in spans
        if end - start >= SHORTEST_MS
    ]


def _repeats(candles: CandleSeries) -> list[tuple[Millis, Millis]]:
    """The stretches of repeats that are long enough, or may go on in the next part."""
    step = candles.timeframe.ms
    repeats = ~candles.differ_from_previous()
    repeats[1:] &= np.diff(candles.open_time_ms) == step
    bounds = np.flatnonzero(np.diff(repeats, prepend=False, append=False)).reshape(-1, 2)
    first, end = bounds[:, 0], bounds[:, 1]
    kept = ((end - first) * step >= SHORTEST_MS) | (first == 1) | (end == len(candles))
    starts = candles.open_time_ms[first[kept]]
    ends = candles.open_time_ms[end[kept] - 1] + step
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
