"""A made-up market in which states do tell of what follows, and walks through it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.skills import (
    ScoredForecasts,
    WalkForward,
    score_forecasts,
    walk_forward,
)
from llm_trader.evaluation.plan import ForecastRule, Search
from llm_trader.index.points import PointTable
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import label_outcomes
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M5, M15, Millis
from tests.index.builders import SLOT_MS, START_MS, at
from tests.retrieval.builders import points_of, states_at

DAYS = 62
PER_DAY = DAY_MS // SLOT_MS
LOOKBACK_DAYS = 20

SEARCH = Search(
    include_regime_filters=False, lookback_days=LOOKBACK_DAYS, neighbours=20, gap_hours=4.0
)
RULE = ForecastRule(weight_of_neighbours=0.5)
NO_FUNDING = FundingSeries(np.empty(0, np.int64), np.empty(0), np.empty(0))

_PERSISTENCE = float(np.exp(-1 / 48))  # half a day of quarter-hours


class Made(NamedTuple):
    """A market's points, their states, and the candles of 15m that outcomes are labelled from."""

    points: PointTable
    states: SnapshotTable
    candles: CandleSeries


@cache
def made_market(seed: int = 0, days: int = DAYS) -> Made:
    """Every feature follows one slow signal, and so does the drift of the next quarter-hour.

    How far prices go follows another, which the expected volatilities know.
    """
    chances = np.random.default_rng(seed)
    n = days * PER_DAY
    slots = range(-1, n + PER_DAY)
    signal = _slow(chances.standard_normal(len(slots)))
    noise = chances.standard_normal(len(slots))
    size = np.exp(0.3 * _slow(np.random.default_rng([seed, 2]).standard_normal(len(slots))))
    steps = size * (0.0003 * np.roll(signal, 1) + 0.001 * noise)
    close = 100 * np.exp(np.cumsum(steps))
    open_ = np.append(close[0], close[:-1])
    columns = {
        "open_time_ms": at(slots),
        "open": open_,
        "high": np.maximum(open_, close) * 1.0003,
        "low": np.minimum(open_, close) * 0.9997,
        "close": close,
        "volume": np.ones(len(slots)),
    }
    candles = CandleSeries.validated(M15, columns)
    times = at(range(n))
    # The signal of a candle is known at its close, the time of the state.
    states = states_at(times, seed, latent=signal[:n])
    for horizon, name in EXPECTED_VOLATILITY.items():
        states.column(name)[:] = 0.1 * np.sqrt(HORIZONS[horizon] / SLOT_MS) * size[1 : n + 1]
    return Made(points_of(states, label_outcomes(candles, times)), states, candles)


def _slow(noise: Floats) -> Floats:
    """A signal of spread 1 from noise of spread 1, (n,)."""
    signal = np.zeros(len(noise))
    for i in range(1, len(noise)):
        signal[i] = _PERSISTENCE * signal[i - 1] + np.sqrt(1 - _PERSISTENCE**2) * noise[i]
    return signal


def asked(points: PointTable, step_ms: Millis = HOUR_MS, first_day: int = 0) -> PointTable:
    """The points at each step from a day on."""
    stamps = points.timestamp_ms
    return points.take((stamps % step_ms == 0) & (stamps >= START_MS + first_day * DAY_MS))


def walk_through(
    points: PointTable,
    search: Search = SEARCH,
    *,
    step_ms: Millis = HOUR_MS,
    first_day: int = LOOKBACK_DAYS,
) -> WalkForward:
    queries = asked(points, step_ms, first_day)
    return walk_forward(points, queries, search, intraday=M5, step_ms=step_ms, seed=0)


@cache
def made_walk(step_ms: Millis = HOUR_MS) -> WalkForward:
    return walk_through(made_market().points, step_ms=step_ms)


@cache
def early_walk() -> WalkForward:
    """A walk that begins before there are enough neighbours."""
    return walk_through(made_market().points.take(slice(0, 20 * PER_DAY)), first_day=2)


@cache
def made_score(horizon: str = "4h", step_ms: Millis = HOUR_MS) -> ScoredForecasts:
    (scored,) = score_forecasts(made_walk(step_ms), {horizon: RULE})
    return scored


def small_walk(
    points: PointTable, queries: PointTable, rows: np.ndarray, width: int
) -> WalkForward:
    """A walk of given neighbours, each window the `width` points before its query's own row."""
    own = np.searchsorted(points.timestamp_ms, queries.timestamp_ms)
    similarity = np.where(rows >= 0, 0.9, np.nan).astype(np.float32)
    found = Neighbours(rows, similarity, np.maximum(own - width, 0), own)
    return WalkForward(points, queries, found, found, M5, SLOT_MS)
