from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import (
    ConfigurationError,
    InvalidDataError,
    InvalidInputError,
    StoreError,
)
from llm_trader.market import candles as candles_module
from llm_trader.market import record_ranges
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.market.value_codecs import WriteReport
from llm_trader.timeframe import H1, H4, HOUR_MS, M3, M5, MINUTE_MS
from tests.market.builders import START_MS, candles_at, no_candles, run_of_candles, same_series
from tests.market.drawn_series import any_candles, any_funding, any_open_interest
from tests.market.processes import hear, running, tell

AT = 1_767_225_600_000


@contextmanager
def fresh_store() -> Iterator[MarketStore]:
    with (
        tempfile.TemporaryDirectory() as folder,
        MarketStore.open(Path(folder), write=True, exchange="bybit") as store,
    ):
        yield store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(tmp_path / "store", write=True, exchange="bybit") as opened:
        yield opened


def put_raw(path: Path, database: str, records: dict[str, bytes]) -> None:
    with (
        lmdb.open(str(path), max_dbs=16, map_size=2**24) as environment,
        environment.begin(write=True) as txn,
    ):
        into = environment.open_db(database.encode(), txn=txn)
        for key, value in records.items():
            txn.put(key.encode(), value, db=into)


def candle_json(**changes: Any) -> bytes:
    return json.dumps(
        {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 3.0} | changes
    ).encode()


@given(any_candles(), any_funding(), any_open_interest())
def test_what_was_written_reads_back_to_the_last_bit(
    candles: CandleSeries, funding: FundingSeries, interest: OpenInterestSeries
) -> None:
    with fresh_store() as store:
        store.write("BTCUSDT", candles, "drawn", written_at_ms=AT)
        store.write("BTCUSDT", funding, "drawn", written_at_ms=AT)
        store.write("BTCUSDT", interest, "drawn", written_at_ms=AT)

        assert same_series(store.candles("BTCUSDT", M3), candles)
        assert same_series(store.funding("BTCUSDT"), funding)
        assert same_series(store.open_interest("BTCUSDT"), interest)
        assert store.gaps("BTCUSDT", M3) == candles.gaps()


bounds = st.none() | st.integers(-10, 40) | st.sampled_from([-(10**9), 10**9])


@given(any_candles(), bounds, bounds)
def test_a_range_read_equals_filtering_afterwards(
    candles: CandleSeries, first: int | None, last: int | None
) -> None:
    start = None if first is None else START_MS + first * M3.ms
    end = None if last is None else START_MS + last * M3.ms
    with fresh_store() as store:
        for symbol in ("BTCUSDT", "BTCUSD", "BTCUSDT1"):
            store.write(symbol, candles, "drawn", written_at_ms=AT)

        found = store.candles("BTCUSDT", M3, start, end)

    expected = candles.between(start, end) if start is None or end is None or start < end else None
    assert same_series(found, expected or no_candles(M3))


def test_symbols_and_timeframes_are_found_without_mixing_up_prefixes(store: MarketStore) -> None:
    for symbol in ("BTCUSDT", "BTC", "1000PEPEUSDT", "BTCUSDTX"):
        store.write(symbol, run_of_candles(3), "made", written_at_ms=AT)
    store.write("BTC", run_of_candles(5, H4), "made", written_at_ms=AT)
    store.write("BTC", run_of_candles(5, M5), "made", written_at_ms=AT)

    assert store.symbols() == ["1000PEPEUSDT", "BTC", "BTCUSDT", "BTCUSDTX"]
    assert store.timeframes("BTC") == [M3, M5, H4]
    assert store.timeframes("BTCUSDT") == [M3]
    assert store.timeframes("BTCUSD") == []


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTC", "ZZZ"])
def test_the_first_and_the_last_time_are_the_symbol_s_own(store: MarketStore, symbol: str) -> None:
    for count, other in enumerate(("BTC", "BTCUSDT", "ZZZ"), start=2):
        store.write(other, run_of_candles(count), "made", written_at_ms=AT)

    first, expected = store.candles(symbol, M3).open_time_ms[[0, -1]].tolist()

    assert store.first_and_last_ms(symbol, M3) == (first, expected)
    assert store.first_and_last_ms("BTCUSD", M3) is None
    assert store.first_and_last_ms(symbol, H4) is None


