"""Coarser candles from finer ones."""

from __future__ import annotations

import numpy as np

from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import Timeframe


def resample(series: CandleSeries, to: Timeframe) -> CandleSeries:
    """A coarser candle is built only where every candle inside it is present.

    Raises `InvalidInputError` unless `to` is a multiple of the series' timeframe.
    """
    factor, rest = divmod(to.ms, series.timeframe.ms)
    if rest or factor < 1:
        raise InvalidInputError(f"cannot build {to} candles from {series.timeframe}")
    bucket = series.open_time_ms // to.ms
    first = np.flatnonzero(np.diff(bucket, prepend=-1) != 0)
    complete = first[np.diff(np.append(first, len(series))) == factor]
    rows = complete[:, None] + np.arange(factor)
    return CandleSeries(
        to,
        bucket[complete] * to.ms,
        series.open[complete],
        series.high[rows].max(axis=1, initial=-np.inf),
        series.low[rows].min(axis=1, initial=np.inf),
        series.close[complete + factor - 1],
        series.volume[rows].sum(axis=1),
    )
