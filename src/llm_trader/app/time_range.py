"""The time range of a command: relative times follow the stored data."""

from __future__ import annotations

from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.store import MarketStore
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import LATEST, Millis, iso8601, parse_end, parse_start


def time_range(job: Job, symbols: list[str], start: str, end: str) -> tuple[Millis, Millis]:
    """Start and end in words; a start of n days is n days before the end."""
    if end == LATEST:
        end_ms = newest_close_ms(job.settings, symbols)
    else:
        end_ms = parse_end(end, job.now_ms)
    start_ms = parse_start(start, end_ms)
    if start_ms > end_ms:
        raise InvalidInputError(
            f"--start ({iso8601(start_ms)}) lies after --end ({iso8601(end_ms)}); "
            "give the earlier time first"
        )
    return start_ms, end_ms


def newest_close_ms(settings: Settings, symbols: list[str]) -> Millis:
    """The close of the newest stored candle of some symbols; no symbols means all of the store."""
    with MarketStore.open(settings.market.store) as store:
        named = symbols or store.symbols()
        intraday = intraday_timeframe(settings, store, named)
        ends = []
        for symbol in named:
            if symbol not in (available := store.symbols()):
                raise SymbolNotFoundError(symbol, available)
            if stored := store.first_and_last_ms(symbol, intraday):
                ends.append(stored[1] + intraday.ms)
    if not ends:
        raise InvalidInputError(
            f"the store has no {intraday} candles of {', '.join(named)}; see: llm-trader data info"
        )
    return max(ends)
