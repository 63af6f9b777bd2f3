"""What followed served forecasts, from the market store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import structlog

from llm_trader.arrays import Floats
from llm_trader.errors import LlmTraderError
from llm_trader.forecasts.scoring import Due, ForecastScores
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.outcome import label_outcomes
from llm_trader.timeframe import HORIZONS, Millis, Timeframe

_log = structlog.get_logger(__name__)


def newest_candles(store: MarketStore, intraday: Timeframe, now_ms: Millis) -> dict[str, Millis]:
    """When the newest candle of each symbol closed; {} where the store cannot be read."""
    series = f"candles_{intraday}"
    try:
        ages = store.series_ages(now_ms)
    except LlmTraderError as error:
        _log.warning("forecasts_without_store", error=error.message)
        return {}
    # No outcome is taken from a candle that closes after the clock.
    return {age.symbol: min(age.newest, now_ms) for age in ages if age.series == series}


def score(
    store: MarketStore,
    intraday: Timeframe,
    scores: ForecastScores,
    due: Due,
    newest_ms: Mapping[str, Millis],
) -> None:
    try:
        scores.resolve(due, _outcomes(store, intraday, due), newest_ms[due.symbol])
    except LlmTraderError as error:
        _log.warning("forecasts_not_scored", symbol=due.symbol, error=error.message)


def _outcomes(store: MarketStore, intraday: Timeframe, due: Due) -> Floats:
    """The % changes after the due forecasts, (horizons, times)."""
    start_ms = intraday.floor(min(due.times_ms)) - intraday.ms
    candles = store.candles(due.symbol, intraday, start_ms, due.until_ms)
    times = np.array([intraday.floor(stamp) for stamp in due.times_ms], np.int64)
    return label_outcomes(candles, times)[: len(HORIZONS)]
