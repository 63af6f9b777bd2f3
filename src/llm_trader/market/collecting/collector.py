"""Collects some symbols of a venue into a store.

1. `catch_up`: fetch what the store lacks (`fetching.py`).
2. `run`: stream candles, store those that close, ask for those that streams missed, and poll
   funding and open interest, until it is cancelled.

Every write is a transaction and says all that it is about, so a kill loses nothing but the candles
in progress, and the next start fetches those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from llm_trader.errors import LlmTraderError
from llm_trader.market.absent_spans import Span
from llm_trader.market.collecting.candles import CHECK_EVERY_MS, LiveCandles
from llm_trader.market.collecting.samples import LiveSamples
from llm_trader.market.collecting.streams import LiveStreams
from llm_trader.market.collecting.surroundings import CollectCounts, LiveMarket
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.fetching import SeriesFetch, Surroundings, fetch_symbol, refetch
from llm_trader.market.stored_series import candles_of
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import MINUTE_MS, SECOND_MS, Millis, Timeframe, iso8601

# What closes within this time is stored together; half of it is the mean wait of a closed candle.
_TICK_S: Final = 0.25
_CLOCK_EVERY_S: Final = 600.0
# Contracts are listed and delisted on the hour at most; a request brings all of them.
_INSTRUMENTS_EVERY_S: Final = 3600.0
_INSTRUMENTS_AT_MOST_EVERY_MS: Final = 5 * MINUTE_MS
# A round trip that takes longer tells too little about the clock of the other end.
_LONGEST_ROUND_TRIP_MS: Final = 5 * SECOND_MS
_LARGE_OFFSET_MS: Final = 2 * SECOND_MS

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class MarketCollector:
    market: LiveMarket
    instruments: list[Instrument]
    timeframes: Sequence[Timeframe]
    candles: LiveCandles = field(init=False)
    samples: LiveSamples = field(init=False)
    streams: LiveStreams = field(init=False)
    _clock_due: asyncio.Event = field(default_factory=asyncio.Event)
    _listed_ms: Millis = 0

    def __post_init__(self) -> None:
        self.candles = LiveCandles(self.market)
        self.samples = LiveSamples(self.market)
        self.streams = LiveStreams(self.market, self.candles, self.timeframes, self._clock_due.set)

    @property
    def symbols(self) -> list[str]:
        return [instrument.symbol for instrument in self.instruments]

    def counts(self) -> CollectCounts:
        """What has happened so far, as a copy."""
        counts = self.market.counts
        return msgspec.structs.replace(counts, rejected=counts.rejected + self.candles.rejected())

    async def measure_clock(self) -> None:
        """Set the clock to the time of the exchange. Raises `ExchangeError`."""
        clock = self.market.clock
        asked_ms = clock.clock.now_ms()
        venue_ms = await self.market.venue.now_ms()
        answered_ms = clock.clock.now_ms()
        if answered_ms - asked_ms > _LONGEST_ROUND_TRIP_MS and clock.is_set:
            return
        offset_ms = venue_ms - (asked_ms + answered_ms) // 2
        is_news = abs(offset_ms - clock.offset_ms) > _LARGE_OFFSET_MS or not clock.is_set
        clock.offset_ms, clock.is_set = offset_ms, True
        clock.error_ms = (answered_ms - asked_ms + 1) // 2
        if is_news and abs(offset_ms) > _LARGE_OFFSET_MS + (answered_ms - asked_ms):
            _log.warning(
                "clock_differs", ahead_s=-offset_ms / SECOND_MS, exchange=self.market.venue.name,
                remedy="candles close by the clock of the exchange; set that of this machine",
            )  # fmt: skip

    async def catch_up(self, start_ms: Millis, progress: Progress = no_progress) -> None:
        """Fetch what the store lacks: since `start_ms`, or the first candle of the symbol."""
        done = 0
        progress("catching up", 0, len(self.instruments))

        async def one(instrument: Instrument) -> None:
            nonlocal done
            async with self.market.requests:
                await self._fetch_symbol(instrument, start_ms)
            # Or the history of all symbols would count as memory of this process.
            self.market.store.release_memory()
            done += 1
            progress("catching up", done, len(self.instruments))

        async with asyncio.TaskGroup() as tasks:
            for instrument in self.instruments:
                tasks.create_task(one(instrument))

    async def run(self) -> None:
        """Collect until it is cancelled, or no symbol is traded any more."""
        self._listed_ms = self.market.clock.now_ms()
        async with asyncio.TaskGroup() as tasks:
            endless = self.streams.begin(tasks, self.instruments)
            connections = len(endless)
            endless.append(tasks.create_task(self._keep_time()))
            endless.append(tasks.create_task(self._keep_instruments()))
            _log.info(
                "collecting", exchange=self.market.venue.name, symbols=self.symbols,
                timeframes=list(map(str, self.timeframes)), connections=connections,
            )  # fmt: skip
            while self.instruments:
                self.candles.tick(tasks)
                self.samples.tick(tasks)
                await self.market.clock.sleep(_TICK_S)
            for task in endless:
                task.cancel()

    async def _fetch_symbol(self, instrument: Instrument, start_ms: Millis) -> None:
        store, symbol, finest = self.market.store, instrument.symbol, min(self.timeframes)
        surroundings = self.market.surroundings()
        if stored := store.first_and_last_ms(symbol, finest):
            start_ms = max(start_ms, stored[0])
        asked = Span(start_ms, surroundings.now_ms)
        ends = {t: store.first_and_last_ms(symbol, t) for t in self.timeframes}
        failed = set()
        reports = await fetch_symbol(surroundings, instrument, asked, self.timeframes)
        reports += await self._check_end(surroundings, instrument, ends)
        for report in reports:
            self.market.counts.backfilled += report.write.added
            self.market.counts.corrected += report.write.replaced
            name = report.timeframe or report.kind
            if report.error is not None:
                self.market.counts.failed += 1
                failed.add(report.timeframe)
                _log.warning("not_fetched", symbol=symbol, series=name, reason=report.error)
        for timeframe in self.timeframes:
            stored = store.first_and_last_ms(symbol, timeframe)
            next_ms = stored[1] + timeframe.ms if stored else -timeframe.floor(-start_ms)
            is_whole = stored is None or str(timeframe) not in failed
            hole = None if is_whole else Span(start_ms, next_ms)
            self.candles.add(instrument, timeframe, next_ms, hole)
        self.samples.add(instrument)

    async def _check_end(
        self,
        surroundings: Surroundings,
        instrument: Instrument,
        ends: Mapping[Timeframe, tuple[Millis, Millis] | None],
    ) -> list[SeriesFetch]:
        """Compare the last candles of the run before, which may not have been checked."""
        reports = []
        for timeframe, stored in ends.items():
            if stored is not None:
                end_ms = stored[1] + timeframe.ms
                span = Span(max(end_ms - 3 * CHECK_EVERY_MS - timeframe.ms, stored[0]), end_ms)
                candles = candles_of(instrument.symbol, timeframe)
                reports.append(await refetch(surroundings, instrument, candles, [span]))
        return reports

    async def _keep_time(self) -> None:
        """Measure the clock now and then, and after a connection was lost."""
        while True:
            waiting = asyncio.ensure_future(self.market.clock.sleep(_CLOCK_EVERY_S))
            lost = asyncio.ensure_future(self._clock_due.wait())
            try:
                await asyncio.wait((waiting, lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                lost.cancel()
            self._clock_due.clear()
            try:
                await self.measure_clock()
            except LlmTraderError as error:
                _log.warning("clock_not_measured", reason=error.message)
            await self.market.clock.sleep(1.0)

    async def _keep_instruments(self) -> None:
        """Notice contracts that are delisted, and funding intervals that change."""
        while True:
            await self.market.clock.sleep(10.0)
            age_ms = self.market.clock.now_ms() - self._listed_ms
            is_urgent = any(self.candles.unreachable())
            if age_ms < (
                _INSTRUMENTS_AT_MOST_EVERY_MS if is_urgent else _INSTRUMENTS_EVERY_S * SECOND_MS
            ):
                continue
            self._listed_ms = self.market.clock.now_ms()
            try:
                listed = {i.symbol: i for i in await self.market.venue.instruments()}
            except LlmTraderError as error:
                _log.warning("instruments_not_fetched", reason=error.message)
                continue
            self._take_over(listed)

    def _take_over(self, listed: dict[str, Instrument]) -> None:
        now_ms = self.market.clock.now_ms()
        kept = []
        for instrument in self.instruments:
            present = listed.get(instrument.symbol)
            ended_ms = present.ended_ms if present else now_ms
            if present is None or (ended_ms is not None and ended_ms <= now_ms):
                self.candles.remove(instrument.symbol)
                self.samples.remove(instrument.symbol)
                _log.warning("delisted", symbol=instrument.symbol, noticed=iso8601(now_ms))
                continue
            kept.append(present)
            self.samples.symbols[present.symbol].instrument = present
            for timeframe in self.timeframes:
                self.candles.series[present.symbol, timeframe].instrument = present
        self.instruments = kept
