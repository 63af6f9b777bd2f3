"""Records, gap ledgers and versions that each write updates, against a count of all rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.errors import StoreError
from llm_trader.market import keys
from llm_trader.market.candles import Gap
from llm_trader.market.series_records import SeriesRecord, read_record
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.timeframe import H4, M3
from tests.market.builders import START_MS, candles_at, run_of_candles
from tests.market.test_store import AT, fresh_store, interest_every, put_raw
from tests.processes import run

SYMBOL = "BTCUSDT"
SERIES = candles_of(SYMBOL, M3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(tmp_path / "store", write=True, exchange="bybit") as opened:
        yield opened


def record_of(store: MarketStore) -> SeriesRecord:
    with store._read() as txn:
        record = read_record(txn, SERIES)
    if record is None:
        raise AssertionError("no record")
    return record


def write(store: MarketStore, slots: list[int], *, seed: int = 0, source: str = "test") -> None:
    series = candles_at([START_MS + slot * M3.ms for slot in slots], seed=seed)
    store.write(SYMBOL, series, source, written_at_ms=AT)


def check_against_a_count(store: MarketStore) -> None:
    candles = store.candles(SYMBOL, M3)
    record = record_of(store)
    first_ms, last_ms = candles.open_time_ms[[0, -1]].tolist()
    assert record.extent() == (len(candles), first_ms, last_ms)
    assert store.gaps(SYMBOL, M3) == candles.gaps()
    assert record.gaps == len(candles.gaps())
    assert store.check().problems == 0


# Runs and scattered slots before, within, across and after what is there: appends, backfills,
# overlaps, holes that are filled in parts, and replacements by another seed.
writes = st.lists(
    st.tuples(
        st.one_of(
            st.builds(
                lambda first, count: list(range(first, first + count)),
                st.integers(0, 60),
                st.integers(1, 15),
            ),
            st.sets(st.integers(0, 75), min_size=1, max_size=12).map(sorted),
        ),
        st.integers(0, 1),
        st.sampled_from(["live", "file a", "file b"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(writes)
def test_records_and_ledgers_equal_a_full_count_after_any_writes(
    batches: list[tuple[list[int], int, str]],
) -> None:
    with fresh_store() as store:
        for slots, seed, source in batches:
            write(store, slots, seed=seed, source=source)
            check_against_a_count(store)


@settings(deadline=None)
@given(writes)
def test_sources_are_the_same_however_their_entries_are_kept(
    batches: list[tuple[list[int], int, str]],
) -> None:
    expected: dict[str, list[int]] = {}
    with fresh_store() as store:
        for slots, seed, source in batches:
            before = store.version
            write(store, slots, seed=seed, source=source)
            if store.version != before:
                times = [START_MS + slot * M3.ms for slot in slots]
                span = expected.pop(source, [times[0], times[-1]])
                expected[source] = [min(span[0], times[0]), max(span[1], times[-1])]
        entries = store.provenance(SYMBOL, M3)

    assert [(e.source, [e.first_ms, e.last_ms]) for e in entries] == list(expected.items())


# ---- stores of earlier versions


def former_record(rows: int, first_ms: int, last_ms: int, *sources: str) -> bytes:
    entries = [
        {"source": s, "first_ms": first_ms, "last_ms": last_ms, "rows": rows, "written_at_ms": AT}
        for s in sources
    ]
    return json.dumps(
        {
            "rows": rows,
            "first_ms": first_ms,
            "last_ms": last_ms,
            "interval_ms": None,
            "sources": entries,
        }
    ).encode()


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A store with rows 0-4 and 7-9, as the versions before incremental records wrote it."""
    path = tmp_path / "former"
    slots = [*range(5), *range(7, 10)]
    candles = candles_at([START_MS + slot * M3.ms for slot in slots])
    records = SERIES.encode(candles)
    texts = [key.decode() for key in records.keys]
    put_raw(path, "candles_3m", dict(zip(texts, records.values, strict=True)))
    first_ms, last_ms = candles.open_time_ms[[0, -1]].tolist()
    put_raw(
        path,
        "meta",
        {
            "layout": b'"market"',
            "schema_version": b"1",
            "exchange": b'"bybit"',
            f"series:{SERIES}": former_record(8, first_ms, last_ms, "file a", "file b"),
            f"gaps:{SERIES}": msgspec.json.encode(candles.gaps()),
        },
    )
    return path


HOLE = Gap(START_MS + 5 * M3.ms, START_MS + 7 * M3.ms, 2)


def test_a_former_store_reads_as_before(former: Path) -> None:
    before = (former / "data.mdb").read_bytes()
    with MarketStore.open(former) as store:
        assert store.gaps(SYMBOL, M3) == [HOLE]
        assert [source.source for source in store.provenance(SYMBOL, M3)] == ["file a", "file b"]
        assert store.check().problems == 0
        version = store.symbol_version(SYMBOL)
    assert version == (0, store_transaction(former))
    assert (former / "data.mdb").read_bytes() == before


def store_transaction(path: Path) -> int:
    with MarketStore.open(path) as store:
        return store.version[1]


def test_the_first_write_converts_a_former_record(former: Path) -> None:
    with MarketStore.open(former, write=True) as store:
        write(store, [12], source="file a")

        check_against_a_count(store)
        assert store.gaps(SYMBOL, M3)[0] == HOLE
        assert [source.source for source in store.provenance(SYMBOL, M3)] == ["file b", "file a"]
        with store._read() as txn:
            assert txn.get(keys.META, f"gaps:{SERIES}".encode()) is None
        write(store, [5])
        check_against_a_count(store)


