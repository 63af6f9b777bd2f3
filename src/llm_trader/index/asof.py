"""The rule that makes the evidence honest: a query at T sees a point only if resolved_at <= T.

"Timestamp before T" is not enough: the outcomes of such a point reach up to 24 hours past its
timestamp, so it would show the query its own future. Every backend applies the window made here
inside its search, and no other code makes windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Times
from llm_trader.snapshot.outcome import resolved_at
from llm_trader.timeframe import DAY_MS, Millis


@dataclass(frozen=True, slots=True)
class Window:
    """Points with `timestamp >= earliest_timestamp_ms` and `resolved_at <= resolved_by_ms`."""

    earliest_timestamp_ms: Millis
    resolved_by_ms: Millis


def visible_window(as_of_ms: Millis, lookback_days: float, embargo_ms: Millis = 0) -> Window:
    """The points that a query may see: resolved by `as_of_ms`, and not older than the lookback.

    With an embargo they were resolved that much earlier: evaluations need it, because the outcomes
    of one time overlap with those of the next.
    """
    return Window(as_of_ms - round(lookback_days * DAY_MS), as_of_ms - embargo_ms)


def visible_rows(
    timestamp_ms: Times, as_of_ms: Times, lookback_days: float, embargo_ms: Millis = 0
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """For many queries, the first row each may see and the one after the last, shapes (n,).

    `timestamp_ms` are the points', increasing.
    """
    windows = [visible_window(int(as_of), lookback_days, embargo_ms) for as_of in as_of_ms]
    first = np.searchsorted(timestamp_ms, [w.earliest_timestamp_ms for w in windows])
    resolved_at_ms = resolved_at(timestamp_ms)
    last = np.searchsorted(resolved_at_ms, [w.resolved_by_ms for w in windows], side="right")
    # Where nothing was resolved in time, the window ends before it begins.
    return first, np.maximum(first, last)
