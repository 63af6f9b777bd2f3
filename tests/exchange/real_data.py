"""Listings from the real market data that tests may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from llm_trader.market.candles import CANDLE_FIELDS, CandleSeries
from llm_trader.market.resampling import resample
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.timeframe import H1, H4, M1, M3, M5, Timeframe
from tests.exchange.listings import Listing


def real_listings(folder: Path, symbols: Sequence[str]) -> list[Listing]:
    """Candles as the files have them, and those of 3m and 4h built from the finest."""
    listings = []
    for symbol in symbols:
        paths = sorted(folder.glob(f"*_{symbol}_*.parquet"))
        frames = {path.stem.partition(f"_{symbol}_")[2]: pl.read_parquet(path) for path in paths}
        listings.append(real_listing(frames, symbol))
    return listings


def real_listing(frames: Mapping[str, pl.DataFrame], symbol: str) -> Listing:
    """`frames` by kind and interval, such as `candles_5m`."""
    present = [item for item in (M1, M3, M5, H1, H4) if f"candles_{item}" in frames]
    candles = {timeframe: _candles(frames, timeframe) for timeframe in present}
    finest = present[0]
    for timeframe in (M3, H4):
        if timeframe not in candles and timeframe.ms % finest.ms == 0:
            candles[timeframe] = resample(candles[finest], timeframe)
    settled, samples = frames["funding_8h"], frames["open_interest_1h"]
    amount = samples["open_interest"].to_numpy()
    value = samples.get_column("open_interest_value", default=pl.Series([np.nan] * len(amount)))
    return Listing(
        symbol,
        symbol.removesuffix("USDT"),
        "USDT",
        candles,
        FundingSeries.validated(
            {
                "time_ms": settled["timestamp_ms"].to_numpy(),
                "rate": settled["funding_rate"].to_numpy(),
                "interval_hours": np.full(len(settled), 8.0),
            }
        ),
        OpenInterestSeries.validated(
            {
                "time_ms": samples["timestamp_ms"].to_numpy(),
                "open_interest": amount,
                "open_interest_value": value.cast(pl.Float64).to_numpy(),
            }
        ),
        int(candles[finest].times[0]),
    )


def _candles(frames: Mapping[str, pl.DataFrame], timeframe: Timeframe) -> CandleSeries:
    frame = frames[f"candles_{timeframe}"]
    columns = {name: frame[name].to_numpy() for name in CANDLE_FIELDS}
    return CandleSeries.validated(
        timeframe, {"open_time_ms": frame["timestamp_ms"].to_numpy(), **columns}
    )
