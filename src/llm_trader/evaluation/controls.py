"""Data sets of which the answer is known: what finds skill in them cannot be trusted.

Negative controls keep everything but the link between a state and what follows it. An outcome
moves together with the volatility it is rescaled by; else rescaling alone would tell neighbours,
who share their volatility, from the base rate. The reference is random neighbours: base rates
drawn and spread out in the same way. What is another symbol's, or another time's, is moved by half
the lookback, as markets move together and calm lasts for weeks.

The positive control has a pattern planted into it, which must be found.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from llm_trader.index.points import COLUMN_ROW, STATE, PointTable
from llm_trader.snapshot.outcome import HORIZONS

_LINKED: Final = [COLUMN_ROW[f"outcome_{name}"] for name in HORIZONS] + [
    COLUMN_ROW["realized_volatility_24h"]
]
_PLANTED_SHARE: Final = 0.5


def shuffled_outcomes(points: PointTable, seed: int) -> PointTable:
    """Each state gets what followed another one."""
    order = np.random.default_rng(seed).permutation(len(points))
    return _with_linked(points, order)


def shifted_outcomes(points: PointTable, shift: int) -> PointTable:
    """Each state gets what followed the one `shift` rows before; the first wrap around."""
    return _with_linked(points, np.roll(np.arange(len(points)), shift))


def random_vectors(points: PointTable, seed: int) -> PointTable:
    """States compared by vectors that say nothing."""
    drawn = np.random.default_rng(seed).standard_normal(points.vectors[STATE].shape)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return replace(points, vectors={STATE: unit.astype(np.float32)})


def wrong_symbol(points: PointTable, other: PointTable, shift: int) -> PointTable:
    """States compared by another symbol's vectors of `shift` rows before.

    Times that the other one lacks are left out.
    """
    stamps = np.intersect1d(points.timestamp_ms, other.timestamp_ms)
    kept = points.take(np.isin(points.timestamp_ms, stamps))
    vectors = other.vectors[STATE][np.isin(other.timestamp_ms, stamps)]
    return replace(kept, vectors={STATE: np.roll(vectors, shift, axis=0)})


def planted_pattern(points: PointTable, seed: int) -> PointTable:
    """Outcomes that partly follow from the vectors, by a direction drawn at random."""
    chances = np.random.default_rng(seed)
    direction = chances.standard_normal(points.vectors[STATE].shape[1])
    pull = points.vectors[STATE] @ direction
    pull = (pull - pull.mean()) / pull.std()
    values = points.values.copy()
    volatility = values[COLUMN_ROW["realized_volatility_24h"]]
    for name in HORIZONS:
        row = COLUMN_ROW[f"outcome_{name}"]
        size = _PLANTED_SHARE * float(np.std(values[row] / volatility))
        values[row] += pull * size * volatility
    return replace(points, values=values)


def _with_linked(points: PointTable, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> PointTable:
    values = points.values.copy()
    values[_LINKED] = values[_LINKED][:, rows]
    return replace(points, values=values)
