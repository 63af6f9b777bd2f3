"""Prices for the paper broker: those of snapshots, and the candles of the local store.

With a store, stops and targets are met inside of candles, and orders fill at the first price after
them. Without one, the price of each snapshot is all that the broker sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from llm_trader.clock import Clock
from llm_trader.errors import LlmTraderError
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H4, M1, M3, M5, Timeframe
from llm_trader.workflow.instrument import exact
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.feed import MarketFeed
from llm_trader.workflow.values import Received

# A look costs microseconds where nothing was written.
_LOOK_EVERY_S: Final = 1.0
_LOOK_BACK_MS: Final = DAY_MS

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class PaperPrices:
    """`store` is None where this machine has none."""

    broker: PaperBroker
    store: MarketStore | None
    clock: Clock

    def seen(self, received: Received) -> None:
        """The price of a snapshot, after all candles before it."""
        price = received.snapshot.price
        self._play(received.symbol)
        if price is not None:
            self.broker.on_price(received.symbol, received.received_at_ms, exact(price))

    async def follow(self) -> None:
        """Plays new candles of all symbols with a position or an order, until it is cancelled."""
        versions: dict[str, object] = {}
        while True:
            for symbol in await self._busy_symbols():
                if self.store is None:
                    break
                try:
                    version = self.store.symbol_version(symbol)
                    if versions.get(symbol) != version:
                        self._play(symbol)
                        versions[symbol] = version
                except LlmTraderError as error:
                    _log.warning("paper_prices_unknown", symbol=symbol, reason=error.message)
            await self.clock.sleep(_LOOK_EVERY_S)

    async def _busy_symbols(self) -> list[str]:
        positions = await self.broker.positions()
        waiting = self.broker.waiting_symbols()
        return sorted({position.symbol for position in positions} | set(waiting))

    def _play(self, symbol: str) -> None:
        if self.store is None:
            return
        now_ms = self.clock.now_ms()
        for timeframe in self._timeframes(symbol):
            mark = self.broker.last_price_ms(symbol)
            start_ms = now_ms - _LOOK_BACK_MS if mark is None else mark - H4.ms
            history = self.store.stored_history(symbol, timeframe, start_ms, now_ms).decode()
            MarketFeed(symbol, history.intraday, history.funding).advance(self.broker, now_ms)
            return

    def _timeframes(self, symbol: str) -> Iterator[Timeframe]:
        """The finest that the store has."""
        if self.store is None:
            return
        stored = set(self.store.timeframes(symbol))
        yield from (timeframe for timeframe in (M1, M3, M5) if timeframe in stored)
