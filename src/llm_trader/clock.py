"""The clock of what goes on for long, which tests replace by a faster one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llm_trader.timeframe import Millis


class Clock(Protocol):
    def now_ms(self) -> Millis: ...

    async def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class WallClock:
    """Sleeps in the event loop; `present_ms` gives the time."""

    present_ms: Callable[[], Millis]

    def now_ms(self) -> Millis:
        return self.present_ms()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class OffsetClock:
    """The time of an exchange, from a clock and how far the exchange was seen to be ahead of it.

    It may be wrong by `error_ms`: nobody knows when within a round trip the exchange was asked.
    """

    clock: Clock
    offset_ms: Millis = 0
    error_ms: Millis = 0
    is_set: bool = False

    def now_ms(self) -> Millis:
        return self.clock.now_ms() + self.offset_ms

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
