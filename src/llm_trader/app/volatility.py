"""Fits volatility models to a market store."""

from __future__ import annotations

from pathlib import Path

from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import Millis
from llm_trader.volatility.fit import fit_model
from llm_trader.volatility.model import LONGEST_WINDOW_MS, VolatilityModel, write_model


def fit_from_store(
    job: Job, symbols: list[str], start_ms: Millis, end_ms: Millis, out: Path
) -> VolatilityModel:
    """Fit one model to all the symbols, and write it; no symbols means all of the store."""
    settings = job.settings
    with MarketStore.open(settings.market.store) as store:
        named = symbols or store.symbols()
        intraday = intraday_timeframe(settings, store, named)
        candles = []
        for done, symbol in enumerate(named):
            job.progress("reading", done, len(named))
            stored = store.stored_history(symbol, intraday, start_ms - LONGEST_WINDOW_MS, end_ms)
            candles.append(stored.decode().intraday)
        job.progress("reading", len(named), len(named))
    model = fit_model(candles, start_ms, end_ms, settings.snapshot.interval_ms)
    write_model(model, out)
    return model
