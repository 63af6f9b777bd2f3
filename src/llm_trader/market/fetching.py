"""Fetches history from a venue into the store: candles, funding, open interest.

1. What is asked for is what the store lacks of the span: its holes and its two ends, without the
   spans that the venue has said to have nothing of (`absent_spans.py`).
2. Of each such span the oldest page comes first, so that what is stored has no more holes than
   before, wherever the work ends. Each page is checked (`fetched_rows.py`) and written at once.
3. What the store still lacks after a page, the venue has not: that is noted, unless it is so
   recent that it may only be late, or rows of it were refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec
import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.errors import ExchangeError, InvalidInputError, LlmTraderError
from llm_trader.market import keys
from llm_trader.market.absent_spans import (
    Span,
    join_spans,
    spans_without_rows,
    without_spans,
)
from llm_trader.market.candles import CandleSeries
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.exchange.replies import Page
from llm_trader.market.exchange.venue import Venue
from llm_trader.market.fetched_rows import (
    PageRows,
    RowCounts,
    leave_out_unknown,
    leave_out_zero_interest,
)
from llm_trader.market.file_import import exchange_in_name
from llm_trader.market.funding_intervals import funding_intervals
from llm_trader.market.jumps import Jump
from llm_trader.market.missing_rows import MAY_BE_LATE_MS
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.samples import STAMP_TOLERANCE_MS, FundingSeries, OpenInterestSeries
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import (
    StoredSeries,
    candles_of,
    funding_of,
    open_interest_of,
)
from llm_trader.market.value_codecs import WriteReport
from llm_trader.progress import Progress, no_progress
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis, Timeframe, iso8601

Kind = Literal["candles", "funding", "open_interest"]

# Bybit has candles from some days before the time that it names as that of the listing.
_BEFORE_LISTING_MS: Final = 7 * DAY_MS
_LONGEST_FUNDING_MS: Final = DAY_MS
# How long a settlement holds can depend on the next three (`funding_intervals.py`).
_SETTLEMENTS_REVISED: Final = 4


class SeriesFetch(msgspec.Struct, frozen=True):
    """What came of one series; `error` says why it ended early, and what was written is kept.

    `requested_days` is what the store lacked before. `missing` counts the candles that the store
    still lacks of the span, and `absent` has the parts of it of which the venue has nothing.
    `contradictions` name candles of other timeframes that what was fetched disagrees with.
    """

    symbol: str
    kind: Kind
    timeframe: str | None
    start: str
    end: str
    requested_days: float
    pages: int
    rows: int
    write: WriteReport
    missing: int
    absent: list[tuple[str, str]]
    refused: dict[str, int]
    left_out: dict[str, int]
    notes: list[str]
    jumps: list[Jump]
    error: str | None
    contradictions: list[str] = []


class FetchReport(msgspec.Struct, frozen=True):
    exchange: str
    start: str
    end: str
    series: list[SeriesFetch]

    @property
    def failed(self) -> bool:
        return any(series.error for series in self.series)


class _Source(Protocol):
    """A series of the venue: how it is asked for, checked and written."""

    kind: Kind
    stored: StoredSeries[Any]
    timeframe: Timeframe | None
    page_ms: Millis  # how much of a page candles fill; 0 for samples

    def missing(self, asked: Span) -> list[Span]: ...

    async def page(self, asked: Span) -> Page: ...

    def write(self, page: Page, asked: Span, counts: RowCounts) -> tuple[int, WriteReport]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`now_ms` is the venue's time, `closed_ms` the one until which its candles are closed."""

    venue: Venue
    store: MarketStore
    now_ms: Millis
    closed_ms: Millis
    written_at_ms: Millis

    @property
    def label(self) -> str:
        """For the provenance."""
        return f"REST of {self.venue.name}"


def check_timeframes(venue: Venue, timeframes: Sequence[Timeframe]) -> None:
    for timeframe in timeframes:
        if timeframe not in venue.timeframes:
            offered = ", ".join(map(str, venue.timeframes))
            raise InvalidInputError(
                f"{venue.name} has no candles of {timeframe}; choose of {offered}"
            )


async def fetch_symbol(
    surroundings: Surroundings,
    instrument: Instrument,
    asked: Span,
    timeframes: Sequence[Timeframe],
    progress: Progress = no_progress,
) -> list[SeriesFetch]:
    """Fetch what the store lacks of all series of a symbol; one that fails leaves the others."""
    sources: list[_Source] = [
        *(_Candles(surroundings, instrument, timeframe) for timeframe in sorted(set(timeframes))),
        _Funding(surroundings, instrument),
        _OpenInterest(surroundings, instrument),
    ]
    return [
        await _fetch_series(surroundings, instrument, source, asked, progress) for source in sources
    ]


