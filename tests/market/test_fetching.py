"""Fetching from the fake exchange, with ccxt as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm_trader.errors import ExchangeError, InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.file_import import import_folder
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M3, M5, MINUTE_MS, Millis, Timeframe, iso8601
from tests.exchange.fetching import WRITTEN_AT_MS, Pauses, fetch, venue_of
from tests.exchange.listings import Listing, listing_of
from tests.exchange.real_data import real_listing
from tests.exchange.server import FakeExchange
from tests.exchange.stores import meta_of, rows_of
from tests.market.builders import START_MS, run_of_candles

pytest.importorskip("ccxt")

DAYS = 40
# In the midst of a candle of every timeframe.
NOW_MS = START_MS + (DAYS - 1) * DAY_MS + 13 * HOUR_MS + 100_000
# Where a test is not about many pages.
LATE_MS = START_MS + 34 * DAY_MS
VENUES = ("binance", "bybit")
# The same pages, retries and marks serve both.
BYBIT_QUICKLY = [pytest.param("binance", marks=pytest.mark.soak), "bybit"]


def changing_funding(first_ms: Millis) -> FundingSeries:
    """Every 8 hours, then 4, 1 and 4 again."""
    hours = [8.0] * 40 + [4.0] * 40 + [1.0] * 300 + [4.0] * 50
    times = first_ms + np.cumsum([0.0, *hours[:-1]]).astype(np.int64) * HOUR_MS
    rates = 1e-4 * np.sin(np.arange(len(hours)))
    return FundingSeries.validated({"time_ms": times, "rate": rates, "interval_hours": hours})


def make_listing(
    symbol: str = "BTCUSDT",
    *,
    start_ms: Millis = START_MS,
    five_minute: bool = False,
    **options: Any,
) -> Listing:
    days = DAYS - (start_ms - START_MS) // DAY_MS
    history = simulate(symbol, start_ms=start_ms, days=days, seed=3)
    return listing_of(history, five_minute=five_minute, **options)


@pytest.fixture(scope="module")
def listing() -> Listing:
    made = make_listing(five_minute=True)
    made.funding = changing_funding(START_MS)
    return made


@pytest.fixture
def exchange(listing: Listing) -> Iterator[FakeExchange]:
    with FakeExchange([replace(listing, altered={})], NOW_MS) as running:
        yield running


def write_files(
    folder: Path, venue: str, listing: Listing, start_ms: Millis, interest: OpenInterestSeries
) -> None:
    """What the exchange has until now, as files for an import."""
    folder.mkdir()
    name = f"{venue}_linear_{listing.symbol}"
    for timeframe, series in listing.candles.items():
        closed = series.known_at(NOW_MS).between(start_ms, None)
        columns = {"timestamp_ms": closed.times, **dict(closed.columns())}
        pl.DataFrame(columns).write_parquet(folder / f"{name}_candles_{timeframe}.parquet")
    settled = listing.funding.between(start_ms, NOW_MS)
    columns = {"timestamp_ms": settled.times, "funding_rate": settled.rate}
    pl.DataFrame(columns).write_parquet(folder / f"{name}_funding_8h.parquet")
    columns = {"timestamp_ms": interest.times, **dict(interest.columns())}
    step = Timeframe(int(np.diff(interest.times).min()))
    pl.DataFrame(columns).write_parquet(folder / f"{name}_open_interest_{step}.parquet")


def published_interest(venue: str, listing: Listing) -> OpenInterestSeries:
    """Bybit has samples of each hour, in base units; Binance 5 minutes, a month back."""
    interest = listing.open_interest.between(None, NOW_MS)
    if venue == "binance":
        return interest.between(NOW_MS - 30 * DAY_MS + 10 * MINUTE_MS, None)
    hourly = interest.times % HOUR_MS == 0
    amount = interest.open_interest[hourly]
    columns = {"open_interest": amount, "open_interest_value": np.full(len(amount), np.nan)}
    return OpenInterestSeries.validated({"time_ms": interest.times[hourly], **columns})


@pytest.mark.parametrize("venue", BYBIT_QUICKLY)
async def test_fetching_and_importing_the_same_give_the_same_rows(
    venue: str, exchange: FakeExchange, listing: Listing, tmp_path: Path
):
    reports = await fetch(exchange, venue, tmp_path / "fetched", START_MS)
    assert [report.error for report in reports] == [None] * 4
    assert [report.missing for report in reports] == [0] * 4
    interest = published_interest(venue, listing)
    write_files(tmp_path / "files", venue, listing, START_MS, interest)
    with MarketStore.open(tmp_path / "imported", write=True, exchange=venue) as store:
        import_folder(tmp_path / "files", store, exchange=venue, written_at_ms=WRITTEN_AT_MS)
    fetched, imported = rows_of(tmp_path / "fetched"), rows_of(tmp_path / "imported")
    assert fetched.keys() == imported.keys()
    for database, records in imported.items():
        assert fetched[database] == records, database
    with MarketStore.open(tmp_path / "fetched") as store:
        assert {s.source for s in store.provenance("BTCUSDT", M3)} == {f"REST of {venue}"}
        assert store.check(deep=True).problems == 0
        hours = store.funding("BTCUSDT").interval_hours
        assert set(hours.tolist()) == {8.0, 4.0, 1.0}


async def test_a_slice_of_real_data_comes_out_as_its_files_are_imported(
    real_data: Path, tmp_path: Path
):
    folder = real_data / "bybit_5m_2025-09_2026-03"
    start_ms, end_ms = 1_759_968_000_000, 1_759_968_000_000 + 20 * DAY_MS  # 2025-10-09
    cut = tmp_path / "files"
    cut.mkdir()
    frames = {}
    for path in sorted(folder.glob("*_BTCUSDT_*.parquet")):
        inside = pl.col("timestamp_ms").is_between(start_ms, end_ms, closed="left")
        frames[path.stem.partition("BTCUSDT_")[2]] = frame = pl.read_parquet(path).filter(inside)
        frame.write_parquet(cut / path.name)
    listing = real_listing(frames, "BTCUSDT")
    with FakeExchange([listing], end_ms + MINUTE_MS) as exchange:
        reports = await fetch(
            exchange, "bybit", tmp_path / "fetched", start_ms, timeframes=(M5, H4)
        )
    assert [report.error for report in reports] == [None] * 4
    with MarketStore.open(tmp_path / "imported", write=True, exchange="bybit") as store:
        import_folder(cut, store, exchange="bybit", written_at_ms=WRITTEN_AT_MS + 365 * DAY_MS)
    assert rows_of(tmp_path / "fetched") == rows_of(tmp_path / "imported")


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "folder", ["bybit_5m_2025-09_2026-03", "binance_5m_2023", "binance_1m_2025-05_2025-06"]
)
async def test_all_real_data_comes_out_as_its_files_are_imported(
    folder: str, real_data: Path, tmp_path: Path
):
    """Also candles that the import builds, which the exchange has; open interest is of Bybit."""
    files = tmp_path / "files"
    files.mkdir()
    frames: dict[str, dict[str, pl.DataFrame]] = {}
    for path in sorted((real_data / folder).glob("*.parquet")):
        symbol, _, series = path.stem.split("_", 2)[2].partition("_")
        frames.setdefault(symbol, {})[series] = pl.read_parquet(path)
        shutil.copy(path, files / f"bybit_linear_{symbol}_{series}.parquet")
    times = [frame["timestamp_ms"] for series in frames.values() for frame in series.values()]
    first_ms = min(int(column[0]) for column in times)
    end_ms = max(int(column[-1]) for column in times) + 4 * HOUR_MS
    with MarketStore.open(tmp_path / "imported", write=True, exchange="bybit") as store:
        import_folder(files, store, exchange="bybit", written_at_ms=end_ms)
        timeframes = store.timeframes("BTCUSDT")
    listings = [real_listing(series, symbol) for symbol, series in frames.items()]
    for listing in listings:
        listing.listed_ms = first_ms
    with FakeExchange(listings, end_ms + MINUTE_MS) as exchange:
        reports = await fetch(
            exchange, "bybit", tmp_path / "fetched", first_ms,
            symbols=tuple(frames), timeframes=timeframes,
        )  # fmt: skip
    assert [report.error for report in reports] == [None] * len(reports)
    fetched, imported = rows_of(tmp_path / "fetched"), rows_of(tmp_path / "imported")
    assert fetched.keys() == imported.keys()
    for database, records in imported.items():
        assert fetched[database] == records, database


@pytest.mark.parametrize("venue", BYBIT_QUICKLY)
async def test_a_second_run_asks_for_nothing_that_is_stored(
    venue: str, exchange: FakeExchange, tmp_path: Path
):
    await fetch(exchange, venue, tmp_path / "store", LATE_MS)
    before = rows_of(tmp_path / "store")
    exchange.asked.clear()
    reports = await fetch(exchange, venue, tmp_path / "store", LATE_MS)
    assert exchange.history_requests() == []
    assert [report.requested_days for report in reports] == [0.0] * 4
    assert rows_of(tmp_path / "store") == before


@pytest.mark.parametrize("venue", BYBIT_QUICKLY)
async def test_a_later_run_asks_only_for_what_came_since(
    venue: str, exchange: FakeExchange, tmp_path: Path
):
    # Binance has open interest of the last 30 days alone, which a longer time shows.
    start_ms = START_MS if venue == "binance" else LATE_MS
    exchange.market.now_ms -= DAY_MS
    await fetch(exchange, venue, tmp_path / "store", start_ms)
    exchange.market.now_ms += DAY_MS
    exchange.asked.clear()
    reports = await fetch(exchange, venue, tmp_path / "store", start_ms)
    assert len(exchange.history_requests()) == 4
    assert [report.write.added for report in reports[:2]] == [480, 6]
    assert all(report.write.replaced == 0 for report in reports)
    await fetch(exchange, venue, tmp_path / "at_once", start_ms)
    both, at_once = rows_of(tmp_path / "store"), rows_of(tmp_path / "at_once")
    if venue == "binance":  # open interest of a day more could be had a day before
        oldest = min(at_once["open_interest"])
        kept = {key: v for key, v in both["open_interest"].items() if key >= oldest}
        assert len(both["open_interest"]) - len(kept) == 288
        both["open_interest"] = kept
    assert both == at_once


@pytest.mark.parametrize("venue", VENUES)
async def test_holes_of_the_store_are_filled_and_those_of_the_venue_are_asked_for_once(
    venue: str, exchange: FakeExchange, listing: Listing, tmp_path: Path
):
    """Ten hours of the store are missing, and three candles of the venue."""
    whole = listing.candles[M3]
    outage = START_MS + 5 * DAY_MS
    kept = (whole.times < outage) | (whole.times >= outage + 3 * M3.ms)
    exchange.market.listings["BTCUSDT"].candles = {
        **listing.candles,
        M3: _some(whole, kept),
    }
    first, end = START_MS + 2 * DAY_MS, START_MS + 3 * DAY_MS
    with MarketStore.open(tmp_path / "store", write=True, exchange=venue) as store:
        for part in (whole.between(first, end), whole.between(end + 10 * HOUR_MS, outage)):
            store.write("BTCUSDT", part, "a file", written_at_ms=0)
    reports = await fetch(
        exchange, venue, tmp_path / "store", first, outage + DAY_MS, timeframes=(M3,)
    )
    candles = reports[0]
    assert (candles.missing, candles.write.added) == (3, 200 + 477)
    assert candles.absent == [(iso8601(outage), iso8601(outage + 3 * M3.ms))]
    asked = [a for a in exchange.history_requests() if "interval" in a.query]
    assert len(asked) == 2
    exchange.asked.clear()
    again = await fetch(
        exchange, venue, tmp_path / "store", first, outage + DAY_MS, timeframes=(M3,)
    )
    assert exchange.history_requests() == []
    assert again[0].absent == candles.absent
    with MarketStore.open(tmp_path / "store") as store:
        gaps = store.describe().series[0].gaps
    assert [(gap.start_ms, gap.missing, gap.reason) for gap in gaps] == [(outage, 3, "outage")]


def _some(series: CandleSeries, kept: Any) -> CandleSeries:
    columns = {name: column[kept] for name, column in series.columns()}
    return CandleSeries.validated(series.timeframe, {"open_time_ms": series.times[kept], **columns})


@pytest.mark.parametrize("venue", VENUES)
async def test_fetched_candles_are_compared_with_those_of_other_timeframes(
    venue: str, exchange: FakeExchange, listing: Listing, tmp_path: Path
):
    """The store has 4h candles of another market, of three days; two of them are fetched in 3m."""
    first = START_MS + DAY_MS
    foreign = run_of_candles(18, H4, first)
    with MarketStore.open(tmp_path / "store", write=True, exchange=venue) as store:
        store.write("BTCUSDT", foreign, "a file", written_at_ms=0)
    fine, *_ = await fetch(
        exchange, venue, tmp_path / "store", first, first + 2 * DAY_MS, timeframes=(M3,)
    )
    (warning,) = fine.contradictions
    assert warning.startswith("4h: 12 of 12 candles differ from their 3m candles")
    alike = await fetch(exchange, venue, tmp_path / "alike", first, first + 2 * DAY_MS)
    assert [report.contradictions for report in alike] == [[]] * 4


@pytest.mark.parametrize("venue", VENUES)
async def test_what_is_missing_of_the_last_hour_may_only_be_late(
    venue: str, exchange: FakeExchange, listing: Listing, tmp_path: Path
):
    late = listing.candles[M3].known_at(NOW_MS - 12 * MINUTE_MS)
    exchange.market.listings["BTCUSDT"].candles = {**listing.candles, M3: late}
    first = NOW_MS - DAY_MS
    reports = await fetch(exchange, venue, tmp_path / "store", first, timeframes=(M3,))
    assert (reports[0].missing, reports[0].absent) == (4, [])
    exchange.market.listings["BTCUSDT"].candles = listing.candles
    reports = await fetch(exchange, venue, tmp_path / "store", first, timeframes=(M3,))
    assert (reports[0].missing, reports[0].write.added) == (0, 4)


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("seconds_after_close", [pytest.param(0, marks=pytest.mark.soak), 4, 6])
async def test_a_candle_is_taken_some_seconds_after_its_end_by_the_clock_of_the_venue(
    venue: str, seconds_after_close: int, exchange: FakeExchange, tmp_path: Path
):
    """The clock of this machine is years ahead of that of the exchange."""
    close_ms = M3.floor(NOW_MS)
    exchange.market.now_ms = close_ms + seconds_after_close * 1000
    await fetch(exchange, venue, tmp_path / "store", close_ms - HOUR_MS, timeframes=(M3,))
    with MarketStore.open(tmp_path / "store") as store:
        last = store.candles("BTCUSDT", M3)
    is_taken = seconds_after_close > 5
    assert last.times[-1] == close_ms - (1 if is_taken else 2) * M3.ms
    expected = exchange.market.listings["BTCUSDT"].candles[M3].between(last.times[-1], close_ms)
    assert last.close[-1] == expected.close[0]


@pytest.mark.parametrize(
    ("venue", "failures", "start_ms"),
    [
        ("bybit", 30, LATE_MS - 6 * DAY_MS),
        *(pytest.param(venue, 100, START_MS, marks=pytest.mark.soak) for venue in VENUES),
    ],
)
async def test_random_failures_end_in_the_same_store(
    venue: str, failures: int, start_ms: Millis, exchange: FakeExchange, tmp_path: Path
):
    await fetch(exchange, venue, tmp_path / "calm", start_ms)
    kinds = ("too_many_requests", "server_error", "bad_gateway", "damaged", "web_page",
             "disconnect", "cut_off", "wrong_shape", "null")  # fmt: skip
    if venue == "bybit":
        kinds += ("bybit_limit", "bybit_system_error")
    exchange.faults.at_random(failures, share=0.75, kinds=kinds, seed=5)
    pauses = Pauses()
    reports = await fetch(
        exchange, venue, tmp_path / "stormy", start_ms, pauses=pauses, max_attempts=100
    )
    while exchange.faults.left:
        shutil.rmtree(tmp_path / "stormy")
        reports = await fetch(
            exchange, venue, tmp_path / "stormy", start_ms, pauses=pauses, max_attempts=100
        )
    assert exchange.faults.happened == failures
    assert [report.error for report in reports] == [None] * 4
    # aiohttp itself repeats a request whose connection was closed before a reply.
    assert 0.8 * failures <= len(pauses) <= failures
    assert min(pauses) >= 0.5
    assert rows_of(tmp_path / "stormy") == rows_of(tmp_path / "calm")
    assert meta_of(tmp_path / "stormy", "absent:") == meta_of(tmp_path / "calm", "absent:")


async def test_the_wait_that_an_exchange_asks_for_is_kept(exchange: FakeExchange, tmp_path: Path):
    exchange.faults.add("too_many_requests", retry_after_s=37, path="klines")
    exchange.faults.add("banned", retry_after_s=120, path="klines")
    pauses = Pauses()
    reports = await fetch(exchange, "binance", tmp_path / "store", LATE_MS, pauses=pauses)
    assert [report.error for report in reports] == [None] * 4
    assert [round(pause) for pause in pauses] == [38, 120]


async def test_a_wait_without_a_number_is_a_long_one(exchange: FakeExchange, tmp_path: Path):
    exchange.faults.add("too_many_without_header", path="klines")
    pauses = Pauses()
    await fetch(exchange, "binance", tmp_path / "store", NOW_MS - DAY_MS, pauses=pauses)
    assert pauses == [30.5]


async def test_the_reset_of_bybits_limit_is_waited_for(exchange: FakeExchange, tmp_path: Path):
    exchange.faults.add("bybit_limit", retry_after_s=4, path="kline")
    exchange.faults.add("bybit_limit", retry_after_s=86_400, path="kline")
    pauses = Pauses()
    reports = await fetch(exchange, "bybit", tmp_path / "store", NOW_MS - DAY_MS, pauses=pauses)
    assert [report.error for report in reports] == [None] * 4
    assert pauses == [4.5, 10.5]


async def test_waits_grow_and_end(exchange: FakeExchange, tmp_path: Path):
    exchange.faults.add("server_error", times=8, path="klines")
    pauses = Pauses()
    candles, coarse, *_ = await fetch(
        exchange, "binance", tmp_path / "store", LATE_MS, pauses=pauses
    )
    assert "attempts: 8" in (candles.error or "")
    assert coarse.error is None
    assert len(pauses) == 7
    for number, pause in enumerate(pauses):
        assert 0.5 * 2**number <= pause <= 2**number


async def test_after_a_ban_of_hours_nothing_more_is_sent(exchange: FakeExchange, tmp_path: Path):
    exchange.faults.add("banned", retry_after_s=7200, path="klines")
    pauses = Pauses()
    reports = await fetch(exchange, "binance", tmp_path / "store", START_MS, pauses=pauses)
    assert pauses == []
    assert len(exchange.history_requests()) == 1
    until = iso8601((NOW_MS // 1000 + 7200) * 1000)
    for report in reports:
        assert f"for 120 minutes, until {until[:-4]}" in (report.error or "")


async def test_a_silent_exchange_counts_as_failed_after_the_timeout(
    exchange: FakeExchange, tmp_path: Path
):
    exchange.faults.add("silence", path="kline")
    reports = await fetch(exchange, "bybit", tmp_path / "store", NOW_MS - DAY_MS, timeout_s=0.3)
    assert [report.error for report in reports] == [None] * 4
    exchange.faults.add("silence", times=2, path="kline")
    shutil.rmtree(tmp_path / "store")
    reports = await fetch(
        exchange, "bybit", tmp_path / "store", NOW_MS - DAY_MS, timeout_s=0.3, max_attempts=2
    )
    assert "no answer within 0.3 s" in (reports[0].error or "")


async def test_a_refused_country_is_told_at_once(exchange: FakeExchange, tmp_path: Path):
    exchange.faults.add("refused_country", path="time")
    with pytest.raises(ExchangeError, match=r"refuses.*451.*restricted location"):
        await fetch(exchange, "binance", tmp_path / "store", START_MS)
    assert len(exchange.asked) == 1
    exchange.faults.add("refused_country", path="klines")
    reports = await fetch(exchange, "binance", tmp_path / "store", START_MS)
    assert all("restricted location" in (report.error or "") for report in reports)
    assert len(exchange.history_requests()) == 1


@pytest.mark.parametrize("venue", BYBIT_QUICKLY)
async def test_bad_rows_are_refused_and_asked_for_again(
    venue: str, exchange: FakeExchange, listing: Listing, tmp_path: Path
):
    first = LATE_MS + DAY_MS
    altered = exchange.market.listings["BTCUSDT"].altered
    altered[M3, first] = ("100", "90", "95", "98", "1")
    altered[M3, first + M3.ms] = ("-1", "90", "-1", "80", "1")
    reports = await fetch(exchange, venue, tmp_path / "store", first, timeframes=(M3,))
    assert reports[0].refused == {"high below low": 1, "price not positive": 1}
    assert reports[0].missing == 2
    with MarketStore.open(tmp_path / "store") as store:
        assert store.refused_rows(candles_of("BTCUSDT", M3)) == [
            (first, first + M3.ms, "high below low"),
            (first + M3.ms, first + 2 * M3.ms, "price not positive"),
        ]
    altered.clear()
    exchange.asked.clear()
    reports = await fetch(exchange, venue, tmp_path / "store", first, timeframes=(M3,))
    assert len(exchange.history_requests()) == 1
    assert (reports[0].write.added, reports[0].missing) == (2, 0)


@pytest.mark.parametrize("venue", VENUES)
async def test_values_that_are_no_numbers_fail_the_series_and_nothing_is_believed(
    venue: str, exchange: FakeExchange, tmp_path: Path
):
    exchange.market.listings["BTCUSDT"].altered[M3, LATE_MS + DAY_MS] = ("1", "x", "1", "1", "1")
    reports = await fetch(
        exchange, venue, tmp_path / "store", LATE_MS + DAY_MS, timeframes=(M3, H4)
    )
    assert "damaged" in (reports[0].error or "")
    assert reports[0].absent == []
    assert [report.error for report in reports[1:]] == [None] * 3


@pytest.mark.parametrize("venue", BYBIT_QUICKLY)
async def test_symbols_that_begin_and_end_within_the_span(venue: str, tmp_path: Path):
    late = make_listing("ETHUSDT", start_ms=LATE_MS)
    gone = make_listing("SOLUSDT", start_ms=LATE_MS, ended_ms=LATE_MS + 2 * DAY_MS)
    with FakeExchange([late, gone], NOW_MS) as exchange:
        reports = await fetch(
            exchange,
            venue,
            tmp_path / "store",
            LATE_MS - 60 * DAY_MS,
            symbols=("ETHUSDT", "SOLUSDT"),
            timeframes=(M3,),
        )
        assert [report.error for report in reports] == [None] * 6
        assert all("not traded any more" in r.notes[0] for r in reports if r.symbol == "SOLUSDT")
        exchange.asked.clear()
        await fetch(
            exchange,
            venue,
            tmp_path / "store",
            LATE_MS - 60 * DAY_MS,
            symbols=("ETHUSDT", "SOLUSDT"),
            timeframes=(M3,),
        )
        # Simulated open interest has an hour between samples, where Binance publishes 5 minutes.
        assert [a for a in exchange.history_requests() if "period" not in a.query] == []
    with MarketStore.open(tmp_path / "store") as store:
        for item in (late, gone):
            stored = store.candles(item.symbol, M3)
            np.testing.assert_array_equal(stored.times, item.candles[M3].known_at(NOW_MS).times)
        assert store.absent_spans(candles_of("ETHUSDT", M3))[0].end_ms == LATE_MS


async def test_open_interest_of_binance_reaches_back_thirty_days_and_says_so(
    exchange: FakeExchange, tmp_path: Path
):
    *_, interest = await fetch(exchange, "binance", tmp_path / "store", START_MS, timeframes=(H4,))
    assert interest.error is None
    assert "last 30 days only" in interest.notes[0]
    assert "llm-trader data archive" in interest.notes[0]


async def test_open_interest_of_two_exchanges_is_not_mixed(
    exchange: FakeExchange, listing: Listing, tmp_path: Path
):
    source = "file more/bybit_linear_BTCUSDT_open_interest_1h.parquet, times shifted by +1h"
    theirs = published_interest("bybit", listing).between(None, NOW_MS - 5 * DAY_MS)
    with MarketStore.open(tmp_path, write=True, exchange="binance") as store:
        store.write("BTCUSDT", theirs, source, written_at_ms=0)
    *others, interest = await fetch(exchange, "binance", tmp_path, NOW_MS - 6 * DAY_MS)
    assert all(report.rows for report in others)
    assert interest.rows == 0
    assert "bybit_linear_BTCUSDT_open_interest_1h.parquet" in interest.notes[0]
    with MarketStore.open(tmp_path) as store:
        assert len(store.open_interest("BTCUSDT")) == len(theirs)


@pytest.mark.parametrize("venue", VENUES)
async def test_open_interest_of_zero_beside_positive_values_is_unknown(
    venue: str, exchange: FakeExchange, listing: Listing, tmp_path: Path
):
    values = listing.open_interest.open_interest.copy()
    blank = listing.open_interest.times == NOW_MS - NOW_MS % HOUR_MS - 5 * HOUR_MS
    values[blank] = 0
    exchange.market.listings["BTCUSDT"].open_interest = OpenInterestSeries.validated(
        {
            "time_ms": listing.open_interest.times,
            "open_interest": values,
            "open_interest_value": listing.open_interest.open_interest_value,
        }
    )
    *_, interest = await fetch(exchange, venue, tmp_path / "store", NOW_MS - DAY_MS)
    assert interest.left_out == {"open interest of 0 beside positive values, so unknown": 1}
    with MarketStore.open(tmp_path / "store") as store:
        assert (store.open_interest("BTCUSDT").open_interest > 0).all()


@pytest.mark.parametrize("venue", BYBIT_QUICKLY)
@pytest.mark.parametrize("name", ["BTCUSDT", "btc-usdt", "BTC/USDT:USDT", "BTC_USDT", "BTC/USDT"])
async def test_a_symbol_is_found_however_it_is_written(
    venue: str, name: str, exchange: FakeExchange, tmp_path: Path
):
    reports = await fetch(
        exchange, venue, tmp_path / "s", NOW_MS - DAY_MS, symbols=(name,), timeframes=(H4,)
    )
    assert {report.symbol for report in reports} == {"BTCUSDT"}


@pytest.mark.parametrize("venue", VENUES)
async def test_an_unknown_symbol_is_refused_with_the_nearest(
    venue: str, exchange: FakeExchange, tmp_path: Path
):
    with pytest.raises(InvalidInputError, match=r"lists no .* 'BTCUSD' \(near are BTCUSDT\)"):
        await fetch(exchange, venue, tmp_path / "s", START_MS, symbols=("BTCUSDT", "BTCUSD"))


async def test_contracts_are_listed_over_pages(tmp_path: Path):
    names = [f"A{i}USDT" for i in range(25)]
    base = make_listing()
    listings = [replace(base, symbol=name, base=name.removesuffix("USDT")) for name in names]
    with FakeExchange(listings, NOW_MS) as exchange:
        exchange.market.instruments_of_a_page = 10
        venue = venue_of(exchange, "bybit")
        try:
            assert [item.symbol for item in await venue.instruments()] == names
        finally:
            await venue.close()
