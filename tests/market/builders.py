"""Series for tests, made plainly; also of processes that tests start, so without hypothesis."""

from __future__ import annotations

import numpy as np

from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.timeframe import M3, Millis, Timeframe

START_MS: Millis = 1_704_067_200_000  # 2024-01-01, on every grid up to a day

EMPTY_FUNDING = FundingSeries(np.empty(0, np.int64), np.empty(0), np.empty(0))
EMPTY_OPEN_INTEREST = OpenInterestSeries(np.empty(0, np.int64), np.empty(0), np.empty(0))


def no_candles(timeframe: Timeframe) -> CandleSeries:
    return CandleSeries(timeframe, np.empty(0, np.int64), *(np.empty(0) for _ in range(5)))


def candles_at(times: list[Millis], timeframe: Timeframe = M3, seed: int = 0) -> CandleSeries:
    """Plausible candles at the given open times."""
    draw = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.001 * draw.standard_normal(len(times))))
    open_ = close * np.exp(0.001 * draw.standard_normal(len(times)))
    return CandleSeries.validated(
        timeframe,
        {
            "open_time_ms": times,
            "open": open_,
            "high": np.maximum(open_, close) * 1.001,
            "low": np.minimum(open_, close) * 0.999,
            "close": close,
            "volume": draw.integers(0, 1000, len(times)),
        },
    )


def run_of_candles(
    count: int, timeframe: Timeframe = M3, start_ms: Millis = START_MS, seed: int = 0
) -> CandleSeries:
    return candles_at([start_ms + i * timeframe.ms for i in range(count)], timeframe, seed)


def same_series(
    one: CandleSeries | FundingSeries | OpenInterestSeries,
    other: CandleSeries | FundingSeries | OpenInterestSeries,
) -> bool:
    """Equal to the last bit, missing values included."""
    arrays = (
        (getattr(one, name), getattr(other, name)) for name in one.__slots__ if name != "timeframe"
    )
    return type(one) is type(other) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays
    )
