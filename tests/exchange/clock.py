"""A clock that runs from a simulated start, faster than the clock on the wall.

It is three numbers, so the exchange and a collector in another process can have the same one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from llm_trader.timeframe import Millis


@dataclass(frozen=True, slots=True)
class SimulatedClock:
    """It showed `start_ms` at `wall_origin_s` (seconds since 1970) and runs `speed` times as fast.

    It can take the place of the program's own clock: `sleep` takes simulated seconds.
    """

    start_ms: Millis
    speed: float
    wall_origin_s: float
    wall: Callable[[], float] = field(default=time.time, compare=False, repr=False)

    @classmethod
    def starting(cls, start_ms: Millis, speed: float = 1.0) -> Self:
        return cls(start_ms, speed, time.time())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` of a clock gave, in another process."""
        start_ms, speed, wall_origin_s = text.split(",")
        return cls(int(start_ms), float(speed), float(wall_origin_s))

    def __str__(self) -> str:
        return f"{self.start_ms},{self.speed!r},{self.wall_origin_s!r}"

    def now_ms(self) -> Millis:
        return self.start_ms + int((self.wall() - self.wall_origin_s) * 1000 * self.speed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)
