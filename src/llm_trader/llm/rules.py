"""Baselines: deciders that look at little or nothing, for others to be measured against.

None of them says how sure it is. A field that is unknown makes a HOLD of the guard.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decider import Case
from llm_trader.llm.decision import Decision


@dataclass(frozen=True, slots=True)
class AlwaysLong:
    """Hold the asset; with rules of trading that never close a position, buy and hold."""

    name: str = "always-long"

    async def decide(self, case: Case) -> Decision:
        return Decision("LONG", None, f"always long {case.symbol}")


@dataclass(frozen=True, slots=True)
class RsiReversal:
    """LONG below `low`, SHORT above `high`, by Wilder's RSI of 7 intraday candles."""

    low: float = 30.0
    high: float = 70.0
    name: str = "rsi-7"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 100:
            raise InvalidInputError("RSI thresholds are 0 <= low <= high <= 100")

    async def decide(self, case: Case) -> Decision:
        rsi = case.value("rsi_7")
        if rsi is None:
            return Decision.hold("guard", "RSI(7) is unknown")
        if rsi < self.low:
            return Decision("LONG", None, f"RSI(7) is {rsi:.1f}, below {self.low:g}")
        if rsi > self.high:
            return Decision("SHORT", None, f"RSI(7) is {rsi:.1f}, above {self.high:g}")
        between = f"from {self.low:g} to {self.high:g}"
        return Decision.hold("model", f"RSI(7) is {rsi:.1f}, {between}")


@dataclass(frozen=True, slots=True)
class MacdSign:
    """LONG while the intraday MACD line is above 0, SHORT while it is below."""

    name: str = "macd-sign"

    async def decide(self, case: Case) -> Decision:
        macd = case.value("macd")
        if macd is None:
            return Decision.hold("guard", "MACD is unknown")
        if macd == 0:
            return Decision.hold("model", "MACD is 0")
        side = "above" if macd > 0 else "below"
        return Decision("LONG" if macd > 0 else "SHORT", None, f"MACD is {side} 0 at {macd:.6g}")
