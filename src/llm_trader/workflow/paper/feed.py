"""Stored candles and funding as what a broker sees, in the order of time."""

from __future__ import annotations

from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.timeframe import MINUTE_MS, Millis
from llm_trader.workflow.instrument import exact
from llm_trader.workflow.paper.broker import PaperBroker


class MarketFeed:
    """Plays one symbol to a paper broker. A settlement counts at the minute of its stamp.

    Settlements come before the trade of their time: who opens a position then does not pay, who
    closes one does. The broker passes over what it has seen, so a live process may make a new feed
    of the newest stored candles whenever there are some.
    """

    def __init__(self, symbol: str, candles: CandleSeries, funding: FundingSeries) -> None:
        self._symbol = symbol
        self._timeframe_ms = candles.timeframe.ms
        # Plain numbers: a loop reads them several times faster than the elements of arrays.
        columns = (candles.open_time_ms, candles.open, candles.high, candles.low, candles.close)
        self._candles = list(zip(*(column.tolist() for column in columns), strict=True))
        due_ms = (funding.time_ms - funding.time_ms % MINUTE_MS).tolist()
        self._funding = list(zip(due_ms, funding.rate.tolist(), strict=True))
        self._next_candle = 0
        self._next_funding = 0
        self._in_candle = False
        self._last_close: float | None = None

    def advance(self, broker: PaperBroker, until_ms: Millis) -> None:
        """Plays all that came before a time, and the open of a candle that opens at that time."""
        while self._next_candle < len(self._candles):
            open_ms, open_, high, low, close = self._candles[self._next_candle]
            last_ms = open_ms + self._timeframe_ms - 1
            if not self._in_candle:
                if open_ms > until_ms:
                    break
                self._settle(broker, open_ms - 1, self._last_close)
                self._settle(broker, open_ms, open_)
                broker.on_price(self._symbol, open_ms, exact(open_))
                self._in_candle = True
            if last_ms >= until_ms:
                return
            broker.on_candle(self._symbol, last_ms, exact(high), exact(low), exact(close))
            self._in_candle, self._last_close = False, close
            self._next_candle += 1
        self._settle(broker, until_ms, self._last_close)

    def _settle(self, broker: PaperBroker, until_ms: Millis, price: float | None) -> None:
        while self._next_funding < len(self._funding):
            due_ms, rate = self._funding[self._next_funding]
            if due_ms > until_ms:
                return
            if price is not None:  # else it was before the first candle
                broker.on_funding(self._symbol, due_ms, exact(rate), exact(price))
            self._next_funding += 1
