"""Whether a decision still holds: the price must not have moved far, nor much time have passed."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from llm_trader.timeframe import SECOND_MS, Millis

VoidBy = Literal["time", "price", "unknown"]


class ExpiryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a decision becomes void. By default within a third of a quarter-hour, and beyond a move
    that quarter-hours of BTC rarely make.
    """

    max_age_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Seconds after its state at which a decision is void."),
    ] = 300.0
    max_price_move_pct: Annotated[
        float,
        Meta(
            gt=0,
            le=100,
            description="Move of the price since its state, in % and either way, beyond which a "
            "decision is void.",
        ),
    ] = 0.5


class Expiry(msgspec.Struct, frozen=True):
    """What makes a decision void, nothing if it holds. `None` is unknown."""

    void_by: tuple[VoidBy, ...]
    age_s: float | None
    price_move_pct: float | None
    reason: str

    @property
    def is_void(self) -> bool:
        return bool(self.void_by)


def check_expiry(
    as_of_ms: Millis,
    price: float | None,
    now_ms: Millis,
    price_now: float | None,
    config: ExpiryConfig,
) -> Expiry:
    """Compares the state of a decision with now.

    Whatever is unknown makes it void: a price, or the age where the clock stands before the state.
    """
    age_s = (now_ms - as_of_ms) / SECOND_MS if now_ms >= as_of_ms else None
    move_pct = _move_pct(price, price_now)
    void_by: list[VoidBy] = []
    reasons = []
    if age_s is None:
        void_by.append("unknown")
        reasons.append(f"its state lies {(as_of_ms - now_ms) / SECOND_MS:.10g} s in the future")
    elif age_s > config.max_age_s:
        void_by.append("time")
        reasons.append(f"it is {age_s:.10g} s old, at most {config.max_age_s:g} s are allowed")
    if move_pct is None:
        void_by.append("unknown")
        reasons.append(f"the price is unknown (then {price}, now {price_now})")
    elif abs(move_pct) > config.max_price_move_pct:
        void_by.append("price")
        reasons.append(
            f"the price moved {move_pct:+.3g} %, at most {config.max_price_move_pct:g} % either "
            "way are allowed"
        )
    return Expiry(tuple(dict.fromkeys(void_by)), age_s, move_pct, "; ".join(reasons))


def _move_pct(price: float | None, price_now: float | None) -> float | None:
    if price is None or price_now is None or not (isfinite(price) and isfinite(price_now)):
        return None
    return (price_now / price - 1) * 100 if price > 0 and price_now > 0 else None
