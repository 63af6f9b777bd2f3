"""The rule that makes the evidence honest: a query at T sees a point only if resolved_at <= T.

"Timestamp before T" is not enough: the outcomes of such a point reach up to 24 hours past its
timestamp, so it would show the query its own future. Every backend applies the window made here
inside its search, and no window is made anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_trader.timeframe import DAY_MS, Millis


@dataclass(frozen=True, slots=True)
class Window:
    """Points with `timestamp >= earliest_timestamp_ms` and `resolved_at <= resolved_by_ms`."""

    earliest_timestamp_ms: Millis
    resolved_by_ms: Millis


def visible_window(as_of_ms: Millis, lookback_days: float) -> Window:
    """What a query at `as_of_ms` may see: known by then, and not older than the lookback."""
    return Window(as_of_ms - round(lookback_days * DAY_MS), as_of_ms)
