"""Simulated markets with a known answer, from candles on: snapshots, outcomes and vectors included.

In a random walk no state says what follows, so an evaluation that finds skill there is wrong. A
reversal planted into the candles must be found.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.evaluation.dataset import Dataset
from llm_trader.index.ingestion import Spaces, make_points
from llm_trader.index.points import PointTable
from llm_trader.market.simulation import simulate_random_walk
from llm_trader.timeframe import DAY_MS, Millis

SYMBOL: Final = "BTCUSDT"

# A reversal of this strength is found beyond doubt in three months.
PLANTED_REVERSAL: Final = 0.25

_START_MS: Final[Millis] = 1_704_067_200_000  # 2024-01-01; nothing depends on the day


def simulated_points(
    spaces: Spaces, *, days: int, seed: int, interval_ms: Millis, reversal: float = 0.0
) -> PointTable:
    """All labelled states of a random walk of `days` days, made as at ingestion."""
    intraday = spaces.state.intraday
    history = simulate_random_walk(
        SYMBOL, start_ms=_START_MS, days=days, seed=seed, timeframe=intraday, reversal=reversal
    )
    end_ms = _START_MS + days * DAY_MS
    times = np.arange(_START_MS + interval_ms, end_ms + 1, interval_ms, dtype=np.int64)
    points, _ = make_points(history, spaces, times, end_ms, 1)
    return points


def simulated_dataset(
    spaces: Spaces,
    *,
    days: int,
    lookback_days: int,
    seed: int,
    interval_ms: Millis,
    reversal: float = 0.0,
) -> Dataset:
    """A simulated market whose queries begin when a whole lookback is known."""
    points = simulated_points(
        spaces, days=days, seed=seed, interval_ms=interval_ms, reversal=reversal
    )
    times_ms = points.timestamp_ms
    start_ms = int(times_ms[0]) + lookback_days * DAY_MS
    return Dataset({SYMBOL: points}, spaces.state.intraday, None, start_ms, int(times_ms[-1]))
