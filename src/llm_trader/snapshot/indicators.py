"""RSI, EMA, MACD and ATR over candles, restarted after every long hole.

A NaN would spoil the recursive indicators of TA-Lib from there on, so each run of candles is
computed separately. A run goes on across a short hole: the next candle there is the next one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.market.candle_runs import CandleRuns


def _import_talib() -> Any:
    """TA-Lib, without pandas and Polars, which it imports where it can to accept their series.

    Together they take 0.7 s, which each command would wait for.
    """
    absent = [name for name in ("pandas", "polars") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: cannot be imported
    try:
        return importlib.import_module("talib")
    finally:
        for name in absent:
            del sys.modules[name]


talib = _import_talib()


class IndicatorRuns(CandleRuns):
    """Runs of candles and the indicators over them."""

    def by_run(self, indicator: Callable[..., Floats], *inputs: Floats) -> Floats:
        """An indicator, shape (n,), computed run by run; NaN at the start of each run."""
        if len(self.bounds) == 1:
            return indicator(*inputs)
        values = np.full(len(self.candles), np.nan)
        for start, end in self.bounds:
            values[start:end] = indicator(*(x[start:end] for x in inputs))
        return values

    def rsi(self, period: int) -> Floats:
        """Wilder's RSI of the closes, 0 to 100; 50 where the price has not moved."""
        close = self.candles.close
        values = self.by_run(lambda x: talib.RSI(x, timeperiod=period), close)
        for row in np.flatnonzero(values == 0.0):  # TA-Lib's answer for a flat series, too
            if row >= period and (close[row - period : row + 1] == close[row]).all():
                values[row] = 50.0
        return values

    def ema(self, period: int) -> Floats:
        """Exponential mean of the closes; it starts at the simple mean of the first `period`."""
        return self.by_run(lambda x: talib.EMA(x, timeperiod=period), self.candles.close)

    def macd(self) -> Floats:
        """The MACD line, EMA12 - EMA26 of the closes."""
        return self.ema(12) - self.ema(26)

    def atr(self, period: int) -> Floats:
        """Wilder's average true range, in quote currency."""
        inputs = self.candles.high, self.candles.low, self.candles.close
        return self.by_run(lambda h, low, c: talib.ATR(h, low, c, timeperiod=period), *inputs)
