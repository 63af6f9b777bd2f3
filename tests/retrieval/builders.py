"""States and points of a made-up market for retrieval, and answers without their durations."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.app.indexes import collection_of
from llm_trader.arrays import Floats, Times
from llm_trader.embedding.state import StateSpace
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import COLUMN_ROW, STATE, PointTable
from llm_trader.retrieval.answer import Answer
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.outcome import LABELS, PATH, TURNS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5
from tests.index.builders import SYMBOL, at

SPACE = StateSpace(M5)
COLLECTION = collection_of(Spaces(SPACE), "bybit")

# What a client of the prototype sends.
TEN_FIELDS = (
    "price",
    "rsi_7",
    "rsi_14",
    "macd",
    "ema_20",
    "ema_20_4h",
    "ema_50_4h",
    "funding_rate",
    "open_interest_latest",
    "open_interest_avg_24h",
)


def states_at(times: Times, seed: int = 0, latent: Floats | None = None) -> SnapshotTable:
    """Complete states whose features are independent, or all follow `latent` (n,) with noise."""
    n = len(times)
    noise_rows = np.random.default_rng(seed).standard_normal((len(SCALARS), n))
    if latent is not None:
        noise_rows = 0.9 * latent + np.sqrt(1 - 0.9**2) * noise_rows
    noise = iter(noise_rows)
    price = 100 * np.exp(0.01 * np.cumsum(next(noise)))
    atr = price * 0.015 * np.exp(0.4 * next(noise))
    interest = 1e6 * np.exp(0.1 * next(noise))
    fields: dict[str, Any] = {
        "price": price,
        "rsi_7": 50 + 12 * next(noise),
        "rsi_14": 50 + 9 * next(noise),
        "macd": price * 0.0025 * next(noise),
        "ema_20": price / (1 + 0.005 * next(noise)),
        "ema_20_4h": price / (1 + 0.02 * next(noise)),
        "ema_50_4h": price / (1 + 0.04 * next(noise)),
        "macd_4h": price * 0.01 * next(noise),
        "rsi_14_4h": 50 + 12 * next(noise),
        "atr_14_4h": atr,
        "atr_3_4h": atr * np.exp(0.3 * next(noise)),
        "current_volume_4h": 1000 * np.exp(0.6 * next(noise)),
        "avg_volume_4h": np.full(n, 1000.0),
        "volume_ratio": np.exp(0.7 * next(noise)),
        "open_interest_avg_24h": interest,
        "open_interest_latest": interest * (1 + 0.04 * next(noise)),
        "funding_rate": 0.00005 + 0.0001 * next(noise),
        "funding_interval_hours": np.full(n, 8.0),
        "missing_candles": np.zeros(n),
        "missing_candles_4h": np.zeros(n),
    }
    for window, size in (("1h", 0.5), ("4h", 1.0), ("24h", 2.5)):
        volatility = size * np.exp(0.4 * next(noise))
        fields[f"realized_volatility_{window}"] = volatility
        fields[f"price_change_{window}"] = volatility * next(noise)
    for slope, size in (
        ("price_slope", 0.8),
        ("ema_20_slope", 0.5),
        ("macd_slope", 0.2),
        ("rsi_7_slope", 30.0),
        ("rsi_14_slope", 20.0),
        ("macd_4h_slope", 0.15),
        ("rsi_14_4h_slope", 2.0),
    ):
        fields[slope] = size * next(noise)
    for horizon, size in (("15m", 0.3), ("1h", 0.6), ("4h", 1.2), ("24h", 3.0)):
        fields[f"expected_volatility_{horizon}"] = size * np.exp(0.3 * next(noise))
    table = SnapshotTable.unknown(SYMBOL, M5, times)
    for name, values in fields.items():
        table.column(name)[:] = values
    table.derive()
    return table


def outcomes_at(n: int, seed: int = 0, pull: npt.ArrayLike = 0.0) -> Floats:
    """Outcomes, shape (labels, n), independent of everything but `pull`, in units of spread."""
    rng = np.random.default_rng([seed, 1])
    spread = {"15m": 0.3, "1h": 0.6, "4h": 1.2, "24h": 3.0}
    rows = {f"outcome_{h}": s * (rng.standard_normal(n) + pull) for h, s in spread.items()}
    rows["max_runup_1h"] = np.abs(1.5 * rng.standard_normal(n))
    rows["max_drawdown_1h"] = -np.abs(1.0 * rng.standard_normal(n))
    rows["first_barrier"] = rng.choice([0.0, 1.0, 2.0], n, p=[0.35, 0.4, 0.25])
    rows |= {name: np.zeros(n) for name in PATH}
    # One fall after a rise, and perhaps a higher rise.
    rows[f"path_low_{TURNS}"], rows[f"path_high_{TURNS}"] = np.abs(rng.standard_normal((2, n)))
    highest = np.maximum(rows[f"path_high_{TURNS}"], 2 * np.abs(rng.standard_normal(n)))
    rows[f"path_high_{TURNS + 1}"] = highest
    return np.array([rows[name] for name in LABELS])


def points_of(states: SnapshotTable, outcomes: Floats, run: int = 1) -> PointTable:
    values = np.concatenate([states.scalars, outcomes])
    vectors, _ = SPACE.embed(states)
    return PointTable.checked(states.symbol, states.as_of_ms, values, {STATE: vectors}, run)


def past(slots: Any, seed: int = 0) -> PointTable:
    """Points at quarter-hours, states and outcomes independent of each other."""
    times = at(slots)
    return points_of(states_at(times, seed), outcomes_at(len(times), seed))


def outcome_table(timestamps: Times, **columns: Any) -> PointTable:
    """Points for what looks at outcomes only."""
    plain = past(range(len(timestamps)))
    values = plain.values.copy()
    for name, column in columns.items():
        values[COLUMN_ROW[name]] = column
    return PointTable(SYMBOL, timestamps, values, plain.vectors, plain.run)


def of_symbol(points: PointTable, symbol: str) -> PointTable:
    return PointTable(symbol, points.timestamp_ms, points.values, points.vectors, points.run)


def state_of(points: PointTable, row: int, as_of_ms: int, *names: str) -> SnapshotTable:
    """A point's state as a query at another time; only the named fields, if any are."""
    fields = {name: float(points.column(name)[row]) for name in names or SCALARS}
    return SnapshotTable.of_fields(points.symbol, M5, as_of_ms, fields)


def varied(state: SnapshotTable, **fields: float) -> SnapshotTable:
    """A state of which some scalar fields are others; NaN makes one unknown."""
    scalars = state.scalars.copy()
    table = SnapshotTable(state.symbol, state.intraday, state.as_of_ms, scalars, state.series)
    for name, value in fields.items():
        table.column(name)[:] = value
    return table


def comparable(answer: Answer) -> bytes:
    """Everything in an answer but how long it took."""
    return msgspec.json.encode(msgspec.structs.replace(answer, embedding_us=0, retrieval_us=0))


@asynccontextmanager
async def index_of(*tables: PointTable) -> AsyncIterator[EmbeddedIndex]:
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedIndex.create_or_open(Path(folder) / "index", COLLECTION) as index,
    ):
        for points in tables:
            await index.upsert(points)
        yield index
