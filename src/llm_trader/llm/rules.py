"""Baselines: simple deciders to compare others with.

They give no confidence. An unknown field leads to a HOLD with the reason `guard`.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decision import Case, Decision


@dataclass(frozen=True, slots=True)
class AlwaysLong:
    """Always LONG; this is buy and hold if the trading rules never close a position."""

    name: str = "always-long"

    async def decide(self, case: Case) -> Decision:
        return Decision("LONG", None, f"always long {case.symbol}")


@dataclass(frozen=True, slots=True)
class RsiReversal:
    """LONG if Wilder's RSI of 7 intraday candles is below `low`, SHORT if it is above `high`."""

    # Wilder's own thresholds.
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
        return Decision.hold("model", f"RSI(7) is {rsi:.1f}, from {self.low:g} to {self.high:g}")


@dataclass(frozen=True, slots=True)
class MacdSign:
    """LONG if the intraday MACD line is above 0, SHORT if it is below."""

    name: str = "macd-sign"

    async def decide(self, case: Case) -> Decision:
        macd = case.value("macd")
        if macd is None:
            return Decision.hold("guard", "MACD is unknown")
        if macd == 0:
            return Decision.hold("model", "MACD is 0")
        side = "above" if macd > 0 else "below"
        return Decision("LONG" if macd > 0 else "SHORT", None, f"MACD is {side} 0 at {macd:.6g}")
