"""Repairs a market store: its records, what it lacks of its exchange, and files corrected since.

1. Records and ledgers that differ from the rows are counted anew.
2. Where files came from Binance's archive, those that were corrected are fetched.
3. The exchange is asked for the gaps and for nothing else; also for those of which it had nothing
   before, as it may have filled them since.
4. What is still wrong is named, and so are the states of the index that are out of date.

What cannot be reached is said, and what was repaired until then is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llm_trader.app.indexes import location_of, open_index, refuse_another_exchange
from llm_trader.app.job import Job, blocking
from llm_trader.app.market_data import find_on_venue
from llm_trader.app.retention import has_no_index
from llm_trader.errors import LlmTraderError
from llm_trader.index.ingestion import outdated_times
from llm_trader.market.absent_spans import Span
from llm_trader.market.archive.filling import ArchiveReport, recheck_archive
from llm_trader.market.archive.plan import NOTES
from llm_trader.market.exchange.config import VENUES
from llm_trader.market.exchange.venue import Venue, open_venue
from llm_trader.market.fetching import SeriesFetch, Surroundings, refetch
from llm_trader.market.store import MarketStore
from llm_trader.market.store_check import StoreCheck
from llm_trader.market.stored_series import StoredSeries
from llm_trader.timeframe import Millis, Timeframe, iso8601


class OutdatedPoints(msgspec.Struct, frozen=True):
    """States of the index that the data of now make differently."""

    symbol: str
    points: int
    first: str
    last: str


class StoreRepair(StoreCheck, frozen=True):
    """The check after a repair. `errors` say what could not be reached or asked for.

    `index_note` says why no outdated states are named, where that is so.
    """

    archive: ArchiveReport | None = None
    fetched: list[SeriesFetch] = msgspec.field(default_factory=list)
    errors: list[str] = msgspec.field(default_factory=list)
    index: str = ""
    outdated: list[OutdatedPoints] = msgspec.field(default_factory=list)
    index_note: str | None = None

    @property
    def failed(self) -> bool:
        return bool(self.errors or self.file_problems or self.wrong)


@blocking
async def repair_store(job: Job, *, deep: bool) -> StoreRepair:
    settings = job.settings
    market = settings.market
    errors: list[str] = []
    with MarketStore.open(market.store, write=True, map_size_bytes=market.map_size_bytes) as store:
        store.repair_records()
        archive = _recheck(job, store, errors)
        fetched = await _refetch(job, store, errors)
        check = store.check(deep=deep, now_ms=job.now_ms)
        outdated, note = await _outdated_points(job, store)
    return StoreRepair(
        **msgspec.structs.asdict(check),
        archive=archive,
        fetched=fetched,
        errors=errors,
        index=location_of(settings),
        outdated=outdated,
        index_note=note,
    )


def _recheck(job: Job, store: MarketStore, errors: list[str]) -> ArchiveReport | None:
    """Fetch the files that the archive has corrected; None where none came from there."""
    if not store.notes(NOTES):
        return None
    config = job.settings.market.archive
    try:
        return recheck_archive(store, config, [], (0, job.now_ms), job.now_ms, job.progress)
    except LlmTraderError as error:
        errors.append(error.message)
        return None


async def _refetch(job: Job, store: MarketStore, errors: list[str]) -> list[SeriesFetch]:
    wanted = {s: spans for s in store.series() if (spans := store.spans_to_repair(s))}
    exchange = store.exchange
    if not wanted or exchange not in VENUES:
        return []
    try:
        venue = open_venue(exchange, job.settings.market.exchange)
    except LlmTraderError as error:
        errors.append(error.message)
        return []
    try:
        return await _ask(job, store, venue, wanted, errors)
    except LlmTraderError as error:
        errors.append(error.message)
        return []
    finally:
        await venue.close()


async def _ask(
    job: Job,
    store: MarketStore,
    venue: Venue,
    wanted: Mapping[StoredSeries[Any], Sequence[Span]],
    errors: list[str],
) -> list[SeriesFetch]:
    now_ms = await venue.now_ms()
    closed_ms = now_ms - round(job.settings.market.exchange.close_margin_s * 1000)
    surroundings = Surroundings(venue, store, now_ms, closed_ms, job.now_ms)
    reports = []
    for symbol in dict.fromkeys(series.symbol for series in wanted):
        try:
            (instrument,) = await find_on_venue(venue, [symbol])
        except LlmTraderError as error:
            errors.append(error.message)
            continue
        for series, spans in wanted.items():
            if series.symbol == symbol:
                report = await refetch(surroundings, instrument, series, spans, job.progress)
                reports.append(report)
                if report.error and report.error not in errors:
                    errors.append(report.error)
    return reports


async def _outdated_points(job: Job, store: MarketStore) -> tuple[list[OutdatedPoints], str | None]:
    if has_no_index(job.settings):
        return [], "there is no index; name it with --index if there is one"
    found = []
    try:
        async with open_index(job.settings, job.environ) as index:
            refuse_another_exchange(store, index)
            intraday = Timeframe.parse(index.collection.intraday)
            for held in (await index.info()).symbols:
                changes = store.changes_since(held.symbol, await index.data_mark(held.symbol))
                stored_times = await index.timestamps(held.symbol)
                times = outdated_times(store, held.symbol, changes, stored_times, intraday)
                if len(times):
                    ends: tuple[Millis, Millis] = int(times[0]), int(times[-1])
                    found.append(OutdatedPoints(held.symbol, len(times), *map(iso8601, ends)))
    except LlmTraderError as error:
        return [], error.message
    return found, None
