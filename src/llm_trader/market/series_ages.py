"""How old the newest row of each series is, by one seek per series."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llm_trader.market import record_ranges
from llm_trader.storage.environment import ReadTransaction
from llm_trader.timeframe import Millis


class SeriesAge(msgspec.Struct, frozen=True):
    """The newest row of a series: a candle is known at its close, a sample at its time."""

    symbol: Annotated[str, Meta(description="The symbol.")]
    series: Annotated[str, Meta(description="Such as `candles_3m`, `funding` or `open_interest`.")]
    newest: Annotated[
        Millis, Meta(description="Close of its newest candle or time of its newest sample, ms UTC.")
    ]
    age_seconds: Annotated[
        float | None, Meta(description="How long ago that is, seconds; null without a clock.")
    ]


def series_ages(txn: ReadTransaction, now_ms: Millis | None) -> list[SeriesAge]:
    """Of all series, by symbol."""
    ages = []
    for series in record_ranges.all_series(txn):
        key = record_ranges.last_key(txn, series)
        if key is not None:
            newest_ms = series.time(key) + (series.timeframe.ms if series.timeframe else 0)
            age_seconds = None if now_ms is None else (now_ms - newest_ms) / 1000
            ages.append(SeriesAge(series.symbol, series.database, newest_ms, age_seconds))
    return sorted(ages, key=lambda age: (age.symbol, age.series))
