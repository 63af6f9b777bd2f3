"""Neighbours that are separate pieces of evidence.

The quarter-hours of one afternoon look alike and share their outcome: five of them are one
observation, not five. So the nearest point is taken first, then the nearest that lies at least a
gap away in time from all taken before, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from llm_trader.market.candles import Floats, Times
from llm_trader.timeframe import Millis


def spread_out(timestamp_ms: Times, gap_ms: Millis, count: int) -> npt.NDArray[np.intp]:
    """Positions of up to `count` times, in the given order, each `gap_ms` from those before."""
    if gap_ms <= 0:
        return np.arange(min(count, len(timestamp_ms)))
    # A stretch of one gap holds one time at most, so only it and its two neighbours matter.
    taken: dict[int, int] = {}
    positions: list[int] = []
    stretches = (timestamp_ms // gap_ms).tolist()
    for position, stretch in enumerate(stretches):
        if stretch in taken:
            continue
        stamp = int(timestamp_ms[position])
        if stamp - taken.get(stretch - 1, -gap_ms) < gap_ms:
            continue
        if taken.get(stretch + 1, stamp + gap_ms) - stamp < gap_ms:
            continue
        taken[stretch] = stamp
        positions.append(position)
        if len(positions) == count:
            break
    return np.array(positions, np.intp)


def effective_count(timestamp_ms: Times, horizons_ms: Iterable[Millis]) -> Floats:
    """How many independent outcomes the episodes amount to, per horizon, shape (horizons,).

    Two outcomes of horizon h that start a time d apart share max(0, 1 - d/h) of their path; with
    that as their correlation the mean of n outcomes has the variance of n² / Σᵢⱼ rᵢⱼ independent
    ones (Kish's effective sample size for correlated observations).
    """
    n = len(timestamp_ms)
    nearest_ms = np.diff(np.sort(timestamp_ms)).min() if n > 1 else np.inf
    apart = np.abs(timestamp_ms[:, None] - timestamp_ms)
    counts = [
        float(n) if nearest_ms >= h else n * n / np.maximum(0.0, 1.0 - apart / h).sum()
        for h in horizons_ms
    ]
    return np.array(counts)