def test_finer_samples_do_not_make_the_older_coarser_ones_stale(store: MarketStore) -> None:
    hourly, then_5m = (
        OpenInterestSeries.validated(
            {
                "time_ms": [start + i * step for i in range(30)],
                "open_interest": [5.0] * 30,
                "open_interest_value": [np.nan] * 30,
            }
        )
        for start, step in ((START_MS, HOUR_MS), (START_MS + 40 * HOUR_MS, 5 * MINUTE_MS))
    )
    at = {"written_at_ms": AT}
    store.write("DDD", hourly, "hourly", interval_ms=HOUR_MS, **at)
    store.write("DDD", then_5m, "5m", interval_ms=5 * MINUTE_MS, **at)
    assert store.open_interest_interval_ms("DDD") == HOUR_MS


@pytest.mark.parametrize("symbol", ["", "B", "btcusdt", "BTC:USDT", "BTC/USDT", "A" * 21, "ÄÄÄ"])
def test_a_malformed_symbol_is_refused(store: MarketStore, symbol: str) -> None:
    for read in (store.timeframes, store.funding, store.open_interest):
        with pytest.raises(InvalidInputError, match="capital letters"):
            read(symbol)
    with pytest.raises(InvalidInputError):
        store.write(symbol, run_of_candles(3), "made", written_at_ms=AT)


def test_a_symbol_that_is_not_there_reads_as_empty(store: MarketStore) -> None:
    history = store.stored_history("BTCUSDT", M3).decode()

    assert [len(history.intraday), len(history.four_hour), len(history.funding)] == [0, 0, 0]
    assert history.open_interest_interval_ms == HOUR_MS


def test_a_write_reports_what_it_added_replaced_and_left(store: MarketStore) -> None:
    def write(series: CandleSeries) -> WriteReport:
        return store.write("BTCUSDT", series, "made", written_at_ms=AT)

    first = run_of_candles(10)
    changed = candles_at(first.open_time_ms[5:].tolist(), seed=1)

    assert write(first) == WriteReport(added=10)
    version = store.version
    assert write(first) == WriteReport(unchanged=10)
    assert store.version == version, "nothing changed, so nothing was committed"
    assert write(changed) == WriteReport(replaced=5)
    assert write(run_of_candles(12, start_ms=START_MS)).added == 2
    assert store.version > version


def test_provenance_has_one_entry_per_source(store: MarketStore) -> None:
    for source, start in (("a", 0), ("b", 10), ("a", 20)):
        series = run_of_candles(5, start_ms=START_MS + start * M3.ms)
        store.write("BTCUSDT", series, source, written_at_ms=AT + start)

    b, a = store.provenance("BTCUSDT", M3)

    assert (b.source, b.rows, b.written_at_ms) == ("b", 5, AT + 10)
    assert (a.source, a.rows, a.written_at_ms) == ("a", 10, AT + 20)
    assert (a.first_ms, a.last_ms) == (START_MS, START_MS + 24 * M3.ms)


def test_filling_a_gap_takes_it_off_the_ledger(store: MarketStore) -> None:
    whole = run_of_candles(10)
    for part in (slice(0, 3), slice(6, 10)):
        store.write("BTCUSDT", whole.rows(part), "made", written_at_ms=AT)
    before = store.gaps("BTCUSDT", M3)

    store.write("BTCUSDT", whole.rows(slice(3, 6)), "made", written_at_ms=AT)

    assert [gap.missing for gap in before] == [3]
    assert store.gaps("BTCUSDT", M3) == []


