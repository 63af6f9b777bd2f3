"""The volatility model straight from its definition, one time and one candle after the other."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from llm_trader.market.candles import CandleSeries
from llm_trader.volatility.model import VolatilityModel

STEP_MS = 300_000
PAST = (3, 12, 48, 288, 2016)
AHEAD = {"15m": 3, "1h": 12, "4h": 48, "24h": 288}


def moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def weekend_share(first_ms: int, count: int) -> float:
    return sum(moment(first_ms + k * STEP_MS).weekday() >= 5 for k in range(count)) / count


def expected_by_definition(
    model: VolatilityModel, candles: CandleSeries, as_of_ms: int, horizon: str
) -> float:
    """For 5-minute candles without gaps that begin more than a week before `as_of_ms`."""
    last = candles.open_time_ms.tolist().index(as_of_ms - STEP_MS)
    b0, *coefficients = model.coefficients[horizon]
    terms = []
    for count in PAST:
        squares = [
            math.log(candles.close[row] / candles.close[row - 1]) ** 2
            / model.hour_factors[moment(int(candles.open_time_ms[row])).hour]
            for row in range(last - count + 1, last + 1)
        ]
        terms.append(math.log(max(math.fsum(squares) / count, 1e-9)))
    ahead = AHEAD[horizon]
    terms += [weekend_share(as_of_ms, ahead), weekend_share(as_of_ms - 288 * STEP_MS, 288)]
    variance = math.exp(b0 + math.fsum(c * t for c, t in zip(coefficients, terms, strict=True)))
    hours = [moment(as_of_ms + k * STEP_MS).hour for k in range(ahead)]
    factor = sum(model.hour_factors[hour] for hour in hours) / ahead
    return 100 * math.sqrt(variance * ahead * factor)
