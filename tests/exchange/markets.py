"""What the venues' interfaces answer from."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_trader.timeframe import Millis
from tests.exchange.listings import Listing


@dataclass
class Market:
    """`now_ms` is the clock of the exchange, which stands until somebody sets it."""

    now_ms: Millis
    listings: dict[str, Listing] = field(default_factory=dict)
    instruments_of_a_page: int = 1000
