"""Histories to take snapshots of: simulated, with holes, with another future, or real."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from llm_trader.arrays import Floats, Times
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.resampling import resample
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.simulation import simulate
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M1, M3, M5, M15, Millis, Timeframe
from tests.market.builders import START_MS

BYBIT_2025 = ("bybit_5m_2025-09_2026-03", "bybit_linear", M5)
BINANCE_2023 = ("binance_5m_2023", "binance_usdm", M5)
BINANCE_2025_3M = ("binance_1m_2025-05_2025-06", "binance_usdm", M3)


@cache
def simulated(days: int, timeframe: Timeframe = M5, seed: int = 11) -> MarketHistory:
    return simulate("BTCUSDT", start_ms=START_MS, days=days, seed=seed, timeframe=timeframe)


def grid(history: MarketHistory, first_day: float, step_ms: Millis = M15.ms) -> Times:
    """Every snapshot time from `first_day` days after the history's start until its end."""
    times = history.intraday.open_time_ms
    start = int(times[0]) + round(first_day * DAY_MS)
    return np.arange(start, int(times[-1]) + history.intraday.timeframe.ms + 1, step_ms)


def with_repeated_candles(
    history: MarketHistory, start_ms: Millis, end_ms: Millis
) -> MarketHistory:
    """A feed that is frozen from one time to another: all candles are like the one before."""
    candles = history.intraday
    rows = np.arange(len(candles))
    frozen = (candles.open_time_ms >= start_ms) & (candles.open_time_ms < end_ms)
    rows[frozen] = np.searchsorted(candles.open_time_ms, start_ms) - 1
    columns = {name: values[rows] for name, values in candles.columns()}
    return replace(history, intraday=replace(candles, **columns))


def without(candles: CandleSeries, holes: list[tuple[int, int]]) -> CandleSeries:
    """Without the given runs of candles, each a first row and a length."""
    kept = np.ones(len(candles), dtype=bool)
    for first, length in holes:
        kept[first : first + length] = False
    return candle_rows(candles, kept)


def candle_rows(candles: CandleSeries, kept: np.ndarray) -> CandleSeries:
    return CandleSeries(
        candles.timeframe,
        candles.open_time_ms[kept],
        *(values[kept] for _, values in candles.columns()),
    )


def with_holes(history: MarketHistory, seed: int) -> MarketHistory:
    """A few holes in each series, anywhere; funding and open interest stamped a little late."""
    draw = np.random.default_rng(seed)

    def kept(count: int, holes: int, longest: int) -> np.ndarray:
        mask = np.ones(count, dtype=bool)
        for first in draw.integers(0, count, draw.integers(0, holes + 1)):
            mask[first : first + draw.integers(1, longest + 1)] = False
        return mask

    interest, funding = history.open_interest, history.funding
    there, settled = kept(len(interest), 6, 5), kept(len(funding), 2, 2)
    return replace(
        history,
        intraday=candle_rows(history.intraday, kept(len(history.intraday), 4, 20)),
        four_hour=candle_rows(history.four_hour, kept(len(history.four_hour), 1, 2)),
        open_interest=OpenInterestSeries(
            interest.time_ms[there] + draw.integers(0, 3, there.sum()),
            interest.open_interest[there],
            interest.open_interest_value[there],
        ),
        funding=FundingSeries(
            funding.time_ms[settled] + draw.integers(0, 3, settled.sum()),
            funding.rate[settled],
            funding.interval_hours[settled],
        ),
    )


def garbled_after(history: MarketHistory, cut_ms: Millis, seed: int) -> MarketHistory:
    """The same history up to `cut_ms`, and nonsense in everything that became known later."""
    draw = np.random.default_rng(seed)

    def candles(series: CandleSeries) -> CandleSeries:
        later = series.open_time_ms + series.timeframe.ms > cut_ms

        def nonsense(values: Floats) -> Floats:
            return np.where(later, draw.uniform(1e-3, 1e6, len(values)), values)

        columns = {name: nonsense(values) for name, values in series.columns()}
        missing = later & (draw.random(len(series)) < 0.1)
        return candle_rows(replace(series, **columns), ~missing)

    def other(values: Floats, times: Times, low: float, high: float) -> Floats:
        return np.where(times > cut_ms, draw.uniform(low, high, len(values)), values)

    funding, interest = history.funding, history.open_interest
    return replace(
        history,
        intraday=candles(history.intraday),
        four_hour=candles(history.four_hour),
        funding=replace(funding, rate=other(funding.rate, funding.time_ms, -0.5, 0.5)),
        open_interest=replace(
            interest,
            open_interest=other(interest.open_interest, interest.time_ms, 0, 1e9),
        ),
    )


def between(history: MarketHistory, start_ms: Millis | None, end_ms: Millis) -> MarketHistory:
    """What a store gives for a range: open times and sample times of `[start, end)`."""
    return replace(
        history,
        intraday=history.intraday.between(start_ms, end_ms),
        four_hour=history.four_hour.between(start_ms, end_ms),
        funding=history.funding.between(start_ms, end_ms),
        open_interest=history.open_interest.between(start_ms, end_ms),
    )


def same_snapshots(one: SnapshotTable, other: SnapshotTable) -> bool:
    """Every field and series equal to the last bit; any NaN equals any NaN."""

    def bits(values: Floats) -> bytes:
        return np.where(np.isnan(values), np.nan, values).tobytes()

    return (
        one.as_of_ms.tobytes() == other.as_of_ms.tobytes()
        and bits(one.scalars) == bits(other.scalars)
        and bits(one.series) == bits(other.series)
    )


@cache
def real(data: Path, source: tuple[str, str, Timeframe], symbol: str) -> MarketHistory:
    """As the exchange published it; 3m candles are built from 1m, 4h where there are no own."""
    folder, venue, timeframe = source
    stored = M1 if timeframe == M3 else timeframe
    candles = _candles(data / folder / f"{venue}_{symbol}_candles_{stored}.parquet", stored)
    native = data / folder / f"{venue}_{symbol}_candles_4h.parquet"
    funding = pl.read_parquet(data / folder / f"{venue}_{symbol}_funding_8h.parquet")
    interest = pl.read_parquet(data / folder / f"bybit_linear_{symbol}_open_interest_1h.parquet")
    return MarketHistory(
        symbol,
        candles if stored == timeframe else resample(candles, timeframe),
        _candles(native, H4) if native.exists() else resample(candles, H4),
        FundingSeries.validated(
            {
                "time_ms": funding["timestamp_ms"],
                "rate": funding["funding_rate"],
                "interval_hours": np.full(len(funding), 8.0),
            }
        ),
        OpenInterestSeries.validated(
            {
                "time_ms": interest["timestamp_ms"],
                "open_interest": interest["open_interest"],
                "open_interest_value": np.full(len(interest), np.nan),
            }
        ),
        HOUR_MS,
    )


def _candles(path: Path, timeframe: Timeframe) -> CandleSeries:
    frame = pl.read_parquet(path).rename({"timestamp_ms": "open_time_ms"})
    return CandleSeries.validated(timeframe, {name: frame[name] for name in frame.columns})
