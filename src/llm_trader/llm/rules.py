"""Baselines: deciders that look at little or nothing, for others to be measured against.

None of them says how sure it is. A field that is unknown makes a HOLD of the guard.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from llm_trader.errors import InvalidInputError
from llm_trader.llm.decider import Case
from llm_trader.llm.decision import Decision
from llm_trader.timeframe import Millis


@dataclass(frozen=True, slots=True)
class AlwaysLong:
    """Hold the asset; with rules of trading that never close a position, buy and hold."""

    name: str = "always-long"

    async def decide(self, case: Case) -> Decision:
        return Decision("LONG", None, f"always long {case.symbol}")


@dataclass(frozen=True, slots=True)
class RandomSides:
    """LONG and SHORT with the given frequencies, HOLD otherwise.

    A draw follows from seed, symbol and time alone, so the order of cases does not matter. Raises
    `InvalidInputError` for frequencies below 0 or beyond 1 together.
    """

    longs: float
    shorts: float
    seed: int = 0
    name: str = "random"

    def __post_init__(self) -> None:
        if not (self.longs >= 0 and self.shorts >= 0 and self.longs + self.shorts <= 1 + 1e-12):
            raise InvalidInputError("frequencies are 0 or more, together at most 1")

    async def decide(self, case: Case) -> Decision:
        draw = self._draw(case.symbol, case.as_of_ms)
        if draw < self.longs:
            return Decision("LONG", None, "by chance")
        if draw < self.longs + self.shorts:
            return Decision("SHORT", None, "by chance")
        return Decision.hold("model", "by chance")

    def _draw(self, symbol: str, as_of_ms: Millis) -> float:
        """Uniform from 0 to below 1."""
        key = f"{self.seed}/{symbol}/{as_of_ms}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        # 53 bits: what a float between 0 and 1 holds exactly.
        return float((int.from_bytes(digest, "big") >> 11) / 2**53)


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