def test_a_former_version_that_writes_again_is_noticed(former: Path) -> None:
    with MarketStore.open(former, write=True) as store:
        write(store, [10])
        version = store.symbol_version(SYMBOL)
    last_ms = START_MS + 12 * M3.ms
    row = SERIES.encode(candles_at([last_ms]))
    put_raw(former, "candles_3m", {row.keys[0].decode(): row.values[0]})
    gaps = [HOLE, Gap(START_MS + 11 * M3.ms, last_ms, 1)]
    put_raw(
        former,
        "meta",
        {
            f"series:{SERIES}": former_record(10, START_MS, last_ms, "test", "old"),
            f"gaps:{SERIES}": msgspec.json.encode(gaps),
        },
    )

    with MarketStore.open(former, write=True) as store:
        assert store.symbol_version(SYMBOL) != version
        assert store.gaps(SYMBOL, M3) == gaps
        assert store.check().problems == 0
        write(store, [11])
        check_against_a_count(store)
        assert {s.source for s in store.provenance(SYMBOL, M3)} == {
            "file a",
            "file b",
            "test",
            "old",
        }


# ---- versions of symbols


def test_a_symbol_has_a_new_version_after_each_write_of_its_own(store: MarketStore) -> None:
    at: dict[str, Any] = {"written_at_ms": AT}
    versions = {store.symbol_version(SYMBOL)}
    for write_something in (
        lambda: write(store, [0]),
        lambda: write(store, [1]),
        lambda: write(store, [1], seed=1),
        lambda: store.write(SYMBOL, run_of_candles(2, H4), "test", **at),
        lambda: store.write(SYMBOL, interest_every(M3.ms), "test", **at),
    ):
        write_something()
        versions.add(store.symbol_version(SYMBOL))
        assert store.symbol_version(SYMBOL) in versions
    assert len(versions) == 6


def test_writes_to_other_symbols_leave_a_version(store: MarketStore) -> None:
    write(store, [0])
    version = store.symbol_version(SYMBOL)
    for timeframe in (M3, H4):
        store.write("BTCUSD", run_of_candles(3, timeframe), "test", written_at_ms=AT)
        assert store.symbol_version(SYMBOL) == version
    write(store, [0])
    assert store.symbol_version(SYMBOL) == version, "nothing changed"


def test_versions_of_many_symbols_are_right_and_their_memory_is_bounded(
    store: MarketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_trader.market.store._SYMBOL_VERSIONS_KEPT", 4)
    write(store, [0])
    version, unknown = store.symbol_version(SYMBOL), store.symbol_version("UNKNOWN")
    assert version != unknown
    for number in range(20):
        assert store.symbol_version(f"UNKNOWN{number}") == unknown
        assert store.symbol_version(SYMBOL) == version
        assert len(store._symbol_versions[1]) <= 4


@pytest.mark.soak
def test_any_commit_is_a_new_version_where_the_writer_keeps_none(store: MarketStore) -> None:
    write(store, [0])
    program = """
import sys
from pathlib import Path
from tests.market.test_store import put_raw
put_raw(Path(sys.argv[1]), "candles_3m", {f"ETHUSDT:{sys.argv[2]}": b"{}"})
"""
    versions = {store.symbol_version(SYMBOL)}
    for number in range(2):
        arguments = [str(store.path), str(START_MS + number * M3.ms)]
        run([sys.executable, "-c", program, *arguments]).check_returncode()
        versions.add(store.symbol_version(SYMBOL))
    write(store, [1])
    versions.add(store.symbol_version(SYMBOL))
    assert len(versions) == 4


# ---- data check


def test_a_check_names_what_differs_and_repair_counts_it_anew(store: MarketStore) -> None:
    write(store, [0, 1, 5, 6, 9])
    with store._environment.write(keys.META) as txn:
        wrong = msgspec.structs.replace(record_of(store), rows=7, last_ms=START_MS)
        txn.put(keys.META, f"series:{SERIES}".encode(), msgspec.json.encode(wrong))
        txn.delete(keys.META, f"gap:{SERIES}:{START_MS + 2 * M3.ms}".encode())
        txn.put(keys.META, f"gap:{SERIES}:{START_MS}".encode(), b"%d" % (START_MS + M3.ms))

    check = store.check()

    (series,) = check.series
    assert (series.kind, series.symbol, series.timeframe, series.rows) == (
        "candles",
        SYMBOL,
        "3m",
        5,
    )
    assert series.problems == [
        "the row count is 5, but the record says 7",
        f"the last time is {START_MS + 9 * M3.ms}, but the record says {START_MS}",
        "1 gaps are missing from the ledger, the first from 2024-01-01T00:06:00Z",
        "1 gaps are in the ledger but not in the rows, the first from 2024-01-01T00:00:00Z",
    ]
    assert check.remedy is not None
    assert f"data check --repair --store {store.path}" in check.remedy
    store.repair_records()
    assert store.check().problems == 0
    check_against_a_count(store)


def test_a_damaged_key_is_a_problem_of_its_series(store: MarketStore) -> None:
    write(store, [0])
    with store._environment.write("candles_3m") as txn:
        txn.put("candles_3m", b"ETHUSDT:17", b"{}")
    first, second = store.check().series
    assert first.problems == []
    assert "ETHUSDT:17" in second.problems[0]
    with pytest.raises(StoreError, match="ETHUSDT:17"):
        store.candles("ETHUSDT", M3)
