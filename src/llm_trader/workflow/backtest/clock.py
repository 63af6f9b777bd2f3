"""The clock of a backtest: it stands at the state that is decided on."""

from __future__ import annotations

from dataclasses import dataclass

from llm_trader.timeframe import Millis


@dataclass(slots=True)
class BacktestClock:
    """Nobody waits: what is tried again is tried at once, and deciding takes no time."""

    time_ms: Millis

    def now_ms(self) -> Millis:
        return self.time_ms

    async def sleep(self, seconds: float) -> None:
        return
