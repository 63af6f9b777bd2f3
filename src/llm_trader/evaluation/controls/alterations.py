"""Data sets of which the answer is known: what finds skill in them cannot be trusted.

Negative controls keep everything but the link between a state and what follows it. An outcome
moves together with the volatility it is rescaled by; else rescaling alone would tell neighbours,
who share their volatility, from the base rate. Where time is what is moved, stretches of random
lengths about a day are rearranged: a shift by whole days would keep the hour, one of all by the
same time would keep what is recent beside what is recent, and both of these do tell something.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from llm_trader.arrays import Rows, Times
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.snapshot.outcome import HORIZONS, OUTCOMES
from llm_trader.timeframe import DAY_MS, HOUR_MS

_DIRECTED: Final = [COLUMN_ROW[f"outcome_{name}"] for name in HORIZONS]
_LINKED: Final = [COLUMN_ROW[name] for name in (*OUTCOMES, "realized_volatility_24h")]

_LEAST_STRETCH_MS: Final = 18 * HOUR_MS
_GREATEST_STRETCH_MS: Final = 30 * HOUR_MS


def shuffled_outcomes(points: PointTable, seed: int) -> PointTable:
    """Each state gets what followed another one."""
    order = np.random.default_rng(seed).permutation(len(points))
    return _with_linked(points, order)


def shifted_outcomes(points: PointTable, seed: int) -> PointTable:
    """Stretches of about a day get what followed another stretch, outcomes in their order."""
    return _with_linked(points, _rearranged(points.timestamp_ms, seed))


def random_vectors(points: PointTable, seed: int) -> PointTable:
    """States compared by vectors that say nothing."""
    chances = np.random.default_rng(seed)
    vectors = {}
    for name, known in points.vectors.items():
        drawn = chances.standard_normal(known.shape)
        unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        vectors[name] = unit.astype(np.float32)
    return replace(points, vectors=vectors)


def wrong_symbol(points: PointTable, other: PointTable, seed: int) -> PointTable:
    """States compared by another symbol's vectors of another stretch of time.

    Times that the other one lacks are left out.
    """
    stamps = np.intersect1d(points.timestamp_ms, other.timestamp_ms)
    kept = points.take(np.isin(points.timestamp_ms, stamps))
    rows = np.flatnonzero(np.isin(other.timestamp_ms, stamps))[_rearranged(stamps, seed)]
    return replace(kept, vectors={name: other.vectors[name][rows] for name in points.vectors})


def signs_by_chance(points: PointTable, seed: int) -> PointTable:
    """Outcomes of stretches of about a day turned over, or not, by the toss of a coin.

    No control: how far prices go stays, and with it what states tell of that; where to does not.
    """
    chances = np.random.default_rng(seed)
    signs = np.empty(len(points))
    for stretch in _stretches(points.timestamp_ms, chances):
        signs[stretch] = chances.choice([-1.0, 1.0])
    values = points.values.copy()
    values[_DIRECTED] *= signs
    return replace(points, values=values)


def _rearranged(timestamp_ms: Times, seed: int) -> Rows:
    """Rows of increasing times in stretches of 18 to 30 hours, the stretches in random order."""
    chances = np.random.default_rng(seed)
    stretches = _stretches(timestamp_ms, chances)
    return np.concatenate([stretches[i] for i in chances.permutation(len(stretches))])


def _stretches(timestamp_ms: Times, chances: np.random.Generator) -> list[Rows]:
    n, step_ms = len(timestamp_ms), int(np.diff(timestamp_ms).min(initial=DAY_MS))
    least, greatest = (-(-of // step_ms) for of in (_LEAST_STRETCH_MS, _GREATEST_STRETCH_MS))
    lengths = chances.integers(least, greatest + 1, n // least + 1)
    return np.split(np.arange(n), np.cumsum(lengths)[np.cumsum(lengths) < n])


def _with_linked(points: PointTable, rows: Rows) -> PointTable:
    values = points.values.copy()
    values[_LINKED] = values[_LINKED][:, rows]
    return replace(points, values=values)
