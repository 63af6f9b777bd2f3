"""What the venues' interfaces answer from."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_trader.timeframe import Millis
from tests.exchange.accounts import Account
from tests.exchange.clock import SimulatedClock
from tests.exchange.listings import Listing


@dataclass
class Market:
    """`clock` is that of the exchange: a time that stands until somebody sets it, or one that runs.

    `skew_ms` is how much the exchange's own clock is ahead of `clock`. With `old_paths_retired` the
    WebSocket paths of Binance from before 2026-04-23 still connect, and stay silent. Symbols of
    `unstreamed` are traded, and their streams are unknown.
    """

    clock: Millis | SimulatedClock
    listings: dict[str, Listing] = field(default_factory=dict)
    instruments_of_a_page: int = 1000
    skew_ms: Millis = 0
    old_paths_retired: bool = False
    unstreamed: set[str] = field(default_factory=set)
    account: Account = field(default_factory=Account)

    @property
    def now_ms(self) -> Millis:
        clock = self.clock
        return self.skew_ms + (clock if isinstance(clock, int) else clock.now_ms())

    @now_ms.setter
    def now_ms(self, time_ms: Millis) -> None:
        self.clock = time_ms

    def delist(self, symbol: str, ended_ms: Millis | None = None) -> None:
        """Ends a contract, by default now."""
        self.listings[symbol].end(self.now_ms if ended_ms is None else ended_ms)
