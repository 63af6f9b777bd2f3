"""Cases for tests of deciders."""

from __future__ import annotations

from llm_trader.llm.decision import Case, Outlook
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import M5, Millis

NOON_MS: Millis = 1_704_110_400_000  # 2024-01-01T12:00Z


def case(
    outlook: Outlook | None = None,
    symbol: str = "BTCUSDT",
    as_of_ms: Millis = NOON_MS,
    **fields: float | None,
) -> Case:
    """A state of some fields, with an outlook over 4h."""
    state = SnapshotTable.of_fields(symbol, M5, as_of_ms, fields)
    return Case(state, {"4h": outlook} if outlook else None)
