"""`llm-trader data check` and its `--repair`, against the fake exchange and the fake archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.market.archive import download
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M3, iso8601, parse_time
from tests.cli.conftest import Typing
from tests.exchange.listings import Listing, listing_of
from tests.exchange.server import FakeExchange
from tests.exchange.stores import rows_of
from tests.market.archive_server import SYMBOL, kline_text, market, serving, tree, zipped
from tests.market.builders import START_MS

pytest.importorskip("ccxt")

DAYS = 24
NOW_MS = START_MS + DAYS * DAY_MS - 100_000
HOLE_MS = START_MS + 22 * DAY_MS
HOLE_CANDLES = 20
LINE = "llm-trader data check"


@pytest.fixture(scope="module")
def listing() -> Listing:
    return listing_of(simulate("BTCUSDT", start_ms=START_MS, days=DAYS, seed=4))


@pytest.fixture
def exchange(listing: Listing, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeExchange]:
    with FakeExchange([listing], NOW_MS) as running:
        for name, value in running.environ().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LLM_TRADER_MARKET__EXCHANGE__MAX_ATTEMPTS", "1")
        yield running


def some(series: CandleSeries, first_ms: int, count: int) -> CandleSeries:
    """All but some candles."""
    times = series.times
    kept = (times < first_ms) | (times >= first_ms + count * series.timeframe.ms)
    columns = {name: column[kept] for name, column in series.columns()}
    return CandleSeries.validated(series.timeframe, {"open_time_ms": times[kept], **columns})


def hourly(listing: Listing, until_ms: int) -> OpenInterestSeries:
    interest = listing.open_interest.between(None, until_ms)
    columns = {
        "open_interest": interest.open_interest.copy(),
        "open_interest_value": np.full(len(interest), np.nan),
    }
    return OpenInterestSeries.validated({"time_ms": interest.times, **columns})


def write_store(
    folder: Path,
    listing: Listing,
    *,
    hole: bool = True,
    interest: OpenInterestSeries | None = None,
    funding: FundingSeries | None = None,
) -> None:
    intraday, coarse = (listing.candles[t].known_at(NOW_MS) for t in (M3, H4))
    with MarketStore.open(folder, write=True, exchange="bybit") as store:
        fine = some(intraday, HOLE_MS, HOLE_CANDLES) if hole else intraday
        for series in (
            fine,
            coarse,
            funding or listing.funding.between(None, NOW_MS),
            interest or hourly(listing, NOW_MS),
        ):
            store.write("BTCUSDT", series, "a file", written_at_ms=0)


def found(typed: Typing, store: Path) -> dict[str, dict[str, object]]:
    report = typed(f"{LINE} --json --store", store).json
    return {f"{f['series']} {f['problem']}": f for f in report["findings"]}


def test_a_repair_asks_for_the_gap_alone_and_the_store_is_whole(
    exchange: FakeExchange, listing: Listing, typed: Typing, tmp_path: Path
):
    write_store(tmp_path / "whole", listing, hole=False)
    write_store(tmp_path / "store", listing)
    before = typed(LINE, "--store", tmp_path / "store")
    assert before.code == 1
    assert "BTCUSDT candles 3m: 20 candles are missing in 1 gaps, not fetched" in before.out
    finding = found(typed, tmp_path / "store")["candles 3m not_fetched"]
    assert (finding["count"], finding["wrong"]) == (HOLE_CANDLES, True)
    assert finding["first"] == iso8601(HOLE_MS)
    assert str(tmp_path / "store") in str(finding["remedy"])

    repaired = typed(f"{LINE} --repair --store", tmp_path / "store")

    assert (repaired.code, repaired.err) == (0, ""), repaired.out
    assert "BTCUSDT 3m: 20 rows added and 0 replaced, from the exchange" in repaired.out
    (asked,) = exchange.history_requests()
    span = int(asked.query["start"]), int(asked.query["end"])
    assert span == (HOLE_MS, HOLE_MS + HOLE_CANDLES * M3.ms - 1)
    assert rows_of(tmp_path / "store") == rows_of(tmp_path / "whole")
    exchange.asked.clear()
    assert typed(f"{LINE} --repair --store", tmp_path / "store").code == 0
    assert exchange.asked == []


def test_an_outage_is_a_note_and_is_asked_for_again_by_a_repair(
    exchange: FakeExchange, listing: Listing, typed: Typing, tmp_path: Path
):
    write_store(tmp_path, listing)
    exchange.market.listings["BTCUSDT"] = out = listing_of(
        simulate("BTCUSDT", start_ms=START_MS, days=DAYS, seed=4)
    )
    out.candles[M3] = some(listing.candles[M3], HOLE_MS, HOLE_CANDLES)
    repaired = typed(f"{LINE} --repair --store", tmp_path)
    assert repaired.code == 0
    assert "20 candles are missing in 1 gaps, the exchange has none of them" in repaired.out
    finding = found(typed, tmp_path)["candles 3m outage"]
    assert (finding["count"], finding["wrong"], finding["remedy"]) == (HOLE_CANDLES, False, None)
    info = typed("llm-trader data info --store", tmp_path).out
    assert "of which the exchange has none" in info

    exchange.market.listings["BTCUSDT"] = listing  # it has filled them in since
    assert typed(f"{LINE} --repair --store", tmp_path).code == 0
    assert not [name for name in found(typed, tmp_path) if name.startswith("candles 3m")]


def test_rows_that_the_exchange_sends_wrong_stay_rejected_and_are_wrong(
    exchange: FakeExchange, listing: Listing, typed: Typing, tmp_path: Path
):
    write_store(tmp_path, listing)
    listing.altered[M3, HOLE_MS + M3.ms] = ("100", "90", "95", "98", "1")
    try:
        repaired = typed(f"{LINE} --repair --store", tmp_path)
    finally:
        listing.altered.clear()
    assert repaired.code == 1
    assert "1 candles are missing in 1 gaps, those that came were refused" in repaired.out
    assert found(typed, tmp_path)["candles 3m rejected"]["first_ms"] == HOLE_MS + M3.ms
    assert typed(f"{LINE} --repair --store", tmp_path).code == 0


def test_samples_that_stopped_or_are_zero_are_named_and_fetched(
    exchange: FakeExchange, listing: Listing, typed: Typing, tmp_path: Path
):
    interest = hourly(listing, NOW_MS - 9 * HOUR_MS)
    interest.open_interest[100:103] = 0
    funding = listing.funding.between(None, NOW_MS - 20 * HOUR_MS)
    write_store(tmp_path, listing, hole=False, interest=interest, funding=funding)
    findings = found(typed, tmp_path)
    zeros = findings["open interest zeros"]
    assert (zeros["count"], zeros["first_ms"]) == (3, int(interest.times[100]))
    assert zeros["last_ms"] == int(interest.times[102])
    assert findings["open interest stopped"]["count"] == 9
    assert findings["funding stopped"]["count"] == 2
    shown = typed(f"{LINE} --store", tmp_path)
    assert shown.code == 1
    assert f"stopped at {iso8601(int(funding.times[-1]))}" in shown.out

    assert typed(f"{LINE} --repair --store", tmp_path).code == 0

    assert {a.path for a in exchange.history_requests()} == {
        "/v5/market/open-interest",
        "/v5/market/funding/history",
    }
    with MarketStore.open(tmp_path) as store:
        whole = hourly(listing, NOW_MS)
        np.testing.assert_array_equal(store.open_interest("BTCUSDT").times, whole.times)
        np.testing.assert_array_equal(
            store.open_interest("BTCUSDT").open_interest, whole.open_interest
        )


def test_a_sample_may_come_as_late_as_its_interval_allows(
    exchange: FakeExchange, listing: Listing, typed: Typing, tmp_path: Path
):
    funding = listing.funding.between(None, NOW_MS)
    assert NOW_MS - int(funding.times[-1]) > 7 * HOUR_MS
    write_store(tmp_path, listing, hole=False, interest=hourly(listing, NOW_MS - HOUR_MS))
    assert typed(f"{LINE} --store", tmp_path).code == 0


def test_the_states_that_a_repair_made_out_of_date_are_those_that_rag_ingest_makes_again(
    exchange: FakeExchange, listing: Listing, typed: Typing, tmp_path: Path
):
    store, index = tmp_path / "store", tmp_path / "index"
    write_store(store, listing)
    ingest = f"rag-ingest --store {store} --index {index} --start 30 --json"
    assert typed(ingest).code == 0

    repaired = typed(f"{LINE} --repair --store {store} --index {index} --json").json

    (outdated,) = repaired["outdated"]
    assert (outdated["symbol"], repaired["index_note"]) == ("BTCUSDT", None)
    again = typed(ingest).json
    assert outdated["points"] > 0
    assert [report["remade"] for report in again] == [outdated["points"]]
    assert typed(f"{LINE} --repair --store {store} --index {index} --json").json["outdated"] == []


def test_without_a_network_it_says_so_and_keeps_what_it_could_repair(
    listing: Listing, typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_store(tmp_path, listing)
    monkeypatch.setenv("LLM_TRADER_MARKET__EXCHANGE__BYBIT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LLM_TRADER_MARKET__EXCHANGE__MAX_ATTEMPTS", "1")
    shown = typed(f"{LINE} --repair --store", tmp_path)
    assert shown.code == 1
    assert "not repaired: bybit" in shown.out
    assert "check the network" in shown.out
    assert "20 candles are missing in 1 gaps, not fetched" in shown.out


def test_gaps_of_a_store_whose_exchange_cannot_be_asked_are_notes(typed: Typing, tmp_path: Path):
    series = simulate("BTCUSDT", start_ms=START_MS, days=2, seed=4).intraday
    with MarketStore.open(tmp_path, write=True, exchange="okx") as store:
        store.write("BTCUSDT", some(series, START_MS + DAY_MS, 5), "a file", written_at_ms=0)
    shown = typed(f"{LINE} --repair --store", tmp_path)
    assert (shown.code, shown.err) == (0, "")
    assert "noted, and not wrong:" in shown.out
    assert "5 candles are missing in 1 gaps, not fetched" in shown.out


def test_a_repair_stores_the_files_that_the_archive_has_corrected_and_asks_for_no_others(
    typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    history = market()
    path = f"monthly/klines/{SYMBOL}/4h/{SYMBOL}-4h-2024-12.zip"
    december = history.four_hour.between(parse_time("2024-12-01"), parse_time("2025-01-01"))
    volume = december.volume.copy()
    volume[7] += 1
    corrected = kline_text(replace(december, volume=volume), header=True, microseconds=False)
    with serving(tree(history)) as archive:
        monkeypatch.setenv("LLM_TRADER_MARKET__ARCHIVE__URL", archive.url)
        line = f"llm-trader data archive --symbols {SYMBOL} --start 2024-12-01 --end 2025-01-01"
        assert typed(f"{line} --store", tmp_path).code == 0
        archive.files[path] = zipped(path.rpartition("/")[2], corrected)
        archive.bodies.clear()
        repaired = typed(f"{LINE} --repair --store", tmp_path)
        assert repaired.code == 0, repaired.out
        assert f"{SYMBOL} candles 4h: 1 corrected files stored, from the archive" in repaired.out
        assert dict(archive.bodies) == {path: 1}
    with MarketStore.open(tmp_path) as store:
        stored = store.candles(SYMBOL, H4, int(december.times[0]), int(december.times[-1]) + 1)
        np.testing.assert_array_equal(stored.volume, volume)
    monkeypatch.setattr(download, "_FIRST_WAIT_SECONDS", 0.01)
    shown = typed(f"{LINE} --repair --store", tmp_path)  # the archive is gone
    assert shown.code == 1
    assert "not repaired: the archive at 127.0.0.1" in shown.out
