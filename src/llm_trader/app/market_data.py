"""Fills a market store from files or a simulation, describes it and checks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from llm_trader.app.job import Job, blocking
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.absent_spans import Span
from llm_trader.market.archive.filling import EXCHANGE as ARCHIVE_EXCHANGE
from llm_trader.market.archive.filling import ArchiveReport, fill_from_archive, recheck_archive
from llm_trader.market.config import MarketConfig
from llm_trader.market.exchange.instruments import Instrument, find_instruments
from llm_trader.market.exchange.venue import Venue, open_venue
from llm_trader.market.fetching import (
    FetchReport,
    Surroundings,
    check_timeframes,
    fetch_symbol,
)
from llm_trader.market.file_export import ExportReport, FileFormat, export_store
from llm_trader.market.file_import import ImportReport, import_folder
from llm_trader.market.file_rows import FileReading
from llm_trader.market.jumps import Jump
from llm_trader.market.keys import checked_symbol
from llm_trader.market.simulation import EXCHANGE as SIMULATED
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.market.store_check import StoreCheck
from llm_trader.market.store_info import StoreInfo
from llm_trader.settings.tree import Settings
from llm_trader.storage.environment import DATA_FILE, LOCK_FILE
from llm_trader.timeframe import (
    MIN_TIME_MS,
    Millis,
    Timeframe,
    iso8601,
    parse_end,
    parse_start,
)


class FileMeaning(TypedDict):
    """The contents of a file whose name does not say them; None where it does."""

    symbol: str | None
    kind: str | None
    interval: str | None


def import_market_data(
    job: Job, path: Path, exchange: str, reading: FileReading, meaning: FileMeaning
) -> ImportReport:
    """Import a folder or a file."""
    market = job.settings.market
    with written_store(market, exchange) as store:
        return import_folder(
            path,
            store,
            exchange=exchange,
            written_at_ms=job.now_ms,
            reading=reading,
            progress=job.progress,
            max_hole_candles=job.settings.snapshot.max_hole_candles,
            **meaning,
        )


def export_market_data(
    job: Job,
    folder: Path,
    file_format: FileFormat,
    symbols: Sequence[str],
    exchange: str | None,
    *,
    force: bool,
) -> ExportReport:
    """Write a store to files that an import reads back."""
    with MarketStore.open(job.settings.market.store) as store:
        return export_store(
            store,
            folder,
            file_format=file_format,
            symbols=symbols,
            exchange=exchange,
            force=force,
            progress=job.progress,
        )


def fill_store_from_archive(
    job: Job,
    symbols: Sequence[str],
    timeframes: Sequence[Timeframe],
    span_ms: tuple[Millis, Millis],
) -> ArchiveReport:
    """Download what Binance's archive has of a span into a store."""
    if not symbols:
        raise InvalidInputError("name the symbols with --symbols, such as BTCUSDT,ETHUSDT")
    if span_ms[0] >= span_ms[1]:
        raise InvalidInputError("the start is not before the end")
    names = [checked_symbol(symbol) for symbol in symbols]
    market = job.settings.market
    with written_store(market, ARCHIVE_EXCHANGE) as store:
        return fill_from_archive(
            store, market.archive, names, timeframes, span_ms, job.now_ms, job.progress
        )


def recheck_store_against_archive(
    job: Job, symbols: Sequence[str], span_ms: tuple[Millis, Millis]
) -> ArchiveReport:
    """Fetch again what Binance's archive has corrected since it was stored."""
    market = job.settings.market
    with MarketStore.open(market.store):  # says so where there is none
        pass
    with written_store(market, ARCHIVE_EXCHANGE) as store:
        return recheck_archive(store, market.archive, symbols, span_ms, job.now_ms, job.progress)


@contextmanager
def written_store(config: MarketConfig, exchange: str) -> Iterator[MarketStore]:
    """A store to write to. A failure before the first write leaves none where there was none."""
    folder = config.store
    existed = (folder / DATA_FILE).exists()
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    is_empty = False
    try:
        with MarketStore.open(
            folder, write=True, exchange=exchange, map_size_bytes=config.map_size_bytes
        ) as store:
            try:
                yield store
            except BaseException:
                is_empty = not store.symbols()
                raise
    except BaseException:
        if is_empty and not existed:
            for name in (DATA_FILE, LOCK_FILE):
                (folder / name).unlink(missing_ok=True)
            for parent in missing:
                if any(parent.iterdir()):  # verified files of the archive wait there
                    break
                parent.rmdir()
        raise


def refuse_store_of_another(config: MarketConfig, exchange: str) -> None:
    """Before anything is asked of the exchange, which may take minutes to fail."""
    if (config.store / DATA_FILE).exists():
        MarketStore.open(config.store, exchange=exchange).close()


