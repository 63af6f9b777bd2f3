"""Keeps the connections of candle streams: a lost one is made anew, after a wait that grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from llm_trader.market.collecting.candles import LiveCandles
from llm_trader.market.collecting.surroundings import LiveMarket
from llm_trader.market.exchange.backoff import wait_s
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.exchange.stream import (
    CandleStream,
    StreamLostError,
)
from llm_trader.timeframe import Timeframe

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class LiveStreams:
    """`instruments` are the symbols that are collected at the moment."""

    market: LiveMarket
    candles: LiveCandles
    timeframes: Sequence[Timeframe]
    after_loss: Callable[[], None]
    connected: dict[int, CandleStream] = field(default_factory=dict)

    def begin(
        self, tasks: asyncio.TaskGroup, instruments: Sequence[Instrument]
    ) -> list[asyncio.Task[None]]:
        """Begin to keep as many connections as it takes, each with a task."""
        size = max(self.market.config.streams_per_connection // len(self.timeframes), 1)
        groups = [instruments[i : i + size] for i in range(0, len(instruments), size)]
        return [
            tasks.create_task(self._keep(number, [i.symbol for i in group]))
            for number, group in enumerate(groups)
        ]

    def fail(self, reason: str) -> None:
        for stream in self.connected.values():
            stream.fail(reason)

    async def _keep(self, number: int, symbols: Sequence[str]) -> None:
        attempt = 0
        while instruments := self._collected(symbols):
            stream = CandleStream(
                self.market.venue.name,
                self.market.config,
                self.market.clock,
                instruments,
                self.timeframes,
                self.candles.update,
            )
            self.connected[number] = stream
            reason = ""
            try:
                await stream.run()
            except StreamLostError as lost:
                reason = str(lost)
            finally:
                del self.connected[number]
                self.candles.disconnected(symbols)
            attempt = 0 if stream.heard_ms is not None else attempt + 1
            seconds = wait_s(attempt, None, self.market.rng)
            self.market.counts.reconnects += 1
            _log.warning(
                "stream_lost", reason=reason, symbols=len(instruments), next_try_in_s=round(seconds)
            )
            self.after_loss()
            await self.market.clock.sleep(seconds)

    def _collected(self, symbols: Sequence[str]) -> list[Instrument]:
        series = self.candles.series
        first = self.timeframes[0]
        return [series[s, first].instrument for s in symbols if (s, first) in series]
