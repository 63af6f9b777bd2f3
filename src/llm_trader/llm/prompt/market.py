"""The state of the market in a prompt: no date, no price of another time, no absolute volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from llm_trader.llm.prompt.numbers import UNKNOWN, fixed, price_decimals, quoted, signed
from llm_trader.snapshot.model import SERIES_LENGTH, MarketSnapshot

# What a masked prompt says instead.
MASKED_SYMBOL: Final = "ASSET"
MASKED_PRICE: Final = 100.0

# Longer than any symbol of an exchange, shorter than a sentence.
_MOST_SYMBOL_CHARACTERS: Final = 24


@dataclass(frozen=True, slots=True)
class PriceScale:
    """How a prompt writes amounts of quote currency: with `decimals`, times factor / divisor."""

    decimals: int
    factor: float = 1.0
    divisor: float = 1.0

    @classmethod
    def of(cls, price: float | None, masked: bool) -> PriceScale:
        """The scale of a price; a masked price is shown as `MASKED_PRICE`.

        Nothing can be shown of a masked price that is unknown: the others would reveal it.
        """
        if not masked:
            return cls(price_decimals(price))
        known = price is not None and price > 0
        decimals = price_decimals(MASKED_PRICE)
        return cls(decimals, MASKED_PRICE if known else float("nan"), price if known else 1.0)

    def price(self, value: float | None) -> str:
        return fixed(self._scaled(value), self.decimals)

    def difference(self, value: float | None) -> str:
        """Such as a MACD, which is small beside the price: with a sign and one decimal more."""
        return signed(self._scaled(value), self.decimals + 1)

    def _scaled(self, value: float | None) -> float | None:
        return None if value is None else value * self.factor / self.divisor


def market_lines(snapshot: MarketSnapshot, scale: PriceScale, masked: bool) -> list[str]:
    """The lines of the section, with a heading."""
    s = snapshot
    name = MASKED_SYMBOL if masked else s.symbol
    return [
        f"MARKET of the perpetual future {quoted(name, _MOST_SYMBOL_CHARACTERS)}",
        f"price {scale.price(s.price)}; change 1h {signed(s.price_change_1h, 2)} %, "
        f"4h {signed(s.price_change_4h, 2)} %, 24h {signed(s.price_change_24h, 2)} %",
        f"realised volatility 1h {fixed(s.realized_volatility_1h, 2)} %, "
        f"4h {fixed(s.realized_volatility_4h, 2)} %, 24h {fixed(s.realized_volatility_24h, 2)} %",
        f"last hour's volume {fixed(s.volume_ratio, 2)} times the hourly mean of 24h; "
        f"hour of day {fixed(s.hour_of_day, 1)} UTC",
        f"intraday candles: RSI(7) {fixed(s.rsi_7, 1)}, RSI(14) {fixed(s.rsi_14, 1)}, "
        f"MACD {scale.difference(s.macd)}, EMA(20) {scale.price(s.ema_20)}",
        f"4h candles: RSI(14) {fixed(s.rsi_14_4h, 1)}, MACD {scale.difference(s.macd_4h)}, "
        f"EMA(20) {scale.price(s.ema_20_4h)}, EMA(50) {scale.price(s.ema_50_4h)}, "
        f"ATR(3) {scale.price(s.atr_3_4h)}, ATR(14) {scale.price(s.atr_14_4h)}, "
        f"volume {fixed(_ratio(s.current_volume_4h, s.avg_volume_4h), 2)} times its mean",
        f"open interest {signed(s.oi_delta_pct, 2)} % from its 24h mean; "
        f"funding {signed(_pct(s.funding_rate), 4)} % per {fixed(s.funding_interval_hours, 0)}h",
        "Last 10 candles, oldest first:",
        f"price {_series(s.mid_prices, scale.price)}",
        f"EMA(20) {_series(s.ema_20_values, scale.price)}",
        f"MACD {_series(s.macd_values, scale.difference)}",
        f"RSI(7) {_series(s.rsi_7_values, _rsi)}",
        f"RSI(14) {_series(s.rsi_14_values, _rsi)}",
        f"4h MACD {_series(s.macd_4h_values, scale.difference)}",
        f"4h RSI(14) {_series(s.rsi_14_4h_values, _rsi)}",
    ]


def _series(points: Sequence[float | None] | None, written: Callable[[float | None], str]) -> str:
    """The newest ten points; fewer where a client sent fewer."""
    if not points:
        return UNKNOWN
    return " ".join(written(point) for point in points[-SERIES_LENGTH:])


def _rsi(value: float | None) -> str:
    return fixed(value, 0)


def _ratio(value: float | None, mean: float | None) -> float | None:
    return None if value is None or mean is None or not mean > 0 else value / mean


def _pct(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
