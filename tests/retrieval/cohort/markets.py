"""Made-up markets for cohorts: states that last, and prices that know nothing of them."""

from __future__ import annotations

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.index.points import COLUMN_ROW, COLUMNS, PointTable
from llm_trader.retrieval.cohort.outcomes import COHORT_SHARE, LEAST_STATES, NearestStates
from llm_trader.retrieval.forecast import ForecastBase
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.timeframe import DAY_MS, HORIZONS, M15
from tests.index.builders import SYMBOL

START_MS = 1_735_689_600_000  # 2025-01-01
EXPECTED_PCT = [0.3, 0.6, 1.2, 3.0]


def lasting(rng: np.random.Generator, n: int, rows: int, hours: float = 24.0) -> Floats:
    """Processes (rows, n) of variance 1 that forget in about so many hours."""
    kept = np.exp(-0.25 / hours)
    noise = rng.standard_normal((rows, n)) * np.sqrt(1 - kept**2)
    values = np.empty((rows, n))
    last = rng.standard_normal(rows)
    for column in range(n):
        last = values[:, column] = kept * last + noise[:, column]
    return values


def null_market(seed: int, days: int = 90) -> NearestStates:
    """Heavy-tailed moves whose size changes from day to day, and states that know nothing of it."""
    rng = np.random.default_rng([seed, 22])
    n, day = days * 96, 96
    features = lasting(rng, n, 7)
    size = np.repeat(np.exp(0.4 * rng.standard_normal(days + 1)), day)
    moves = np.cumsum(0.15 * size * rng.standard_t(4, n + day))
    values = np.full((len(COLUMNS), n), np.nan)
    times_ms = START_MS + M15.ms * np.arange(n, dtype=np.int64)
    columns = {
        "funding_rate": 1e-4 * (features[0] + 0.5),
        "realized_volatility_24h": np.exp(features[1]),
        "hour_of_day": times_ms % DAY_MS / 3_600_000,
        "ema_ratio": 1 + 0.01 * features[2],
        "oi_delta_pct": features[3],
        "price_change_24h": features[4],
        "volume_ratio": np.exp(features[5]),
    }
    for (name, horizon_ms), pct in zip(HORIZONS.items(), EXPECTED_PCT, strict=True):
        ahead = horizon_ms // M15.ms
        columns[f"outcome_{name}"] = moves[ahead : ahead + n] - moves[:n]
        columns[EXPECTED_VOLATILITY[name]] = np.full(n, pct)
    for name, column in columns.items():
        values[COLUMN_ROW[name]] = column
    points = PointTable(SYMBOL, times_ms, values, {}, np.ones(n, np.uint32))
    return nearest_by(points, features[6])


def nearest_by(points: PointTable, likeness: Floats) -> NearestStates:
    count = min(len(points), max(LEAST_STATES, round(COHORT_SHARE * len(points))))
    rows = np.sort(np.argsort(-likeness, kind="stable")[:count])
    return NearestStates(points, rows, likeness[rows], ForecastBase.of(points), None)
