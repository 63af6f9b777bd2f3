"""The features of the `state` vector: scale-free numbers with fixed centres and scales.

Nothing is fitted to the searched data, so nothing can leak, and an index never drifts away from
its queries. The constants are rounded from the spreads of BTC, ETH and SOL, a little wide so that
random pairs have a median similarity near one half. Features are plain data, and the id of the
vector space is their hash: any change makes another space.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

# The least volatility (in %) and volume ratio: an hour without a trade is a state like others, and
# its logarithm must be finite.
VOLATILITY_FLOOR: Final = 1e-3
FLOORED: Final = tuple(f"realized_volatility_{window}" for window in ("1h", "4h", "24h"))

ZERO: Final = "0"
ONE: Final = "1"

Shape = Literal["linear", "log", "sine", "cosine"]


class Feature(msgspec.Struct, frozen=True, array_like=True):
    """The value z = (shape((plus - minus) / over) - centre) / scale of snapshot fields.

    `sine` and `cosine` make one turn in 24 hours. `scale` is for 5-minute candles; for others it
    is multiplied by (candle length / 5 minutes) ** `length_exponent`, as for a random walk.
    """

    name: str
    plus: str
    minus: str
    over: str
    shape: Shape
    centre: float
    scale: float
    weight: float = 1.0
    length_exponent: float = 0.0


def _plain(field: str, centre: float, scale: float, exponent: float = 0.0) -> Feature:
    return Feature(field, field, ZERO, ONE, "linear", centre, scale, 1.0, exponent)


def _distance(name: str, minus: str, over: str, scale: float, exponent: float = 0.0) -> Feature:
    return Feature(name, "price", minus, over, "linear", 0, scale, 1.0, exponent)


def _ratio(
    name: str, field: str, over: str, centre: float, scale: float, exponent: float = 0.0
) -> Feature:
    return Feature(name, field, ZERO, over, "linear", centre, scale, 1.0, exponent)


def _log(name: str, field: str, over: str, centre: float, scale: float) -> Feature:
    return Feature(name, field, ZERO, over, "log", centre, scale)


FEATURES: Final = (
    # Fast momentum
    _plain("rsi_7", 50, 24),
    _plain("rsi_14", 50, 17),
    _ratio("macd_of_price", "macd", "price", 0, 0.0025, exponent=0.5),
    _ratio("macd_of_atr", "macd", "atr_14_4h", 0, 0.16, exponent=0.5),
    _distance("above_ema_20", "ema_20", "ema_20", 0.005, exponent=0.5),
    _distance("above_ema_20_in_atr", "ema_20", "atr_14_4h", 0.3, exponent=0.5),
    _plain("price_slope", 0, 0.8, exponent=-0.5),
    _plain("ema_20_slope", 0, 0.5, exponent=-0.5),
    _plain("macd_slope", 0, 0.2, exponent=-0.5),
    _plain("rsi_7_slope", 0, 36, exponent=-1),
    _plain("rsi_14_slope", 0, 22, exponent=-1),
    # Trend of days
    _plain("ema_ratio", 1, 0.024),
    _distance("above_ema_20_4h", "ema_20_4h", "ema_20_4h", 0.03),
    _distance("above_ema_50_4h", "ema_50_4h", "ema_50_4h", 0.048),
    _distance("above_ema_20_4h_in_atr", "ema_20_4h", "atr_14_4h", 1.7),
    _distance("above_ema_50_4h_in_atr", "ema_50_4h", "atr_14_4h", 2.7),
    _ratio("macd_4h_of_price", "macd_4h", "price", 0, 0.015),
    _plain("rsi_14_4h", 50, 16),
    _plain("macd_4h_slope", 0, 0.16),
    _plain("rsi_14_4h_slope", 0, 2.4),
    # Returns in units of their own volatility
    _ratio("return_1h", "price_change_1h", "realized_volatility_1h", 0, 1.3),
    _ratio("return_4h", "price_change_4h", "realized_volatility_4h", 0, 1.3),
    _ratio("return_24h", "price_change_24h", "realized_volatility_24h", 0, 1.3),
    # Volatility and volume
    _log("volatility_24h", "realized_volatility_24h", ONE, 0.9, 0.65),
    _log("volatility_4h_ratio", "realized_volatility_4h", "realized_volatility_24h", -0.95, 0.52),
    _log("volatility_1h_ratio", "realized_volatility_1h", "realized_volatility_24h", -1.75, 0.65),
    _log("atr_14_4h_of_price", "atr_14_4h", "price", -4.2, 0.55),
    _log("atr_4h_ratio", "atr_3_4h", "atr_14_4h", 0, 0.4),
    _log("volume_ratio", "volume_ratio", ONE, -0.2, 0.85),
    _log("volume_4h_ratio", "current_volume_4h", "avg_volume_4h", -0.15, 0.85),
    # Positioning
    _plain("oi_delta_pct", 0, 3.5),
    # Per hour, so that exchanges that settle every 1, 4 or 8 hours mean the same.
    _ratio("funding_rate", "funding_rate", "funding_interval_hours", 0.00005 / 8, 0.00008 / 8),
    # Time of day: one feature in two halves
    Feature("hour_sine", "hour_of_day", ZERO, ONE, "sine", 0, 1.0, weight=0.5),
    Feature("hour_cosine", "hour_of_day", ZERO, ONE, "cosine", 0, 1.0, weight=0.5),
)
