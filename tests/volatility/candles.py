"""Candles of a random walk whose volatility follows the clock and a slow wave."""

from __future__ import annotations

import numpy as np

from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import M5, Timeframe

# A Thursday.
START_MS = 1_704_326_400_000


def candles_of(
    close: np.ndarray, timeframe: Timeframe = M5, start_ms: int = START_MS
) -> CandleSeries:
    opens = np.concatenate([close[:1], close[:-1]])
    return CandleSeries.validated(
        timeframe,
        {
            "open_time_ms": start_ms + timeframe.ms * np.arange(len(close)),
            "open": opens,
            "high": np.maximum(opens, close),
            "low": np.minimum(opens, close),
            "close": close,
            "volume": np.ones(len(close)),
        },
    )


def walk(days: int, timeframe: Timeframe = M5, seed: int = 0) -> CandleSeries:
    rng = np.random.default_rng(seed)
    n = days * 86_400_000 // timeframe.ms
    time = np.arange(n) / (86_400_000 / timeframe.ms)
    scale = (
        1e-3
        * np.sqrt(timeframe.ms / M5.ms)
        * np.exp(0.5 * np.sin(2 * np.pi * time) + 0.4 * np.sin(2 * np.pi * time / 11))
    )
    return candles_of(100 * np.exp(np.cumsum(scale * rng.standard_normal(n))), timeframe)


def without(series: CandleSeries, missing: np.ndarray) -> CandleSeries:
    """The candles outside a mask, shape (n,)."""
    columns = {name: column[~missing] for name, column in series.columns()}
    times = series.open_time_ms[~missing]
    return CandleSeries.validated(series.timeframe, {"open_time_ms": times, **columns})
