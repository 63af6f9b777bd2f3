"""Data sets with a known answer: an evaluation that finds skill in them cannot be trusted.

Negative controls keep everything but the link between a state and what follows it. An outcome
moves together with the volatilities it is scaled by; else scaling alone would tell neighbours,
which share their volatility, from the base rate. Where outcomes move in time, stretches of random
lengths of about a day are rearranged: a shift by whole days would keep the hour, and one shift of
all would keep recent states beside recent outcomes. Both carry information.

Simulated markets are made from candles on. In a random walk no state says what follows; a reversal
planted into the candles must be found.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from llm_trader.arrays import Rows, Times
from llm_trader.evaluation.dataset import Dataset
from llm_trader.index.ingestion import Spaces, make_points
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.market.simulation import simulate_random_walk
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import LABELS
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis

_SIGNED_ROWS: Final = [COLUMN_ROW[f"outcome_{name}"] for name in HORIZONS]
_LINKED_ROWS: Final = [
    COLUMN_ROW[name] for name in (*LABELS, "realized_volatility_24h", *EXPECTED_VOLATILITY.values())
]

# About a day, and never exactly one, so that no rearrangement keeps the hour of the day.
_MIN_STRETCH_MS: Final = 18 * HOUR_MS
_MAX_STRETCH_MS: Final = 30 * HOUR_MS

SYMBOL: Final = "BTCUSDT"

# A reversal of this strength is found beyond doubt in three months.
PLANTED_REVERSAL: Final = 0.25

_START_MS: Final[Millis] = 1_704_067_200_000  # 2024-01-01; nothing depends on the day


def shuffled_outcomes(points: PointTable, seed: int) -> PointTable:
    """Each state gets the outcome of a random other one."""
    order = np.random.default_rng(seed).permutation(len(points))
    return _with_outcomes_of(points, order)


def shifted_outcomes(points: PointTable, seed: int) -> PointTable:
    """Stretches of about a day get the outcomes of another stretch, in their order."""
    return _with_outcomes_of(points, _rearranged_rows(points.timestamp_ms, seed))


def random_vectors(points: PointTable, seed: int) -> PointTable:
    """States compared by random vectors."""
    rng = np.random.default_rng(seed)
    vectors = {}
    for name, originals in points.vectors.items():
        drawn_vectors = rng.standard_normal(originals.shape)
        unit = drawn_vectors / np.linalg.norm(drawn_vectors, axis=1, keepdims=True)
        vectors[name] = unit.astype(np.float32)
    return replace(points, vectors=vectors)


def wrong_symbol(points: PointTable, other: PointTable, seed: int) -> PointTable:
    """States compared by another symbol's vectors of another stretch of time.

    Times that the other symbol lacks are left out.
    """
    times_ms = np.intersect1d(points.timestamp_ms, other.timestamp_ms)
    common = points.take(np.isin(points.timestamp_ms, times_ms))
    rows = np.flatnonzero(np.isin(other.timestamp_ms, times_ms))[_rearranged_rows(times_ms, seed)]
    return replace(common, vectors={name: other.vectors[name][rows] for name in points.vectors})


def random_signs(points: PointTable, seed: int) -> PointTable:
    """Outcomes of stretches of about a day with their sign kept or turned at random.

    This is no control: what states say about how far prices go stays, about where to it does not.
    """
    rng = np.random.default_rng(seed)
    signs = np.empty(len(points))
    for stretch in _stretches(points.timestamp_ms, rng):
        signs[stretch] = rng.choice([-1.0, 1.0])
    values = points.values.copy()
    values[_SIGNED_ROWS] *= signs
    return replace(points, values=values)


def _rearranged_rows(timestamp_ms: Times, seed: int) -> Rows:
    """Rows of increasing times in stretches of 18 to 30 hours, the stretches in random order."""
    rng = np.random.default_rng(seed)
    stretches = _stretches(timestamp_ms, rng)
    return np.concatenate([stretches[i] for i in rng.permutation(len(stretches))])


def _stretches(timestamp_ms: Times, rng: np.random.Generator) -> list[Rows]:
    n, step_ms = len(timestamp_ms), int(np.diff(timestamp_ms).min(initial=DAY_MS))
    shortest, longest = (-(-length // step_ms) for length in (_MIN_STRETCH_MS, _MAX_STRETCH_MS))
    lengths = rng.integers(shortest, longest + 1, n // shortest + 1)
    return np.split(np.arange(n), np.cumsum(lengths)[np.cumsum(lengths) < n])


def _with_outcomes_of(points: PointTable, rows: Rows) -> PointTable:
    values = points.values.copy()
    values[_LINKED_ROWS] = values[_LINKED_ROWS][:, rows]
    return replace(points, values=values)


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