def test_refused_candles_leave_the_store_as_it_was(store: MarketStore) -> None:
    good = run_of_candles(5)
    bad = CandleSeries(
        M3, good.open_time_ms, good.open, good.low, good.high, good.close, good.volume
    )
    version = store.version

    with pytest.raises(InvalidDataError, match="high below low"):
        store.write("BTCUSDT", bad, "made", written_at_ms=AT)

    assert store.version == version
    assert store.symbols() == []


def test_a_candle_is_validated_once_on_its_way_in(
    store: MarketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    check = candles_module._refusals

    def counting(*arguments: Any) -> Any:
        calls.append(len(arguments[0]))
        return check(*arguments)

    monkeypatch.setattr(candles_module, "_refusals", counting)
    series = run_of_candles(10)
    store.write("BTCUSDT", series, "made", written_at_ms=AT)
    store.write("BTCUSDT", series.rows(slice(2, 5)), "made", written_at_ms=AT)
    assert calls == [10]

    altered = replace(series, high=series.low, low=series.high)
    with pytest.raises(InvalidDataError, match="high below low"):
        store.write("BTCUSDT", altered, "made", written_at_ms=AT)
    assert calls == [10, 10]


def test_the_description_names_every_series_with_extent_gaps_and_origin(
    store: MarketStore,
) -> None:
    holed = candles_at([START_MS, START_MS + 3 * M3.ms])
    store.write("BTCUSDT", holed, "made", written_at_ms=AT)
    funding = FundingSeries.validated(
        {"time_ms": [START_MS], "rate": [0.0001], "interval_hours": [8.0]}
    )
    store.write("ETHUSDT", funding, "made", written_at_ms=AT)

    described = json.loads(msgspec.json.encode(store.describe()))

    assert (described["exchange"], described["schema_version"]) == ("bybit", 1)
    candles, settled = described["series"]
    assert (candles["kind"], candles["symbol"], candles["timeframe"]) == (
        "candles",
        "BTCUSDT",
        "3m",
    )
    assert (candles["rows"], candles["missing"]) == (2, 2)
    assert (candles["first"], candles["last"]) == ("2024-01-01T00:00:00Z", "2024-01-01T00:09:00Z")
    assert candles["gaps"][0]["start"] == "2024-01-01T00:03:00Z"
    assert candles["provenance"][0]["source"] == "made"
    assert (settled["kind"], settled["timeframe"], settled["gaps"]) == ("funding", None, [])


def interest_every(step_ms: int) -> OpenInterestSeries:
    return OpenInterestSeries.validated(
        {
            "time_ms": START_MS + step_ms * np.arange(5),
            "open_interest": np.ones(5),
            "open_interest_value": np.ones(5),
        }
    )


def test_the_interval_of_open_interest_is_as_recorded_or_as_observed(store: MarketStore) -> None:
    each_5m = interest_every(5 * MINUTE_MS)
    store.write("AAA", each_5m, "made", written_at_ms=AT)
    store.write("BBB", each_5m, "made", written_at_ms=AT, interval_ms=HOUR_MS)

    assert store.open_interest_interval_ms("AAA") == 5 * MINUTE_MS
    assert store.open_interest_interval_ms("BBB") == HOUR_MS
    assert store.open_interest_interval_ms("CCC") == HOUR_MS


def test_history_brings_the_four_series_of_a_range(store: MarketStore) -> None:
    store.write("BTCUSDT", run_of_candles(200), "made", written_at_ms=AT)
    store.write("BTCUSDT", run_of_candles(10, H4), "made", written_at_ms=AT)
    store.write("BTCUSDT", interest_every(HOUR_MS), "made", written_at_ms=AT)

    history = store.stored_history(
        "BTCUSDT", M3, START_MS + HOUR_MS, START_MS + 8 * HOUR_MS
    ).decode()

    assert same_series(history.intraday, run_of_candles(200).rows(slice(20, 160)))
    assert same_series(history.four_hour, run_of_candles(10, H4).rows(slice(1, 2)))
    assert len(history.open_interest) == 4
    assert history.symbol == "BTCUSDT"


# ---- damage, and what is no store


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"not json", "malformed"),
        (b"", "truncated"),
        (candle_json(open=None), "float"),
        (b"{}", "missing required field"),
        (candle_json() + b"," + candle_json(), "trailing"),
        (candle_json(high=0.1), "high below low"),
    ],
)
def test_a_damaged_value_is_named_by_database_and_key(
    tmp_path: Path, value: bytes, told: str
) -> None:
    keys = [f"BTCUSDT:{START_MS + i * M3.ms}" for i in range(9)]
    put_raw(tmp_path, "candles_3m", {key: candle_json() for key in keys} | {keys[6]: value})

    with MarketStore.open(tmp_path) as store, pytest.raises(StoreError) as damage:
        store.candles("BTCUSDT", M3)

    assert "candles_3m" in str(damage.value)
    assert keys[6] in str(damage.value)
    assert told in str(damage.value)


