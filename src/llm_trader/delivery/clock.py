"""The clock of deliveries, which tests replace."""

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