async def fetch_candles(
    surroundings: Surroundings, instrument: Instrument, timeframe: Timeframe, asked: Span
) -> SeriesFetch:
    """Fetch what the store lacks of one series of candles."""
    source = _Candles(surroundings, instrument, timeframe)
    return await _fetch_series(surroundings, instrument, source, asked, no_progress)


async def refetch(
    surroundings: Surroundings,
    instrument: Instrument,
    stored: StoredSeries[Any],
    spans: Sequence[Span],
    progress: Progress = no_progress,
) -> SeriesFetch:
    """Ask for some spans of a series and for no others, whatever was noted of them before."""
    source: _Source
    if stored.timeframe is not None:
        source = _Candles(surroundings, instrument, stored.timeframe)
    elif stored.database == keys.FUNDING:
        source = _Funding(surroundings, instrument)
    else:
        source = _OpenInterest(surroundings, instrument)
    asked = Span(spans[0].start_ms, spans[-1].end_ms)
    return await _fetch_series(surroundings, instrument, source, asked, progress, spans)


async def _fetch_series(
    surroundings: Surroundings,
    instrument: Instrument,
    source: _Source,
    asked: Span,
    progress: Progress,
    spans: Sequence[Span] | None = None,
) -> SeriesFetch:
    store = surroundings.store
    notes: list[str] = []
    span = _available(surroundings, instrument, source, asked, notes)
    wanted = _wanted(store, source, span, spans)
    if (foreign := _foreign_file(surroundings, source)) is not None:
        wanted = []
        notes.append(
            f"not fetched: the store has open interest of another exchange ({foreign}), whose "
            "level differs; fetch into a new store to have that of one exchange"
        )
    work = _Work(surroundings, source, sum(s.end_ms - s.start_ms for s in wanted), progress)
    error: str | None = None
    try:
        for part in wanted:
            await work.fetch(part)
    except LlmTraderError as failure:
        error = failure.message
    lacking = source.missing(span)
    step_ms = source.timeframe.ms if source.timeframe else None
    return SeriesFetch(
        instrument.symbol,
        source.kind,
        str(source.timeframe) if source.timeframe else None,
        iso8601(span.start_ms),
        iso8601(span.end_ms),
        round(work.total_ms / DAY_MS, 3),
        work.pages,
        work.rows,
        work.written,
        sum((s.end_ms - s.start_ms) // step_ms for s in lacking) if step_ms else 0,
        [(iso8601(s.start_ms), iso8601(s.end_ms)) for s in _absent_of(store, source, lacking)],
        dict(work.counts.refused),
        dict(work.counts.left_out),
        notes,
        list(work.jumps.values()),
        error,
        _contradictions(store, source, work.filled),
    )


def _contradictions(store: MarketStore, source: _Source, filled: Sequence[Span]) -> list[str]:
    """Where candles that were fetched disagree with those of other timeframes."""
    if source.timeframe is None or not filled:
        return []
    spans = {source.timeframe: join_spans(filled)}
    return [
        f"{found.coarse}: {found}" for found in store.contradictions(source.stored.symbol, spans)
    ]


def _available(
    surroundings: Surroundings,
    instrument: Instrument,
    source: _Source,
    asked: Span,
    notes: list[str],
) -> Span:
    """What of a span the venue can have of a series."""
    start_ms, end_ms = asked
    if instrument.listed_ms is not None:
        start_ms = max(start_ms, instrument.listed_ms - _BEFORE_LISTING_MS)
    if instrument.ended_ms is not None and instrument.ended_ms < end_ms:
        end_ms = instrument.ended_ms
        notes.append(f"not traded any more since {iso8601(end_ms)}")
    venue = surroundings.venue
    if source.kind == "open_interest" and venue.open_interest_reach_ms is not None:
        oldest_ms = surroundings.now_ms - venue.open_interest_reach_ms
        if start_ms < oldest_ms:
            start_ms = oldest_ms
            notes.append(
                f"{venue.name} sends open interest of the last "
                f"{round(venue.open_interest_reach_ms / DAY_MS)} days only; older one is in its "
                "public files: llm-trader data archive"
            )
    if source.timeframe is not None:
        start_ms = -source.timeframe.floor(-start_ms)
        end_ms = source.timeframe.floor(min(end_ms, surroundings.closed_ms))
    return Span(start_ms, max(start_ms, end_ms))


def _foreign_file(surroundings: Surroundings, source: _Source) -> str | None:
    """A file of another exchange that open interest was imported from; an import may do that."""
    if source.kind != "open_interest":
        return None
    sources = surroundings.store.open_interest_sources(source.stored.symbol)
    files = (s.source.removeprefix("file ") for s in sources if s.source.startswith("file "))
    named = ((Path(file).name, exchange_in_name(Path(file).name)) for file in files)
    return next((name for name, e in named if e not in (None, surroundings.venue.name)), None)


def _wanted(
    store: MarketStore, source: _Source, span: Span, spans: Sequence[Span] | None
) -> list[Span]:
    """What is to be asked for; holes that fit one page together are asked for at once.

    Where no spans are given, it is what is missing and not known to be absent.
    """
    if spans is None:
        lacking = without_spans(source.missing(span), store.absent_spans(source.stored))
    else:
        lacking = without_spans(spans, without_spans(spans, [span]))
    wanted: list[Span] = []
    for part in lacking:
        if wanted and part.end_ms - wanted[-1].start_ms <= source.page_ms:
            wanted[-1] = Span(wanted[-1].start_ms, part.end_ms)
        else:
            wanted.append(part)
    return wanted


def _absent_of(store: MarketStore, source: _Source, lacking: Sequence[Span]) -> list[Span]:
    present = without_spans(lacking, store.absent_spans(source.stored))
    return without_spans(lacking, present)


@dataclass(slots=True)
class _Work:
    """The pages of one series."""

    surroundings: Surroundings
    source: _Source
    total_ms: Millis
    progress: Progress
    done_ms: Millis = 0
    pages: int = 0
    rows: int = 0
    written: WriteReport = field(default_factory=WriteReport)
    counts: RowCounts = field(default_factory=RowCounts)
    jumps: dict[Millis, Jump] = field(default_factory=dict)
    filled: list[Span] = field(default_factory=list)

    async def fetch(self, part: Span) -> None:
        start_ms = part.start_ms
        self._report(0)
        while start_ms < part.end_ms:
            asked = Span(start_ms, part.end_ms)
            page = await self.source.page(asked)
            if page.end_ms <= start_ms:
                raise ExchangeError(
                    f"{self.surroundings.venue.name} repeats itself at {iso8601(start_ms)}; run "
                    "the command again later"
                )
            answered = Span(start_ms, min(page.end_ms, part.end_ms))
            self._store(page, answered)
            self.pages += 1
            self._report(answered.end_ms - start_ms)
            start_ms = answered.end_ms

    def _store(self, page: Page, answered: Span) -> None:
        rows, report = self.source.write(page, answered, self.counts)
        self.rows += rows
        self.written = self.written.plus(report)
        store, stored = self.surroundings.store, self.source.stored
        if self.source.timeframe is not None and rows:
            part = store.candles(stored.symbol, self.source.timeframe, *answered)
            found = store.jumps_of_part(stored.symbol, part)
            self.jumps |= {jump.time_ms: jump for jump in found}
            self.filled.append(answered)
        settled_ms = self.surroundings.now_ms - MAY_BE_LATE_MS
        absent = self.source.missing(
            Span(answered.start_ms, max(answered.start_ms, min(answered.end_ms, settled_ms)))
        )
        step_ms = self.source.timeframe.ms if self.source.timeframe else 1
        refused = [
            RefusedSpan(time_ms, time_ms + step_ms, reason)
            for time_ms, reason in self.counts.refused_ms.items()
            if answered.start_ms <= time_ms < answered.end_ms
        ]
        absent = without_spans(absent, [Span(r.start_ms, r.end_ms) for r in refused])
        store.note_answer(stored, answered, absent, refused)

    def _report(self, done_ms: Millis) -> None:
        self.done_ms += done_ms
        source = self.source
        label = f"{source.stored.symbol} {source.timeframe or source.kind.replace('_', ' ')}"
        self.progress(label, self.done_ms, self.total_ms)


class _Candles:
    kind: Kind = "candles"

    def __init__(
        self, surroundings: Surroundings, instrument: Instrument, timeframe: Timeframe
    ) -> None:
        self._surroundings = surroundings
        self.timeframe: Timeframe | None = timeframe
        self._grid = timeframe
        self.stored: StoredSeries[Any] = candles_of(instrument.symbol, timeframe)
        self.page_ms = surroundings.venue.candle_page_ms(timeframe)

    def missing(self, asked: Span) -> list[Span]:
        store, step_ms = self._surroundings.store, self._grid.ms
        times = store.open_times(self.stored.symbol, self._grid, *asked)
        return spans_without_rows(times, np.full(len(times), step_ms), step_ms, asked)

    async def page(self, asked: Span) -> Page:
        venue = self._surroundings.venue
        return await venue.candles(self.stored.symbol, self._grid, *asked)

    def write(self, page: Page, asked: Span, counts: RowCounts) -> tuple[int, WriteReport]:
        rows: PageRows[CandleSeries] = PageRows.within(page, asked, counts)
        unclosed = rows.times + self._grid.ms > self._surroundings.closed_ms
        rows.leave_out(unclosed, "candle that had not closed yet")
        series = rows.build(
            lambda r: CandleSeries.validated(self._grid, {"open_time_ms": r.times, **r.columns})
        )
        return _write(self._surroundings, self.stored, series)


class _Funding:
    kind: Kind = "funding"
    timeframe: Timeframe | None = None
    page_ms: Millis = 0

    def __init__(self, surroundings: Surroundings, instrument: Instrument) -> None:
        self._surroundings = surroundings
        self._instrument = instrument
        self.stored: StoredSeries[Any] = funding_of(instrument.symbol)

    def missing(self, asked: Span) -> list[Span]:
        earliest_ms = asked.start_ms - _LONGEST_FUNDING_MS - STAMP_TOLERANCE_MS
        series = self._surroundings.store.funding(self.stored.symbol, earliest_ms, asked.end_ms)
        return spans_without_rows(series.time_ms, series.speaks_for_ms, 1, asked)

    async def page(self, asked: Span) -> Page:
        return await self._surroundings.venue.funding(self._instrument, *asked)

    def write(self, page: Page, asked: Span, counts: RowCounts) -> tuple[int, WriteReport]:
        """How long settlements hold is seen from their distances, those of the store included."""
        rows: PageRows[FundingSeries] = PageRows.within(page, asked, counts)
        leave_out_unknown(rows, "rate")
        usual = self._instrument.funding_interval
        rows.build(
            lambda r: FundingSeries.validated(
                {
                    "time_ms": r.times,
                    "rate": r.columns["rate"],
                    "interval_hours": np.full(len(r.times), usual.ms / HOUR_MS),
                }
            )
        )
        if not len(rows.times):
            return 0, WriteReport()
        former = self._surroundings.store.funding(self.stored.symbol)
        kept = ~np.isin(former.time_ms, rows.times)
        times = np.concatenate([former.time_ms[kept], rows.times])
        rates = np.concatenate([former.rate[kept], rows.columns["rate"]])
        order = np.argsort(times)
        times, rates = times[order], rates[order]
        first, last = np.searchsorted(times, rows.times[[0, -1]]).tolist()
        revised = slice(max(first - _SETTLEMENTS_REVISED, 0), last + 1 + _SETTLEMENTS_REVISED)
        series = FundingSeries.validated(
            {
                "time_ms": times[revised],
                "rate": rates[revised],
                "interval_hours": _hours(times, usual)[revised],
            }
        )
        _, report = _write(self._surroundings, self.stored, series)
        return len(rows.times), report


class _OpenInterest:
    kind: Kind = "open_interest"
    timeframe: Timeframe | None = None
    page_ms: Millis = 0

    def __init__(self, surroundings: Surroundings, instrument: Instrument) -> None:
        self._surroundings = surroundings
        self._interval_ms = surroundings.venue.open_interest_interval.ms
        self.stored: StoredSeries[Any] = open_interest_of(instrument.symbol)

    def missing(self, asked: Span) -> list[Span]:
        store, reach_ms = self._surroundings.store, self._interval_ms + STAMP_TOLERANCE_MS
        times = store.open_interest(
            self.stored.symbol, asked.start_ms - reach_ms, asked.end_ms
        ).time_ms
        return spans_without_rows(times, np.full(len(times), reach_ms), 1, asked)

    async def page(self, asked: Span) -> Page:
        return await self._surroundings.venue.open_interest(self.stored.symbol, *asked)

    def write(self, page: Page, asked: Span, counts: RowCounts) -> tuple[int, WriteReport]:
        rows: PageRows[OpenInterestSeries] = PageRows.within(page, asked, counts)
        leave_out_unknown(rows, "open_interest")
        stored_before = self._surroundings.store.open_interest(
            self.stored.symbol, asked.start_ms - DAY_MS, asked.start_ms
        )
        any_positive = bool((stored_before.open_interest > 0).any())
        leave_out_zero_interest(rows, any_positive=any_positive)
        rows.columns.setdefault("open_interest_value", np.full(len(rows.times), np.nan))
        series = rows.build(
            lambda r: OpenInterestSeries.validated({"time_ms": r.times, **r.columns})
        )
        return _write(self._surroundings, self.stored, series, self._interval_ms)


def _hours(times: Times, usual: Timeframe) -> Floats:
    hours = funding_intervals(times, usual)
    return np.full(len(times), usual.ms / HOUR_MS) if hours is None else hours


def _write(
    surroundings: Surroundings,
    stored: StoredSeries[Any],
    series: CandleSeries | FundingSeries | OpenInterestSeries,
    interval_ms: Millis | None = None,
) -> tuple[int, WriteReport]:
    report = surroundings.store.write(
        stored.symbol,
        series,
        surroundings.label,
        written_at_ms=surroundings.written_at_ms,
        interval_ms=interval_ms,
    )
    return len(series), report
