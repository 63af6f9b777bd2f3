"""Whether the data of a boundary is there, and how long it is worth waiting for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from llm_trader.timeframe import H4, HOUR_MS, MINUTE_MS, Millis, Timeframe


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEnds:
    """How far the data of a symbol has come; None where the store has nothing of a kind.

    `funding_ms` is the last settlement, which is for `funding_interval_hours`.
    """

    intraday: Timeframe
    intraday_close_ms: Millis | None
    four_hour_close_ms: Millis | None = None
    open_interest_ms: Millis | None = None
    open_interest_interval_ms: Millis = HOUR_MS
    funding_ms: Millis | None = None
    funding_interval_hours: float | None = None

    def late_at(self, boundary_ms: Millis) -> tuple[str, ...]:
        """The kinds of data of which something is missing that was to be known at a boundary."""
        return tuple(self._late(boundary_ms))

    def _late(self, boundary_ms: Millis) -> Iterator[str]:
        if (self.intraday_close_ms or 0) < self.intraday.floor(boundary_ms):
            yield f"{self.intraday} candles"
        # A kind that the store has nothing of is not collected, and nobody waits for it.
        if self.four_hour_close_ms is not None and self.four_hour_close_ms < H4.floor(boundary_ms):
            yield f"{H4} candles"
        interest_grid = Timeframe(self.open_interest_interval_ms)
        if (ms := self.open_interest_ms) is not None and ms < interest_grid.floor(boundary_ms):
            yield "open interest"
        if self.funding_ms is not None and self.funding_interval_hours:
            # Some venues stamp a settlement some milliseconds after it.
            settled_ms = self.funding_ms - self.funding_ms % MINUTE_MS
            next_ms = settled_ms + round(self.funding_interval_hours * HOUR_MS)
            if next_ms <= boundary_ms:
                yield "funding"


class Decision(NamedTuple):
    """Whether to make the snapshot of a boundary now, and what is late then."""

    is_due: bool
    late: tuple[str, ...]


def decide(ends: DataEnds, boundary_ms: Millis, now_ms: Millis, max_wait_ms: Millis) -> Decision:
    """Due as soon as all data is there, and after the longest wait without what is late."""
    late = ends.late_at(boundary_ms)
    return Decision(not late or now_ms >= boundary_ms + max_wait_ms, late)


def pause_s(attempt: int) -> float:
    """How long to wait after a failed attempt, counted from 0."""
    return float(min(0.2 * 2 ** min(attempt, 10), 10.0))
