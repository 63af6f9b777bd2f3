"""The jumps that the user has accepted, in the store's `meta`.

accepted_jumps:SYMBOL  -> the spans of their candles, in order of time
"""

from __future__ import annotations

from llm_trader.market.jumps import AcceptedSpan
from llm_trader.market.series_records import read_meta
from llm_trader.storage.environment import ReadTransaction


def accepted_jumps(txn: ReadTransaction, symbol: str) -> tuple[AcceptedSpan, ...]:
    return read_meta(txn, _key(symbol), tuple[AcceptedSpan, ...]) or ()


def _key(symbol: str) -> str:
    return f"accepted_jumps:{symbol}"