def test_writing_a_damaged_span_again_heals_it(tmp_path: Path) -> None:
    put_raw(tmp_path, "candles_3m", {f"BTCUSDT:{START_MS}": b"not json"})

    with MarketStore.open(tmp_path, write=True) as store:
        report = store.write("BTCUSDT", run_of_candles(2), "made", written_at_ms=AT)

        assert report == WriteReport(added=1, replaced=1)
        assert same_series(store.candles("BTCUSDT", M3), run_of_candles(2))


def test_a_key_without_a_time_is_named(tmp_path: Path) -> None:
    put_raw(tmp_path, "candles_3m", {"BTCUSDT:17": candle_json()})

    with MarketStore.open(tmp_path) as store, pytest.raises(StoreError, match="BTCUSDT:17"):
        store.candles("BTCUSDT", M3)


def test_reading_where_no_store_is_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no store")
    put_raw(tmp_path / "other", "vectors", {"a": b"b"})

    for path in (tmp_path / "missing", tmp_path, tmp_path / "notes.txt", tmp_path / "other"):
        with pytest.raises(StoreError, match="llm-trader data import"):
            MarketStore.open(path)
    assert not (tmp_path / "missing").exists()


def test_another_program_s_environment_is_not_written_to(tmp_path: Path) -> None:
    put_raw(tmp_path, "vectors", {"a": b"b"})

    with pytest.raises(StoreError, match="no market store"):
        MarketStore.open(tmp_path, write=True)


