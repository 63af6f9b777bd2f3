"""Stretches of repeated candles: a feed that stood still and went on sending."""

from __future__ import annotations

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


def frozen_stretches(candles: CandleSeries) -> list[FrozenStretch]:
    """The stretches of at least an hour in which each candle has the prices and volume before."""
    step = candles.timeframe.ms
    repeats = ~candles.differ_from_previous()
    repeats[1:] &= np.diff(candles.open_time_ms) == step
    bounds = np.flatnonzero(np.diff(repeats, prepend=False, append=False)).reshape(-1, 2)
    stretches = []
    for first, end in bounds[np.diff(bounds, axis=1)[:, 0] * step >= SHORTEST_MS].tolist():
        start_ms = int(candles.open_time_ms[first])
        end_ms = start_ms + (end - first) * step
        stretches.append(
            FrozenStretch(iso8601(start_ms), iso8601(end_ms), start_ms, end_ms, end - first)
        )
    return stretches
