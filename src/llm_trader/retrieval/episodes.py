"""Neighbours that are separate pieces of evidence.

The quarter-hours of one afternoon look alike and share their outcome: five of them are one
observation, not five. What is shown as most alike is the nearest of them. What is summed up as
evidence is the earliest: a quarter-hour is nearer than the one after it because the market then
turned away, so those chosen for being nearest show reversals even in a random walk. (Measured in
one, over 50 neighbours: their mean outcome correlates by -0.5 with the return before the query,
and forecasts lose 0.5 %; of the earliest, 0.0 both.) The earliest was alike before anything
followed.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from llm_trader.arrays import Floats, Rows, Times
from llm_trader.timeframe import Millis


def nearest_apart(timestamp_ms: Times, gap_ms: Millis, count: int) -> Rows:
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


def earliest_apart(timestamp_ms: Times, gap_ms: Millis, count: int) -> Rows:
    """Positions of `count` times that are `gap_ms` apart, ascending; fewer where there are fewer.

    Of the fewest first times that hold as many: the earliest of them, the next that is a gap
    later, and so on. More times at the end of the given ones change nothing.
    """
    if gap_ms <= 0:
        return np.arange(min(count, len(timestamp_ms)))
    order = np.argsort(timestamp_ms, kind="stable")
    stamps = timestamp_ms[order]
    few, enough = min(count, len(order)) - 1, len(order)
    beyond = len(_apart(order, stamps, gap_ms, enough)) - count
    # One time more makes one episode more, at most.
    enough -= max(beyond, 0)
    while beyond >= 0 and enough - few > 1:
        among = (few + enough) // 2
        missing = count - len(_apart(order, stamps, gap_ms, among))
        if missing > 0:
            few = among + missing - 1
        else:
            enough = among + missing
    taken = _apart(order, stamps, gap_ms, enough)
    return np.sort(order[order < enough][taken])


def _apart(order: Rows, stamps: Times, gap_ms: Millis, among: int) -> list[int]:
    """The earliest choice from the first `among` times, as places in their order of time.

    `order` sorts all by time, `stamps` are all in that order.
    """
    known = stamps[order < among]
    after = known.searchsorted(known + gap_ms).tolist()
    taken, place = [], 0
    while place < among:
        taken.append(place)
        place = after[place]
    return taken


def effective_counts(timestamp_ms: Times, horizons_ms: Collection[Millis]) -> Floats:
    """How many independent outcomes the episodes (..., n) amount to, shape (horizons, ...).

    Two outcomes of horizon h that start a time d apart share max(0, 1 - d/h) of their path; with
    that as their correlation the mean of n outcomes has the variance of n² / Σᵢⱼ rᵢⱼ independent
    ones (Kish's effective sample size for correlated observations).
    """
    n = timestamp_ms.shape[-1]
    ascending = np.sort(timestamp_ms)
    gaps_ms = ascending[..., 1:] - ascending[..., :-1]
    smallest_gap_ms = gaps_ms.min() if gaps_ms.size else np.inf
    distances_ms = np.abs(timestamp_ms[..., :, None] - timestamp_ms[..., None, :])
    counts = np.full((len(horizons_ms), *timestamp_ms.shape[:-1]), float(n))
    for row, horizon_ms in enumerate(horizons_ms):
        if smallest_gap_ms < horizon_ms:  # else no two outcomes overlap, and n is right
            correlations = np.maximum(0.0, 1.0 - distances_ms / horizon_ms)
            counts[row] = n * n / np.add.reduce(correlations, axis=(-2, -1))
    return counts
