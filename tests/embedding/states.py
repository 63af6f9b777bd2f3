"""States to embed, and similarity computed plainly from the table of features."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from llm_trader.arrays import Floats
from llm_trader.embedding.features import FEATURES, Feature
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M5, Millis, Timeframe
from tests.market.builders import START_MS
from tests.snapshot.histories import BYBIT_2025, grid, real, simulated

Source = tuple[str, str, Timeframe]
VOLATILITY_FLOOR = 1e-3  # what a volatility or a volume ratio counts as at least

WIRE_FIELDS = (
    *("price", "rsi_7", "rsi_14", "macd", "ema_20", "ema_20_4h", "ema_50_4h", "funding_rate"),
    *("open_interest_latest", "open_interest_avg_24h"),
)

# Every field of some made-up state.
FIXED = {
    "price": 60_000.0,
    "rsi_7": 62.0,
    "rsi_14": 58.0,
    "macd": 30.0,
    "ema_20": 59_880.0,
    "price_change_1h": 0.3,
    "price_change_4h": 0.9,
    "price_change_24h": -1.2,
    "realized_volatility_1h": 0.4,
    "realized_volatility_4h": 0.8,
    "realized_volatility_24h": 2.2,
    "volume_ratio": 1.25,
    "hour_of_day": 9.5,
    "ema_20_4h": 59_000.0,
    "ema_50_4h": 58_000.0,
    "atr_3_4h": 700.0,
    "atr_14_4h": 800.0,
    "macd_4h": 240.0,
    "rsi_14_4h": 56.0,
    "current_volume_4h": 9_000.0,
    "avg_volume_4h": 8_000.0,
    "open_interest_latest": 51_500.0,
    "open_interest_avg_24h": 50_000.0,
    "funding_rate": 0.0001,
    "funding_interval_hours": 8.0,
    "missing_candles": 0.0,
    "missing_candles_4h": 0.0,
    "ema_ratio": 59 / 58,
    "oi_delta_pct": 3.0,
    "price_slope": 0.25,
    "ema_20_slope": 0.1,
    "macd_slope": -0.03,
    "rsi_7_slope": 4.0,
    "rsi_14_slope": -3.0,
    "macd_4h_slope": 0.05,
    "rsi_14_4h_slope": -0.6,
}


@cache
def simulated_states(timeframe: Timeframe = M5) -> SnapshotTable:
    """Some 9000 complete states."""
    history = simulated(120, timeframe)
    table = build_snapshots(history, grid(history, 21))
    return table.take(table.complete())


@cache
def real_states(data: Path, source: Source, symbol: str, start_ms: Millis = 0) -> SnapshotTable:
    history = real(data, source, symbol)
    times = grid(history, 0)
    table = build_snapshots(history, times[times >= start_ms])
    return table.take(table.complete())


def bybit_states(data: Path, symbol: str) -> SnapshotTable:
    """From 2025-10-20 to 2026-03-31."""
    return real_states(data, BYBIT_2025, symbol, 1_760_918_400_000)


def of_fields(fields: dict[str, float], timeframe: Timeframe = M5) -> SnapshotTable:
    return SnapshotTable.of_fields("BTCUSDT", timeframe, START_MS + DAY_MS, fields)


def fields_at(table: SnapshotTable, row: int) -> dict[str, float]:
    return dict(zip(SCALARS, table.scalars[:, row].tolist(), strict=True))


def z_of(feature: Feature, fields: dict[str, float], timeframe: Timeframe) -> float | None:
    """One feature of one state, from the documented formula; `None` where a field is unknown."""

    def value_of(name: str) -> float:
        if name in ("0", "1"):
            return float(name)
        value = fields.get(name, math.nan)
        return max(value, VOLATILITY_FLOOR) if name.startswith("realized_volatility_") else value

    value = (value_of(feature.plus) - value_of(feature.minus)) / value_of(feature.over)
    if math.isnan(value):
        return None
    if feature.shape == "log":
        value = math.log(max(value, VOLATILITY_FLOOR))
    elif feature.shape == "sine":
        value = math.sin(2 * math.pi * value / 24)
    elif feature.shape == "cosine":
        value = math.cos(2 * math.pi * value / 24)
    minutes = timeframe.ms / 60_000
    return (value - feature.centre) / (feature.scale * (minutes / 5) ** feature.length_exponent)


def angles(
    fields: dict[str, float],
    timeframe: Timeframe = M5,
    features: tuple[Feature, ...] = FEATURES,
) -> list[float | None]:
    found = (z_of(feature, fields, timeframe) for feature in features)
    return [None if z is None else math.pi / 2 * math.tanh(z) for z in found]


def similarity(
    one: list[float | None],
    other: list[float | None],
    features: tuple[Feature, ...] = FEATURES,
) -> float:
    """The weighted mean of the cosine of the angles between, over the features both have."""
    both = [
        (feature.weight, a - b)
        for feature, a, b in zip(features, one, other, strict=True)
        if a is not None and b is not None
    ]
    return sum(w * math.cos(d) for w, d in both) / sum(w for w, _ in both)


def random_pairs(count: int, of: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pairs of different states."""
    draw = np.random.default_rng(seed)
    first = draw.integers(0, of, count)
    return first, (first + draw.integers(1, of, count)) % of


def cosines(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> Floats:
    return (vectors[first].astype(float) * vectors[second]).sum(axis=1)


rows_of_simulation = st.integers(0, 9000)
