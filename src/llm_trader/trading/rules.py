"""When a position ends, and what trading costs."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import HOUR_MS, Millis

OppositeRule = Literal["reverse", "close", "ignore"]

_BPS: Final = 10_000.0


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Charged on the notional when a position is opened and when it is closed.

    The defaults are the taker fee of Bybit's perpetuals and a guess for a liquid one's slippage.
    """

    taker_fee_bps: float = 5.5
    slippage_bps: float = 1.0

    def __post_init__(self) -> None:
        if not (self.taker_fee_bps >= 0 and self.slippage_bps >= 0):
            raise InvalidInputError("costs.taker_fee_bps and costs.slippage_bps must be 0 or more")

    @property
    def per_side(self) -> float:
        """As a fraction of the notional."""
        return (self.taker_fee_bps + self.slippage_bps) / _BPS


class TradingRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a position ends; `None` switches that reason off.

    `stop_pct` and `target_pct` are distances from the entry price. The longest hold counts from
    the entry. A HOLD or a repeated side keeps a position. An opposite decision reverses it, closes
    it without opening another, or is ignored.
    """

    stop_pct: float | None = 2.0
    target_pct: float | None = 3.0
    longest_hold_ms: Millis | None = 4 * HOUR_MS
    opposite: OppositeRule = "reverse"

    def __post_init__(self) -> None:
        if self.stop_pct is not None and not 0 < self.stop_pct <= 100:
            raise InvalidInputError("trading.stop_pct must be above 0 and at most 100")
        if self.target_pct is not None and not self.target_pct > 0:
            raise InvalidInputError("trading.target_pct must be above 0")
        if self.longest_hold_ms is not None and self.longest_hold_ms <= 0:
            raise InvalidInputError("trading.longest_hold_ms must be above 0")
        if self.opposite not in ("reverse", "close", "ignore"):
            raise InvalidInputError(
                f"trading.opposite is {self.opposite!r}; take reverse, close or ignore"
            )