@blocking
async def fetch_market_data(
    job: Job,
    exchange: str,
    symbols: Sequence[str],
    start: str,
    end: str,
    timeframes: Sequence[Timeframe],
) -> FetchReport:
    """Fetch what the store lacks of some symbols; a series that fails leaves the others.

    The present is that of the exchange. Raises `InvalidInputError` for an exchange, a symbol or a
    timeframe that is not there, and `ExchangeError` where the exchange cannot be reached.
    """
    if not symbols:
        raise InvalidInputError("--symbols names no symbol; name one, such as BTCUSDT")
    market = job.settings.market
    venue = open_venue(exchange, market.exchange)
    try:
        refuse_store_of_another(market, venue.name)
        check_timeframes(venue, timeframes)
        now_ms = await venue.now_ms()
        span = _fetched_span(start, end, now_ms)
        instruments = await find_on_venue(venue, symbols)
        with written_store(market, exchange) as store:
            closed_ms = now_ms - round(market.exchange.close_margin_s * 1000)
            surroundings = Surroundings(venue, store, now_ms, closed_ms, job.now_ms)
            series = [
                report
                for instrument in instruments
                for report in await fetch_symbol(
                    surroundings, instrument, span, timeframes, job.progress
                )
            ]
    finally:
        await venue.close()
    return FetchReport(exchange, iso8601(span.start_ms), iso8601(span.end_ms), series)


def _fetched_span(start: str, end: str, now_ms: Millis) -> Span:
    end_ms = min(parse_end(end, now_ms), now_ms)
    start_ms = parse_start(start, end_ms)
    if start_ms >= end_ms:
        raise InvalidInputError(
            f"--start ({iso8601(start_ms)}) lies not before --end ({iso8601(end_ms)}, which is not "
            "later than the time of the exchange); give an earlier start"
        )
    return Span(max(start_ms, MIN_TIME_MS), end_ms)


async def find_on_venue(venue: Venue, symbols: Sequence[str]) -> list[Instrument]:
    """Contracts that are not traded any more are only looked up where a name needs them."""
    listed = await venue.instruments()
    try:
        return find_instruments(symbols, listed, venue.name)
    except InvalidInputError:
        closed = await venue.closed_instruments()
        if not closed:
            raise
        return find_instruments(symbols, [*closed, *listed], venue.name)


def describe_store(job: Job) -> StoreInfo:
    with MarketStore.open(job.settings.market.store) as store:
        return store.describe(job.now_ms)


def check_store(job: Job, *, deep: bool) -> StoreCheck:
    """Compare records with a count of all rows, and name what is wrong or missing."""
    with MarketStore.open(job.settings.market.store) as store:
        return store.check(deep=deep, now_ms=job.now_ms)


def list_jumps(settings: Settings, symbols: Sequence[str]) -> list[Jump]:
    """The jumps of some symbols' candles, accepted or not; no symbols means all of the store."""
    with MarketStore.open(settings.market.store) as store:
        available = store.symbols()
        for symbol in symbols:
            if symbol not in available:
                raise SymbolNotFoundError(symbol, available)
        return [jump for symbol in symbols or available for jump in store.jumps(symbol)]


def accept_jump(
    settings: Settings, symbol: str, time_ms: Millis, *, withdraw: bool = False
) -> list[Jump]:
    """Accept the jump at a time, or take that back; also those of other candles, such as 4h."""
    market = settings.market
    with MarketStore.open(market.store) as store:
        if symbol not in (available := store.symbols()):
            raise SymbolNotFoundError(symbol, available)
    with MarketStore.open(market.store, write=True, map_size_bytes=market.map_size_bytes) as store:
        return (store.withdraw_jump if withdraw else store.accept_jump)(symbol, time_ms)


def simulate_market(
    job: Job, symbols: Sequence[str], start_ms: Millis, *, days: int, seed: int
) -> StoreInfo:
    """Write a simulated market into a store of the exchange `simulated`."""
    if not symbols:
        raise InvalidInputError("--symbols names no symbol; name one, such as BTCUSDT")
    source, now_ms, progress = f"simulation, seed {seed}", job.now_ms, job.progress
    with written_store(job.settings.market, SIMULATED) as store:
        for done, symbol in enumerate(symbols):
            progress("simulating", done, len(symbols))
            market = simulate(symbol, start_ms=start_ms, days=days, seed=seed)
            for candles in (market.intraday, market.four_hour):
                store.write(symbol, candles, source, written_at_ms=now_ms)
            store.write(symbol, market.funding, source, written_at_ms=now_ms)
            store.write(
                symbol,
                market.open_interest,
                source,
                written_at_ms=now_ms,
                interval_ms=market.open_interest_interval_ms,
            )
        progress("simulating", len(symbols), len(symbols))
        return store.describe()
