"""How long each settlement of funding holds, from its distance to its neighbours."""

from __future__ import annotations

from itertools import groupby
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.market.samples import sampling_interval_ms
from llm_trader.timeframe import HOUR_MS, MINUTE_MS, Millis, Timeframe

# The intervals that exchanges settle at. Two holes of 8h in a row are no interval of 16h.
_HOURS: Final = (1, 2, 4, 6, 8, 12, 24)
# Settlements are stamped some milliseconds late, now and then some seconds.
_LATE_HOURS: Final = 1 / 60
# A longer distance can be a hole, so it must come again this often to be an interval.
_RUN_OF_LONGER: Final = 3
_RUN_AT_THE_END: Final = 2


def funding_intervals(time_ms: Times, stated: Timeframe | None) -> Floats | None:
    """Hours until the next settlement, shape (n,); None where neither times nor `stated` say it.

    A shorter distance than before is a new interval at once: nothing settles between two
    settlements. A longer one can be a missed settlement, until it has come again and again.
    """
    usual_ms = stated.ms if stated else sampling_interval_ms(time_ms)
    if usual_ms is None:
        return None
    distances = np.diff(time_ms) / HOUR_MS
    rounded = np.round(distances)
    whole = np.where(np.abs(distances - rounded) <= _LATE_HOURS, rounded, 0).astype(int)
    runs = [(hours, len(list(run))) for hours, run in groupby(whole.tolist())]
    shortest = None if stated else min(whole.tolist())
    current = _first_interval(runs, shortest, usual_ms)
    hours_of_rows: list[float] = []
    for number, (hours, length) in enumerate(runs):
        last = number == len(runs) - 1
        enough = _RUN_AT_THE_END if last else _RUN_OF_LONGER
        if hours in _HOURS and (hours < current or length >= enough):
            current = hours
        hours_of_rows += [current] * length
    return np.array([*hours_of_rows, current], dtype=np.float64)


def _first_interval(runs: list[tuple[int, int]], shortest: int | None, usual_ms: Millis) -> float:
    """The first distance that comes twice in a row; else the shortest, or the stated one."""
    for hours, length in runs:
        if hours in _HOURS and length > 1:
            return hours
    if shortest in _HOURS:
        return shortest
    # To the minute, for the stamps are late.
    return round(usual_ms / MINUTE_MS) * MINUTE_MS / HOUR_MS
