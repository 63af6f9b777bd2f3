"""Data sets of which the answer is known: what finds skill in them cannot be trusted.

Negative controls keep everything but the link between a state and what follows it. An outcome
moves together with the volatility it is rescaled by; else rescaling alone would tell neighbours,
who share their volatility, from the base rate. The reference is random neighbours: base rates
drawn and spread out in the same way. Where time is what is moved, stretches of random lengths about
a day are rearranged: a shift by whole days would keep the hour, one of all by the same time would
keep what is recent beside what is recent, and both of these do tell something.

The positive control has a pattern planted into it, which must be found.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from llm_trader.index.points import COLUMN_ROW, STATE, PointTable
from llm_trader.snapshot.outcome import HORIZONS

_LINKED: Final = [COLUMN_ROW[f"outcome_{name}"] for name in HORIZONS] + [
    COLUMN_ROW["realized_volatility_24h"]
]
_PLANTED_SHARE: Final = 0.5

# Quarter-hours in 18 and in 30 hours.
_LEAST_STRETCH: Final = 72
_GREATEST_STRETCH: Final = 120


def shuffled_outcomes(points: PointTable, seed: int) -> PointTable:
    """Each state gets what followed another one."""
    order = np.random.default_rng(seed).permutation(len(points))
    return _with_linked(points, order)


def shifted_outcomes(points: PointTable, seed: int) -> PointTable:
    """Stretches of about a day get what followed another stretch, outcomes in their order."""
    return _with_linked(points, _rearranged(len(points), seed))


def random_vectors(points: PointTable, seed: int) -> PointTable:
    """States compared by vectors that say nothing."""
    drawn = np.random.default_rng(seed).standard_normal(points.vectors[STATE].shape)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return replace(points, vectors={STATE: unit.astype(np.float32)})


def wrong_symbol(points: PointTable, other: PointTable, seed: int) -> PointTable:
    """States compared by another symbol's vectors of another stretch of time.

    Times that the other one lacks are left out.
    """
    stamps = np.intersect1d(points.timestamp_ms, other.timestamp_ms)
    kept = points.take(np.isin(points.timestamp_ms, stamps))
    vectors = other.vectors[STATE][np.isin(other.timestamp_ms, stamps)]
    return replace(kept, vectors={STATE: vectors[_rearranged(len(kept), seed)]})


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


def _rearranged(n: int, seed: int) -> npt.NDArray[np.intp]:
    """Rows 0 to n-1 in stretches of 18 to 30 hours, the stretches in random order."""
    chances = np.random.default_rng(seed)
    lengths = chances.integers(_LEAST_STRETCH, _GREATEST_STRETCH + 1, n // _LEAST_STRETCH + 1)
    stretches = np.split(np.arange(n), np.cumsum(lengths)[np.cumsum(lengths) < n])
    return np.concatenate([stretches[i] for i in chances.permutation(len(stretches))])


def _with_linked(points: PointTable, rows: npt.NDArray[np.intp]) -> PointTable:
    values = points.values.copy()
    values[_LINKED] = values[_LINKED][:, rows]
    return replace(points, values=values)
