"""Stores candles as they close, and asks the exchange for those that streams did not show whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from llm_trader.errors import InvalidDataError
from llm_trader.market.absent_spans import Span
from llm_trader.market.candles import CandleSeries
from llm_trader.market.collecting.candle_closing import CandleCloser, CandleValues
from llm_trader.market.collecting.surroundings import LiveMarket, Pace
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.fetching import SeriesFetch, fetch_candles, refetch
from llm_trader.market.stored_series import candles_of
from llm_trader.timeframe import HOUR_MS, Millis, Timeframe, iso8601

# A page of an hour is one request, and a wrong candle harms the states of a day.
CHECK_EVERY_MS: Final = HOUR_MS

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class LiveSeries:
    """The candles of one symbol and timeframe.

    `hole` is what the exchange has not sent although it should have it; it may only be late.
    `unchecked_ms` opens the first candle that was stored from the stream alone.
    """

    instrument: Instrument
    closer: CandleCloser
    pace: Pace = field(default_factory=Pace)
    hole: Span | None = None
    hole_pace: Pace = field(default_factory=Pace)
    unchecked_ms: Millis | None = None
    check_pace: Pace = field(default_factory=Pace)
    is_busy: bool = False

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    @property
    def timeframe(self) -> Timeframe:
        return self.closer.timeframe


@dataclass(eq=False)
class LiveCandles:
    """`update` takes what streams show; `tick` does what is due."""

    market: LiveMarket
    series: dict[tuple[str, Timeframe], LiveSeries] = field(default_factory=dict)
    _changed: dict[LiveSeries, None] = field(default_factory=dict)

    def add(
        self, instrument: Instrument, timeframe: Timeframe, next_ms: Millis, hole: Span | None
    ) -> None:
        closer = CandleCloser(timeframe, next_ms)
        self.series[instrument.symbol, timeframe] = LiveSeries(instrument, closer, hole=hole)

    def remove(self, symbol: str) -> None:
        for key in [key for key in self.series if key[0] == symbol]:
            series = self.series.pop(key)
            self._changed.pop(series, None)
            self.market.counts.rejected += series.closer.rejected

    def update(
        self, symbol: str, timeframe: Timeframe, open_ms: Millis, values: CandleValues
    ) -> None:
        series = self.series.get((symbol, timeframe))
        now_ms = self.market.clock.now_ms()
        if series is not None and series.closer.update(open_ms, values, now_ms):
            self._changed[series] = None

    def disconnected(self, symbols: Iterable[str]) -> None:
        lost = set(symbols)
        for series in self.series.values():
            if series.symbol in lost:
                series.closer.disconnected()

    def tick(self, tasks: asyncio.TaskGroup) -> None:
        changed, self._changed = self._changed, {}
        for series in changed:
            self._store_closed(series)
        now_ms, closed_ms = self.market.clock.now_ms(), self.market.closed_ms
        for series in self.series.values():
            if series.is_busy:
                continue
            if series.pace.due_ms <= now_ms:
                if span := series.closer.contradicted(closed_ms):
                    self._begin(tasks, series, span, again=True)
                elif span := series.closer.unconfirmed(closed_ms):
                    self._begin(tasks, series, span, again=False)
            if series.hole and not series.is_busy and series.hole_pace.due_ms <= now_ms:
                series.is_busy = True
                tasks.create_task(self._fill_hole(series, series.hole))
            if series.unchecked_ms and not series.is_busy and series.check_pace.due_ms <= now_ms:
                series.is_busy = True
                span = Span(series.unchecked_ms, min(series.closer.next_ms, closed_ms))
                tasks.create_task(self._check(series, span))

    def rejected(self) -> int:
        """How many updates of the series were no candles of the present."""
        return sum(series.closer.rejected for series in self.series.values())

    def unreachable(self) -> Iterator[str]:
        """Symbols of which nothing has come for several attempts, as of delisted ones."""
        for series in self.series.values():
            if series.pace.attempt >= 4:
                yield series.symbol

    def _begin(
        self, tasks: asyncio.TaskGroup, series: LiveSeries, span: Span, *, again: bool
    ) -> None:
        series.is_busy = True
        tasks.create_task(self._confirm(series, span, again=again))

    def _store_closed(self, series: LiveSeries) -> None:
        candles = series.closer.closed()
        if not candles:
            return
        columns = zip(*(values for _, values in candles), strict=True)
        named = dict(zip(CandleValues._fields, map(list, columns), strict=True))
        times = [open_ms for open_ms, _ in candles]
        try:
            part = CandleSeries.validated(series.timeframe, {"open_time_ms": times, **named})
        except InvalidDataError as error:
            self.market.counts.rejected += 1
            _log.warning("candles_refused", symbol=series.symbol, reason=error.message)
            for open_ms in times:
                series.closer.doubt(open_ms)
            return
        now_ms = self.market.clock.now_ms()
        label = f"stream of {self.market.venue.name}"
        self.market.store.write(series.symbol, part, label, written_at_ms=now_ms)
        series.closer.stored_from_stream(candles)
        if series.unchecked_ms is None:
            series.unchecked_ms = times[0]
            after_ms = round(CHECK_EVERY_MS * (0.8 + 0.4 * self.market.rng.random()))
            series.check_pace.succeeded(now_ms + after_ms)
        self.market.counts.streamed += len(candles)
        for jump in self.market.store.jumps_of_part(series.symbol, part):
            _log.warning("price_jumped", symbol=series.symbol, jump=str(jump))

    async def _confirm(self, series: LiveSeries, span: Span, *, again: bool) -> None:
        try:
            report = await self._fetched(series, span, again=again)
            if report is None:
                series.pace.failed(self.market)
                return
            stored = self.market.store.first_and_last_ms(series.symbol, series.timeframe)
            end_ms = stored[1] + series.timeframe.ms if stored else 0
            series.closer.confirmed(span, end_ms)
            if series.closer.next_ms < span.end_ms:  # the exchange does not have it yet
                series.pace.failed(self.market)
            else:
                series.pace.succeeded()
            if report.missing and end_ms > span.start_ms:
                first_ms = span.start_ms if series.hole is None else series.hole.start_ms
                series.hole = Span(min(first_ms, span.start_ms), span.end_ms)
                series.hole_pace.failed(self.market)
            self._store_closed(series)
        finally:
            series.is_busy = False

    async def _fill_hole(self, series: LiveSeries, hole: Span) -> None:
        try:
            report = await self._fetched(series, hole, again=False)
            # Nothing is asked for any more once the exchange has said that it has nothing.
            if report is not None and (not report.missing or not report.pages):
                series.hole = None
                series.hole_pace.succeeded()
            else:
                series.hole_pace.failed(self.market)
        finally:
            series.is_busy = False

    async def _check(self, series: LiveSeries, span: Span) -> None:
        """Compare what came from the stream with what the exchange keeps.

        A stream may lose the last update of a candle; nothing on the connection would show it.
        """
        try:
            report = await self._fetched(series, span, again=True)
            if report is None:
                series.check_pace.failed(self.market)
            else:
                series.unchecked_ms = None
        finally:
            series.is_busy = False

    async def _fetched(self, series: LiveSeries, span: Span, *, again: bool) -> SeriesFetch | None:
        """None where the exchange refuses, or does not answer."""
        counts = self.market.counts
        surroundings = self.market.surroundings()
        instrument, timeframe = series.instrument, series.timeframe
        async with self.market.requests:
            if again:
                stored = candles_of(series.symbol, timeframe)
                report = await refetch(surroundings, instrument, stored, [span])
            else:
                report = await fetch_candles(surroundings, instrument, timeframe, span)
        counts.backfilled += report.write.added
        counts.rejected += sum(report.refused.values())
        if report.write.replaced:
            counts.corrected += report.write.replaced
            self.market.corrected.add(series.symbol)
            _log.warning(
                "candles_corrected", symbol=series.symbol, timeframe=str(series.timeframe),
                start=iso8601(span.start_ms), candles=report.write.replaced,
            )  # fmt: skip
        if report.error is None:
            return report
        counts.failed += 1
        _log.warning(
            "candles_not_fetched", symbol=series.symbol, timeframe=str(series.timeframe),
            reason=report.error,
        )  # fmt: skip
        return None
