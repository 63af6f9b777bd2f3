"""The state of the market in a prompt. Nothing but its first lines tells the symbol or the price.

All other amounts are relative: levels are in % from the price now, MACD and ATR in % of it, volume
and open interest beside their means. So a prompt costs as many tokens for every symbol, and a
masked one says the same in other first lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from llm_trader.llm.prompt.numbers import UNKNOWN, fixed, percent, price_decimals, quoted, signed
from llm_trader.snapshot.model import SERIES_LENGTH, MarketSnapshot

# What a masked prompt says instead.
MASKED_SYMBOL: Final = "ASSET"
MASKED_PRICE: Final = 100.0

# Longer than any symbol of an exchange, shorter than a sentence.
_MOST_SYMBOL_CHARACTERS: Final = 24


class RelativeTo:
    """Writes amounts of quote currency relative to a price; `n/a` where that is unknown."""

    def __init__(self, price: float | None) -> None:
        self._price = price if price is not None and price > 0 else None

    def level(self, value: float | None) -> str:
        """Such as an EMA, in % from the price."""
        if value is None or self._price is None:
            return UNKNOWN
        return signed((value / self._price - 1) * 100, 2)

    def difference(self, value: float | None) -> str:
        """Such as a MACD, in % of the price, with a sign."""
        return signed(self._portion(value), 3)

    def size(self, value: float | None) -> str:
        """Such as an ATR, in % of the price, without a sign."""
        return fixed(self._portion(value), 2)

    def _portion(self, value: float | None) -> float | None:
        return None if value is None or self._price is None else value / self._price * 100


def market_lines(snapshot: MarketSnapshot, masked: bool) -> list[str]:
    """The lines of the section, with a heading."""
    s, now = snapshot, RelativeTo(snapshot.price)
    symbol, price = (MASKED_SYMBOL, MASKED_PRICE) if masked else (s.symbol, s.price)
    return [
        f"MARKET of the perpetual future {quoted(symbol, _MOST_SYMBOL_CHARACTERS)}, price "
        f"{fixed(price, price_decimals(price))}",
        "Prices and EMA are in % from the price now, MACD and ATR in % of it.",
        f"change 1h {_change(s.price_change_1h)}, 4h {_change(s.price_change_4h)}, "
        f"24h {_change(s.price_change_24h)}",
        f"realised volatility 1h {_volatility(s.realized_volatility_1h)}, "
        f"4h {_volatility(s.realized_volatility_4h)}, 24h {_volatility(s.realized_volatility_24h)}",
        f"volume of the last hour {fixed(s.volume_ratio, 2)} times the mean of 24h; hour of day "
        f"{fixed(s.hour_of_day, 1)} UTC",
        f"intraday candles: RSI(7) {fixed(s.rsi_7, 1)}, RSI(14) {fixed(s.rsi_14, 1)}, "
        f"MACD {now.difference(s.macd)}, EMA(20) {now.level(s.ema_20)}",
        f"4h candles: RSI(14) {fixed(s.rsi_14_4h, 1)}, MACD {now.difference(s.macd_4h)}, "
        f"EMA(20) {now.level(s.ema_20_4h)}, EMA(50) {now.level(s.ema_50_4h)}, "
        f"ATR(3) {now.size(s.atr_3_4h)}, ATR(14) {now.size(s.atr_14_4h)}, "
        f"volume {fixed(_ratio(s.current_volume_4h, s.avg_volume_4h), 2)} times its mean",
        f"open interest {_change(s.oi_delta_pct)} from its mean of 24h; funding {_funding(s)} "
        f"each {fixed(s.funding_interval_hours, 0)} hours",
        "The last 10 candles, oldest first:",
        f"price {_series(s.mid_prices, now.level)}",
        f"EMA(20) {_series(s.ema_20_values, now.level)}",
        f"MACD {_series(s.macd_values, now.difference)}",
        f"RSI(7) {_series(s.rsi_7_values, _rsi)}",
        f"RSI(14) {_series(s.rsi_14_values, _rsi)}",
        f"4h MACD {_series(s.macd_4h_values, now.difference)}",
        f"4h RSI(14) {_series(s.rsi_14_4h_values, _rsi)}",
    ]


def _series(points: Sequence[float | None] | None, written: Callable[[float | None], str]) -> str:
    """The newest ten points; fewer where a client sent fewer."""
    if not points:
        return UNKNOWN
    return " ".join(written(point) for point in points[-SERIES_LENGTH:])


def _change(value_pct: float | None) -> str:
    return percent(signed(value_pct, 2))


def _volatility(value_pct: float | None) -> str:
    return percent(fixed(value_pct, 2))


def _rsi(value: float | None) -> str:
    return fixed(value, 0)


def _ratio(value: float | None, mean: float | None) -> float | None:
    return None if value is None or mean is None or not mean > 0 else value / mean


def _funding(snapshot: MarketSnapshot) -> str:
    rate = snapshot.funding_rate
    return percent(signed(None if rate is None else 100 * rate, 4))