def test_a_file_that_is_no_lmdb_store_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"junk" * 5000)

    with pytest.raises(StoreError, match="import the data into a new folder"):
        MarketStore.open(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    MarketStore.open(tmp_path, write=True, exchange="bybit").close()
    put_raw(tmp_path, "meta", {"schema_version": b"99"})

    for write in (False, True):
        with pytest.raises(StoreError, match="upgrade"):
            MarketStore.open(tmp_path, write=write)


# ---- who may open it


def test_a_store_belongs_to_one_exchange(tmp_path: Path) -> None:
    MarketStore.open(tmp_path, write=True, exchange="okx").close()  # nothing written: no claim
    with MarketStore.open(tmp_path, write=True, exchange="bybit") as store:
        assert store.exchange == "bybit"
        store.write("BTCUSDT", run_of_candles(2), "made", written_at_ms=AT)

    with pytest.raises(ConfigurationError, match="bybit, not of binance"):
        MarketStore.open(tmp_path, write=True, exchange="binance")
    with MarketStore.open(tmp_path, write=True) as store:
        assert store.exchange == "bybit"


def test_two_processes_cannot_both_claim_a_blank_store(tmp_path: Path) -> None:
    program = """
from llm_trader.errors import ConfigurationError
with MarketStore.open(path, write=True, exchange="binance") as store:
    say("open")
    wait()
    try:
        store.write("ETHUSDT", run_of_candles(2), "made", written_at_ms=START_MS)
    except ConfigurationError as error:
        say(error)
"""
    with (
        MarketStore.open(tmp_path, write=True, exchange="bybit") as store,
        running(program, tmp_path) as other,
    ):
        assert hear(other) == "open"
        store.write("BTCUSDT", run_of_candles(2), "made", written_at_ms=AT)
        tell(other)
        assert "the store holds data of bybit, not of binance" in hear(other)


def test_a_writer_refuses_another_exchange_s_store_that_replaced_its_own(tmp_path: Path) -> None:
    for name, exchange in (("live", "bybit"), ("other", "okx"), ("restored", "bybit")):
        with MarketStore.open(tmp_path / name, write=True, exchange=exchange) as store:
            store.write("BTCUSDT", run_of_candles(2), "made", written_at_ms=AT)

    live = tmp_path / "live"
    with MarketStore.open(live, write=True, exchange="bybit") as store:
        version = store.symbol_version("BTCUSDT")
        live.rename(tmp_path / "before")
        (tmp_path / "other").rename(live)
        with pytest.raises(ConfigurationError, match="okx, not of bybit"):
            store.write("BTCUSDT", run_of_candles(3), "made", written_at_ms=AT)
        live.rename(tmp_path / "after")
        (tmp_path / "restored").rename(live)
        store.write("BTCUSDT", run_of_candles(3), "made", written_at_ms=AT)
        assert store.symbol_version("BTCUSDT") != version

    with MarketStore.open(live) as store:
        assert len(store.candles("BTCUSDT", M3)) == 3


def test_one_process_opens_a_store_once(tmp_path: Path) -> None:
    with MarketStore.open(tmp_path, write=True) as _:
        for write in (False, True):
            with pytest.raises(StoreError, match="already open"):
                MarketStore.open(tmp_path, write=write)

    with MarketStore.open(tmp_path) as reader:
        with pytest.raises(StoreError, match="already open"):
            MarketStore.open(tmp_path, write=True)
        with pytest.raises(StoreError, match="opened for reading"):
            reader.write("BTCUSDT", run_of_candles(2), "made", written_at_ms=AT)
    MarketStore.open(tmp_path, write=True).close()


def test_a_closed_store_says_so_and_closes_again(tmp_path: Path) -> None:
    store = MarketStore.open(tmp_path, write=True)
    store.close()
    store.close()

    with pytest.raises(StoreError, match="closed"):
        store.symbols()


def test_two_processes_write_to_one_store_at_the_same_time_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    appends = """
with MarketStore.open(path, write=True) as store:
    say("open")
    wait()
    for row in range(200):
        candle = run_of_candles(300).rows(slice(row, row + 1))
        store.write("BTCUSDT", candle, "live", written_at_ms=START_MS)
say("done")
"""
    with MarketStore.open(tmp_path, write=True) as store, running(appends, tmp_path) as collector:
        assert hear(collector) == "open"
        tell(collector)
        for row in range(200, 300, 10):
            part = run_of_candles(300).rows(slice(row, row + 10))
            store.write("BTCUSDT", part, "file", written_at_ms=AT)
            store.write("ETHUSDT", part, "file", written_at_ms=AT)
        assert hear(collector) == "done"

        assert same_series(store.candles("BTCUSDT", M3), run_of_candles(300))
        assert len(store.candles("ETHUSDT", M3)) == 100
        assert store.gaps("BTCUSDT", M3) == []
        assert {s.source: s.rows for s in store.provenance("BTCUSDT", M3)} == {
            "live": 200,
            "file": 100,
        }


def test_a_reader_process_sees_a_writer_s_rows_without_reopening(tmp_path: Path) -> None:
    program = """
with MarketStore.open(path) as store:
    while wait():
        interest = len(store.open_interest("BTCUSDT"))
        say(len(store.candles("BTCUSDT", M3)), interest, store.symbols(), store.version)
"""

    def seen() -> str:
        tell(reader)
        return hear(reader)

    with MarketStore.open(tmp_path, write=True) as store, running(program, tmp_path) as reader:
        assert seen() == f"0 0 [] {store.version}"
        store.write("BTCUSDT", run_of_candles(7), "made", written_at_ms=AT)
        assert seen() == f"7 0 ['BTCUSDT'] {store.version}"
        store.write("BTCUSDT", run_of_candles(9), "made", written_at_ms=AT)
        store.write("BTCUSDT", interest_every(HOUR_MS), "made", written_at_ms=AT)
        assert seen() == f"9 5 ['BTCUSDT'] {store.version}"


# ---- stores of the original program


@pytest.fixture
def original(tmp_path: Path) -> Path:
    for name, step, count in (("3m", M3.ms, 20), ("4h", H4.ms, 3)):
        keys = [f"BTCUSDT:{START_MS + i * step}" for i in range(count)]
        extra = {"timestamp": START_MS, "symbol": "BTCUSDT", "turnover": "1"}
        put_raw(tmp_path, f"candles_{name}", {key: candle_json(**extra) for key in keys})
        put_raw(tmp_path, f"indicators_{name}", dict.fromkeys(keys, b'{"rsi_7": 50}'))
    text = candle_json(open="1.0", high="2.0", low="0.5", close="1.5", volume="3")
    put_raw(tmp_path, "candles_3m", {f"ETHUSDT:{START_MS}": text})
    return tmp_path


def test_an_original_store_is_read_as_it_is(original: Path) -> None:
    before = (original / "data.mdb").read_bytes()
    with MarketStore.open(original, exchange="bybit") as store:
        assert store.exchange is None
        assert store.symbols() == ["BTCUSDT", "ETHUSDT"]
        assert store.timeframes("BTCUSDT") == [M3, H4]
        assert store.candles("BTCUSDT", M3).close.tolist() == [1.5] * 20
        assert store.candles("ETHUSDT", M3).volume.tolist() == [3.0]
        assert len(store.funding("BTCUSDT")) == len(store.open_interest("BTCUSDT")) == 0
        told = store.describe()

    assert told.schema_version is None
    assert [(s.symbol, s.timeframe, s.rows) for s in told.series] == [
        ("BTCUSDT", "3m", 20),
        ("ETHUSDT", "3m", 1),
        ("BTCUSDT", "4h", 3),
    ]
    assert (original / "data.mdb").read_bytes() == before


def test_an_original_store_opened_for_writing_gets_our_meta(original: Path) -> None:
    with MarketStore.open(original, write=True, exchange="bybit") as store:
        stored = store.candles("BTCUSDT", M3)
        report = store.write("BTCUSDT", stored, "again", written_at_ms=AT)
        more = run_of_candles(5, start_ms=START_MS + 22 * M3.ms)
        store.write("BTCUSDT", more, "made", written_at_ms=AT)

        assert report == WriteReport(unchanged=20), "extra keys make no difference"
        assert (store.exchange, store.describe().schema_version) == ("bybit", 1)
        assert [gap.missing for gap in store.gaps("BTCUSDT", M3)] == [2]
        assert store.timeframes("BTCUSDT") == [M3, H4]
        assert H1 not in store.timeframes("BTCUSDT")


def test_long_series_are_read_in_parts_that_overlap_by_a_candle(
    store: MarketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_ranges, "_CANDLES_OF_A_PART", 7)
    times = [START_MS + slot * M3.ms for slot in (*range(30), *range(500, 520), *range(900, 901))]
    candles = candles_at(times, M3)
    store.write("BTCUSDT", candles, "test", written_at_ms=AT)
    with store._environment.read() as txn:
        parts = list(record_ranges.parts(txn, candles_of("BTCUSDT", M3)))
    for before, part in itertools.pairwise(parts):
        assert part.open_time_ms[0] == before.open_time_ms[-1]
    joined = np.concatenate([parts[0].close, *(part.close[1:] for part in parts[1:])])
    assert joined.tolist() == candles.close.tolist()
