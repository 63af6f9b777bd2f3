"""Token buckets by client: `burst` at once, `rate_per_s` over time. The time is an argument."""

from __future__ import annotations

import math
from typing import Final

# About 2 MB of clients. Beyond it, full buckets are dropped, because a new one is full as well.
_MAX_BUCKETS: Final = 10_000


class TokenBuckets:
    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, client: str, now_s: float) -> int:
        """Takes one token; returns 0, or the milliseconds until there is one."""
        level = self._level(client, now_s)
        granted = level >= 1
        self.set_level(client, level - granted, now_s)
        return 0 if granted else self.wait_ms(level, 1)

    def spend(self, client: str, amount: float, now_s: float) -> None:
        """Takes what was used already, below zero if need be."""
        self.set_level(client, self._level(client, now_s) - amount, now_s)

    def retry_after_ms(self, client: str, now_s: float, needed: float = 1) -> int:
        """The milliseconds until so much is there; 0 if it is."""
        level = self._level(client, now_s)
        return 0 if level >= needed else self.wait_ms(level, needed)

    def wait_ms(self, level: float, needed: float) -> int:
        return max(math.ceil((needed - level) / self._rate_per_s * 1000), 1)

    def set_level(self, client: str, level: float, now_s: float) -> None:
        self._buckets[client] = (level, now_s)
        # Addresses come from outside, so what is kept for each of them has a bound.
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets = {
                other: (level, since_s)
                for other, (level, since_s) in self._buckets.items()
                if level + (now_s - since_s) * self._rate_per_s < self._burst
            }

    def _level(self, client: str, now_s: float) -> float:
        level, since_s = self._buckets.get(client, (self._burst, now_s))
        return min(self._burst, level + max(now_s - since_s, 0) * self._rate_per_s)
