"""The fields of a snapshot: their names, units, and the data they need."""

from __future__ import annotations

from typing import Annotated, Any, Final, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from llm_trader.timeframe import HORIZONS, Millis

SERIES_LENGTH: Final = 10

_INTRADAY = "fewer than 300 intraday candles before it without a long hole or jump"
_HOUR_AGO = "the candle 1h before it is missing"
_FOUR_HOURS_AGO = "the candle 4h before it is missing"
_DAY = "the candle 24h before it is missing, or a long hole or jump lies between"
_WEEK = "less than 7 days of intraday candles before it without a long hole or jump"
_FOUR_HOUR = "fewer than 120 4h candles before it without a long hole or jump"


def _needs(refusal: str, unit: str) -> Meta:
    """The unit of a field, and the reason to give if it is missing."""
    return Meta(description=unit, extra={"refusal": refusal})


class MarketSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a symbol's market as it was known at `timestamp`; `None` marks unknown fields.

    Series hold the last 10 points, oldest first, `None` for a missing candle. RSI and ATR are
    Wilder's, MACD is the line EMA12 - EMA26. Slopes are least-squares fits over the points that
    are there, at least 7. Expected volatilities are those of a volatility model for the time after
    `timestamp`.
    """

    symbol: str
    timestamp: Millis
    price: Annotated[float | None, _needs("no candle closed at its time", "last close, quote")]
    rsi_7: Annotated[float | None, _needs(_INTRADAY, "0 to 100")] = None
    rsi_14: Annotated[float | None, _needs(_INTRADAY, "0 to 100")] = None
    macd: Annotated[float | None, _needs(_INTRADAY, "quote")] = None
    ema_20: Annotated[float | None, _needs(_INTRADAY, "quote")] = None
    price_change_1h: Annotated[float | None, _needs(_HOUR_AGO, "% over 1h")] = None
    price_change_4h: Annotated[float | None, _needs(_FOUR_HOURS_AGO, "% over 4h")] = None
    price_change_24h: Annotated[float | None, _needs(_DAY, "% over 24h")] = None
    realized_volatility_1h: Annotated[
        float | None, _needs(_HOUR_AGO, "% over 1h: root of summed squared log returns")
    ] = None
    realized_volatility_4h: Annotated[float | None, _needs(_FOUR_HOURS_AGO, "% over 4h")] = None
    realized_volatility_24h: Annotated[float | None, _needs(_DAY, "% over 24h")] = None
    volume_ratio: Annotated[
        float | None, _needs("no volume in the last 24h", "last hour over the mean hour of 24h")
    ] = None
    hour_of_day: Annotated[float | None, _needs("", "UTC, 0 to 24, with fraction")] = None
    ema_20_4h: Annotated[float | None, _needs(_FOUR_HOUR, "quote")] = None
    ema_50_4h: Annotated[float | None, _needs(_FOUR_HOUR, "quote")] = None
    atr_3_4h: Annotated[float | None, _needs(_FOUR_HOUR, "quote")] = None
    atr_14_4h: Annotated[float | None, _needs(_FOUR_HOUR, "quote")] = None
    macd_4h: Annotated[float | None, _needs(_FOUR_HOUR, "quote")] = None
    rsi_14_4h: Annotated[float | None, _needs(_FOUR_HOUR, "0 to 100")] = None
    current_volume_4h: Annotated[
        float | None, _needs(_FOUR_HOUR, "base units, last closed 4h candle")
    ] = None
    avg_volume_4h: Annotated[
        float | None, _needs(_FOUR_HOUR, "base units, mean of the last 20 closed 4h candles")
    ] = None
    open_interest_latest: Annotated[
        float | None, _needs("no fresh open interest", "base units, last published")
    ] = None
    open_interest_avg_24h: Annotated[
        float | None,
        _needs("too few samples of open interest in the last 24h", "base units, 24h mean"),
    ] = None
    funding_rate: Annotated[
        float | None, _needs("no fresh funding rate", "fraction per settlement, last settled")
    ] = None
    funding_interval_hours: Annotated[
        float | None,
        _needs("no fresh funding rate", "hours that the funding rate is for; 8 where nobody says"),
    ] = None
    missing_candles: Annotated[
        float | None,
        _needs("no candle closed at its time", "intraday candles missing in the 7 days before it"),
    ] = None
    missing_candles_4h: Annotated[
        float | None, _needs(_FOUR_HOUR, "4h candles missing among the 120 before it")
    ] = None
    ema_ratio: Annotated[float | None, _needs(_FOUR_HOUR, "ema_20_4h / ema_50_4h")] = None
    oi_delta_pct: Annotated[
        float | None, _needs("no open interest in the last 24h", "% of latest over the 24h mean")
    ] = None
    price_slope: Annotated[float | None, _needs(_INTRADAY, "% of price per hour")] = None
    ema_20_slope: Annotated[float | None, _needs(_INTRADAY, "% of price per hour")] = None
    macd_slope: Annotated[float | None, _needs(_INTRADAY, "% of price per hour")] = None
    rsi_7_slope: Annotated[float | None, _needs(_INTRADAY, "points per hour")] = None
    rsi_14_slope: Annotated[float | None, _needs(_INTRADAY, "points per hour")] = None
    macd_4h_slope: Annotated[float | None, _needs(_FOUR_HOUR, "% of price per 4h")] = None
    rsi_14_4h_slope: Annotated[float | None, _needs(_FOUR_HOUR, "points per 4h")] = None
    expected_volatility_15m: Annotated[float | None, _needs(_WEEK, "% over the coming 15m")] = None
    expected_volatility_1h: Annotated[float | None, _needs(_WEEK, "% over the coming 1h")] = None
    expected_volatility_4h: Annotated[float | None, _needs(_WEEK, "% over the coming 4h")] = None
    expected_volatility_24h: Annotated[float | None, _needs(_WEEK, "% over the coming 24h")] = None
    mid_prices: list[float | None] | None = None
    ema_20_values: list[float | None] | None = None
    macd_values: list[float | None] | None = None
    rsi_7_values: list[float | None] | None = None
    rsi_14_values: list[float | None] | None = None
    macd_4h_values: list[float | None] | None = None
    rsi_14_4h_values: list[float | None] | None = None


_TYPES: Final[dict[str, Any]] = get_type_hints(MarketSnapshot, include_extras=True)
# Scalar fields in order, each with the reason to give when it is missing, and the series fields.
REFUSALS: Final[dict[str, str]] = {
    name: kind.__metadata__[0].extra["refusal"]
    for name, kind in _TYPES.items()
    if get_origin(kind) is Annotated
}
SCALARS: Final = tuple(REFUSALS)
# The interval of a funding rate that comes without one.
USUAL_FUNDING_HOURS: Final = 8.0
# The last rows of the scalar fields, by horizon. A state is complete without them, so that one
# missing candle does not silence a server for a week; it has no forecast then, and is not stored.
EXPECTED_VOLATILITY: Final = {name: f"expected_volatility_{name}" for name in HORIZONS}
SERIES: Final = tuple(name for name in list(_TYPES)[2:] if name not in REFUSALS)

# What a state may lack: a market without open interest or funding has states like any other, stored
# and compared over what is known. The last field of each says whether a state has it.
OPTIONAL: Final = {
    "open_interest": ("open_interest_latest", "open_interest_avg_24h", "oi_delta_pct"),
    "funding": ("funding_interval_hours", "funding_rate"),
}
OPTIONAL_FIELDS: Final = frozenset(name for fields in OPTIONAL.values() for name in fields)
# The fields without which a state is not stored.
REQUIRED: Final = tuple(name for name in SCALARS if name not in OPTIONAL_FIELDS)
# Which of `OPTIONAL` a state lacks is a number, a bit for each; this is how many numbers there are.
LACKING_KINDS: Final = 2 ** len(OPTIONAL)


def words_of_lacking(kind: int) -> str:
    """What a state of that kind lacks, in words; empty for one that lacks nothing."""
    names = [name for bit, name in enumerate(OPTIONAL) if kind >> bit & 1]
    return " and ".join(name.replace("_", " ") for name in names)
