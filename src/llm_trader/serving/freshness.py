"""How new the data of a server are, by symbol."""

from __future__ import annotations

from llm_trader.index.protocol import SymbolPoints
from llm_trader.serving import wire
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis


def freshness_of(
    indexed: list[SymbolPoints],
    market: SnapshotSource | None,
    max_age_ms: Millis,
    now_ms: Millis | None,
) -> list[wire.Freshness]:
    """How far index and store reach, by symbol; ages only where the present time is known."""
    index_ends: dict[str, Millis | None] = {p.symbol: p.last_timestamp_ms for p in indexed}
    stored = market.store.symbols() if market else []
    ages = market.store.series_ages(now_ms) if market else []
    freshness = []
    for symbol in sorted({*index_ends, *stored}):
        state_as_of_ms = store_end_ms = None
        if market is not None and symbol in stored:
            store_end_ms = market.end_ms(symbol)
        if market is not None and store_end_ms is not None:
            view = market.view(symbol)
            state_as_of_ms = view.newest_usable_ms(store_end_ms, max_age_ms)
        age_seconds = behind_seconds = None
        if state_as_of_ms is not None and now_ms is not None:
            age_seconds = (now_ms - state_as_of_ms) / 1000
        index_end_ms = index_ends.get(symbol)
        if index_end_ms is not None and store_end_ms is not None:
            behind_seconds = max(store_end_ms - LONGEST_HORIZON_MS - index_end_ms, 0) / 1000
        ends = index_end_ms, store_end_ms, state_as_of_ms, age_seconds, behind_seconds
        own_ages = [age for age in ages if age.symbol == symbol]
        freshness.append(wire.Freshness(symbol, *ends, own_ages))
    return freshness
