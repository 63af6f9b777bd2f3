"""The contracts of the fake exchange and their whole history, past and future."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.timeframe import M5, Millis, Timeframe
from tests.exchange.forming import FormingCandles


@dataclass
class Listing:
    """One perpetual contract. `ended_ms` is when it was delisted."""

    symbol: str
    base: str
    quote: str
    candles: dict[Timeframe, CandleSeries]
    funding: FundingSeries
    open_interest: OpenInterestSeries
    listed_ms: Millis
    ended_ms: Millis | None = None
    # Rows that the venue sends instead, such as bad ones, by timeframe and open time.
    altered: dict[tuple[Timeframe, Millis], tuple[str, ...]] = field(default_factory=dict)
    forming: FormingCandles = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.forming = FormingCandles(self.candles)

    def has_ended(self, now_ms: Millis) -> bool:
        return self.ended_ms is not None and now_ms >= self.ended_ms

    def end(self, ended_ms: Millis) -> None:
        self.ended_ms = ended_ms
        for timeframe, series in self.candles.items():
            self.candles[timeframe] = series.between(None, ended_ms)
        self.funding = self.funding.between(None, ended_ms)
        self.open_interest = self.open_interest.between(None, ended_ms)

    def funding_hours(self, now_ms: Millis) -> float:
        """The interval that holds at a time."""
        settled = self.funding.between(None, now_ms + 1)
        return float(settled.interval_hours[-1]) if len(settled) else 8.0

    def candle_rows(
        self, timeframe: Timeframe, start_ms: Millis, end_ms: Millis, now_ms: Millis
    ) -> list[tuple[Millis, list[str]]]:
        """The candles with `start_ms <= open time <= end_ms` that had begun, as texts."""
        series = self.candles.get(timeframe)
        if series is None:
            return []
        rows = []
        part = series.between(start_ms, min(end_ms, now_ms) + 1)
        columns = [column.tolist() for _, column in part.columns()]
        for row, time_ms in enumerate(part.times.tolist()):
            values = [column[row] for column in columns]
            if time_ms + timeframe.ms > now_ms:
                values = list(self.forming.at(timeframe, time_ms, now_ms) or values)
            texts = self.altered.get((timeframe, time_ms)) or map(as_text, values)
            rows.append((time_ms, list(texts)))
        return rows

    def candle_texts(
        self, timeframe: Timeframe, open_ms: Millis, time_ms: Millis
    ) -> tuple[str, ...] | None:
        """One candle as known at `time_ms`; None where there is none."""
        values = self.forming.at(timeframe, open_ms, time_ms)
        if values is None:
            return None
        return self.altered.get((timeframe, open_ms)) or tuple(map(as_text, values))


def listing_of(
    history: MarketHistory, *, ended_ms: Millis | None = None, five_minute: bool = False
) -> Listing:
    """A simulated symbol as a contract; with open interest of every 5 minutes where asked for."""
    interest = history.open_interest
    if five_minute:
        interest = every_five_minutes(interest)
    candles = (history.intraday, history.four_hour)
    base = history.symbol.removesuffix("USDT")
    return Listing(
        history.symbol,
        base,
        "USDT",
        {series.timeframe: series.between(None, ended_ms) for series in candles},
        history.funding.between(None, ended_ms),
        interest.between(None, ended_ms),
        int(history.four_hour.times[0]),
        ended_ms,
    )


def every_five_minutes(interest: OpenInterestSeries) -> OpenInterestSeries:
    times = np.arange(interest.time_ms[0], interest.time_ms[-1] + 1, M5.ms, dtype=np.int64)
    values = {
        name: np.interp(times, interest.time_ms, column) for name, column in interest.columns()
    }
    return OpenInterestSeries.validated({"time_ms": times, **values})


def as_text(value: float) -> str:
    """As exchanges write numbers: without an exponent, and with all digits that it has."""
    text = repr(float(value)).removesuffix(".0")
    return np.format_float_positional(value, trim="-") if "e" in text else text


def quote_volume(texts: Sequence[str]) -> float:
    """What was traded in quote currency, of the texts of a candle: about its mean price each."""
    open_, high, low, close, volume = map(float, texts)
    return round(volume * (open_ + high + low + close) / 4, 4)


def by_symbol(listings: Iterable[Listing]) -> dict[str, Listing]:
    return {listing.symbol: listing for listing in listings}
