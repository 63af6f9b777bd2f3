"""What two market stores have in common, to the last byte."""

from __future__ import annotations

from typing import Any

from llm_trader.market import record_ranges
from llm_trader.market.store import MarketStore


def content(store: MarketStore) -> dict[str, Any]:
    """All rows as they are stored, and what the store says of them."""
    found: dict[str, Any] = {}
    for series in store.series():
        with store._read() as txn:
            found[str(series)] = tuple(record_ranges.items(txn, series, None, None))
        # Their extent and sampling, and every source with its rows and time.
        found[f"origin {series}"] = store.series_origin(series)
        found[f"ledgers {series}"] = store.series_ledgers(series)
        if series.timeframe is not None:
            found[f"built {series}"] = store.built_candles(series.symbol, series.timeframe)
            found[f"gaps {series}"] = store.gaps(series.symbol, series.timeframe)
    for symbol in store.symbols():
        found[f"accepted {symbol}"] = store.accepted_jumps(symbol)
    return found
