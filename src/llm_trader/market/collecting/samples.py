"""Polls funding and open interest: each at its own times, by the code of `data fetch`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from llm_trader.market.absent_spans import Span
from llm_trader.market.collecting.surroundings import LiveMarket, Pace
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.fetching import SeriesFetch, refetch
from llm_trader.market.stored_series import StoredSeries, funding_of, open_interest_of
from llm_trader.timeframe import DAY_MS, H1, HOUR_MS, MINUTE_MS, SECOND_MS, Millis

# Venues publish a sample some seconds after its time; who asks sooner asks twice.
_PUBLISHED_AFTER_MS: Final = 2 * SECOND_MS
# Symbols are polled one after another, not all in one moment.
_SPREAD_MS: Final = 3 * SECOND_MS
# A settlement that is this late was not due: its interval has changed, or trading has stopped.
_LATEST_SETTLEMENT_MS: Final = 10 * MINUTE_MS
# Open interest that was asked for so often in vain (two minutes), and of which nothing has come for
# hours, has stopped or never was there; whether it begins again is asked every hour.
_ATTEMPTS_BEFORE_HOURLY: Final = 7
_STOPPED_FOR_MS: Final = 2 * HOUR_MS

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class SampledSymbol:
    instrument: Instrument
    interest: Pace = field(default_factory=Pace)
    funding: Pace = field(default_factory=Pace)
    is_busy: bool = False

    @property
    def symbol(self) -> str:
        return self.instrument.symbol


@dataclass(eq=False)
class LiveSamples:
    market: LiveMarket
    symbols: dict[str, SampledSymbol] = field(default_factory=dict)

    def add(self, instrument: Instrument) -> None:
        self.symbols[instrument.symbol] = SampledSymbol(instrument)

    def remove(self, symbol: str) -> None:
        self.symbols.pop(symbol, None)

    def tick(self, tasks: asyncio.TaskGroup) -> None:
        now_ms = self.market.clock.now_ms()
        for sampled in self.symbols.values():
            due_ms = min(sampled.interest.due_ms, sampled.funding.due_ms)
            if due_ms <= now_ms and not sampled.is_busy:
                sampled.is_busy = True
                tasks.create_task(self._poll(sampled))

    async def _poll(self, sampled: SampledSymbol) -> None:
        try:
            if sampled.interest.due_ms <= self.market.clock.now_ms():
                await self._poll_interest(sampled)
            if sampled.funding.due_ms <= self.market.clock.now_ms():
                await self._poll_funding(sampled)
        finally:
            sampled.is_busy = False

    async def _poll_interest(self, sampled: SampledSymbol) -> None:
        store, interval = self.market.store, self.market.venue.open_interest_interval
        newest_ms = store.last_open_interest_ms(sampled.symbol)
        now_ms = self.market.clock.now_ms()
        wanted_ms = interval.floor(now_ms)
        if newest_ms is None or newest_ms < wanted_ms:
            start_ms = now_ms - DAY_MS if newest_ms is None else newest_ms + 1
            async with self.market.requests:
                report = await self._asked(
                    sampled, open_interest_of(sampled.symbol), Span(start_ms, now_ms + 1)
                )
            self._note(sampled.symbol, "open interest", report)
            newest_ms = store.last_open_interest_ms(sampled.symbol)
        if newest_ms is None or newest_ms < wanted_ms:
            sampled.interest.failed(self.market)
            has_stopped = newest_ms is None or newest_ms < now_ms - _STOPPED_FOR_MS
            if has_stopped and sampled.interest.attempt > _ATTEMPTS_BEFORE_HOURLY:
                sampled.interest.due_ms = self._soon_after(H1.floor(now_ms) + HOUR_MS)
        else:
            sampled.interest.succeeded(self._soon_after(wanted_ms + interval.ms))

    async def _poll_funding(self, sampled: SampledSymbol) -> None:
        next_ms = self._next_settlement_ms(sampled)
        now_ms = self.market.clock.now_ms()
        if next_ms is None or next_ms <= now_ms:
            last = self.market.store.last_funding(sampled.symbol)
            start_ms = int(last.time_ms[-1]) + 1 if len(last) else now_ms - DAY_MS
            async with self.market.requests:
                report = await self._asked(
                    sampled, funding_of(sampled.symbol), Span(start_ms, now_ms + 1)
                )
            self._note(sampled.symbol, "funding", report)
            former_ms, next_ms = next_ms, self._next_settlement_ms(sampled)
            if next_ms is None or (
                next_ms == former_ms and now_ms - next_ms > _LATEST_SETTLEMENT_MS
            ):
                next_ms = H1.floor(now_ms) + HOUR_MS
        if next_ms <= now_ms:
            sampled.funding.failed(self.market)
        else:
            sampled.funding.succeeded(self._soon_after(next_ms))

    async def _asked(
        self, sampled: SampledSymbol, stored: StoredSeries[Any], span: Span
    ) -> SeriesFetch:
        """Asked for also where the store's settlements seem to hold that long.

        Intervals become shorter, and nobody says so before the settlement.
        """
        return await refetch(self.market.surroundings(), sampled.instrument, stored, [span])

    def _next_settlement_ms(self, sampled: SampledSymbol) -> Millis | None:
        """By the shorter of the interval that is stored and that of the present."""
        last = self.market.store.last_funding(sampled.symbol)
        if not len(last):
            return None
        settled_ms = int(last.time_ms[-1])
        hours = min(
            float(last.interval_hours[-1]), sampled.instrument.funding_interval.ms / HOUR_MS
        )
        return settled_ms - settled_ms % MINUTE_MS + round(hours * HOUR_MS)

    def _soon_after(self, time_ms: Millis) -> Millis:
        return time_ms + _PUBLISHED_AFTER_MS + round(self.market.rng.random() * _SPREAD_MS)

    def _note(self, symbol: str, kind: str, report: SeriesFetch) -> None:
        counts = self.market.counts
        counts.backfilled += report.write.added
        counts.corrected += report.write.replaced
        counts.rejected += sum(report.refused.values())
        if report.error is not None:
            counts.failed += 1
            _log.warning("samples_not_fetched", symbol=symbol, kind=kind, reason=report.error)
