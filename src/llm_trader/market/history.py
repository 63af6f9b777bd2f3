"""Everything one symbol's snapshots are made from."""

from __future__ import annotations

from dataclasses import dataclass

from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.timeframe import Millis


@dataclass(frozen=True, slots=True, eq=False)
class MarketHistory:
    """The four series of one symbol. Any of them may be empty, and may have gaps.

    `open_interest_interval_ms` is the distance at which open interest is sampled (1h on Bybit,
    5m from Binance's archives); it tells a fresh sample from one after which some are missing.
    """

    symbol: str
    intraday: CandleSeries
    four_hour: CandleSeries
    funding: FundingSeries
    open_interest: OpenInterestSeries
    open_interest_interval_ms: Millis

    def known_at(self, as_of_ms: Millis) -> MarketHistory:
        """What was known at `as_of_ms`: closed candles, settled funding, published interest."""
        return MarketHistory(
            self.symbol,
            self.intraday.known_at(as_of_ms),
            self.four_hour.known_at(as_of_ms),
            self.funding.between(None, as_of_ms + 1),
            self.open_interest.between(None, as_of_ms + 1),
            self.open_interest_interval_ms,
        )
