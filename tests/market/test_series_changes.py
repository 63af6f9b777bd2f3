"""The record of what later writes changed, against a plain model and a killed process."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market import keys
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.series_changes import STRETCHES_KEPT, DataChanges, DataMark, Stretch
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import H4, HOUR_MS, M3
from tests.market.builders import START_MS, candles_at, run_of_candles
from tests.market.processes import hear, running, tell
from tests.market.test_store import AT, fresh_store

SYMBOL = "BTCUSDT"
DATABASE = "candles_3m"
UNKNOWN = DataMark(0, {}, HOUR_MS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(tmp_path / "store", write=True, exchange="bybit") as opened:
        yield opened


def slot_ms(slot: int) -> int:
    return START_MS + slot * M3.ms


def write(store: MarketStore, prices: dict[int, float], written_at_ms: int = AT) -> None:
    """Candles at slots, each of one price."""
    slots = sorted(prices)
    price = np.array([prices[slot] for slot in slots])
    columns = dict.fromkeys(("open", "high", "low", "close"), price)
    series = CandleSeries.validated(
        M3, {"open_time_ms": [slot_ms(s) for s in slots], **columns, "volume": price}
    )
    store.write(SYMBOL, series, "test", written_at_ms=written_at_ms)


def mark_of(store: MarketStore) -> DataMark:
    return store.changes_since(SYMBOL, None).mark


def slots_in(changes: DataChanges, count: int) -> set[int]:
    """The slots that lie in a stretch."""
    stretches = changes.stretches.get(DATABASE, [])
    return {
        slot
        for slot in range(count)
        if any(stretch.first_ms <= slot_ms(slot) <= stretch.last_ms for stretch in stretches)
    }


# Slots with one of two prices: rows are appended, put in front, filled in, replaced or repeated.
writes = st.lists(
    st.dictionaries(st.integers(0, 30), st.sampled_from([1.0, 2.0]), min_size=1, max_size=12),
    min_size=1,
    max_size=8,
)


@given(writes, st.data())
def test_a_reader_learns_exactly_the_rows_that_changed_or_came_since_its_mark(
    prices: list[dict[int, float]], data: st.DataObject
) -> None:
    marked_after = data.draw(st.integers(1, len(prices)))
    with fresh_store() as store:
        held: dict[int, float] = {}
        changed: set[int] = set()
        for number, written in enumerate(prices, start=1):
            changed |= {slot for slot, price in written.items() if held.get(slot) != price}
            held |= written
            write(store, written)
            if number == marked_after:
                changed, mark = set(), mark_of(store)
        changes = store.changes_since(SYMBOL, mark)

    assert slots_in(changes, 31) & held.keys() == changed


def test_rows_behind_the_end_and_repeated_rows_leave_no_record(store: MarketStore) -> None:
    for slots in (range(10), range(10, 20), range(20), range(5, 25)):
        write(store, {slot: float(slot + 1) for slot in slots})
        with store._read() as txn:
            assert txn.get(keys.META, f"changes:{SYMBOL}".encode()) is None
    assert store.changes_since(SYMBOL, None).stretches == {}
    assert store.changes_since(SYMBOL, mark_of(store)).stretches == {}


def test_a_long_series_written_again_with_other_values_is_one_stretch(store: MarketStore) -> None:
    count = 40_000
    store.write(SYMBOL, run_of_candles(count), "test", written_at_ms=AT)
    for first in range(0, count, 10_000):  # as an import does, in parts
        part = run_of_candles(count, seed=1).between(slot_ms(first), slot_ms(first + 10_000))
        store.write(SYMBOL, part, "test", written_at_ms=AT)
    (stretches,) = store.changes_since(SYMBOL, None).stretches.values()
    assert (stretches[0].first_ms, stretches[-1].last_ms) == (slot_ms(0), slot_ms(count - 1))
    assert len(stretches) == 4
    assert [s.change for s in stretches] == [AT, AT + 1, AT + 2, AT + 3]

    store.write(SYMBOL, run_of_candles(count, seed=2), "test", written_at_ms=AT)
    whole = Stretch(slot_ms(0), slot_ms(count - 1), AT + 4)
    assert store.changes_since(SYMBOL, None).stretches == {DATABASE: [whole]}


def test_a_hole_that_is_filled_is_a_change_and_its_neighbours_are_not(store: MarketStore) -> None:
    write(store, {slot: 1.0 for slot in range(20) if slot not in (7, 8, 12)})
    mark = mark_of(store)
    write(store, dict.fromkeys(range(25), 1.0))
    stretches = store.changes_since(SYMBOL, None).stretches[DATABASE]
    assert [s[:2] for s in stretches] == [(slot_ms(7), slot_ms(8)), (slot_ms(12), slot_ms(12))]
    assert slots_in(store.changes_since(SYMBOL, mark), 25) == {7, 8, 12, 20, 21, 22, 23, 24}


def test_numbers_grow_though_the_clock_goes_back(store: MarketStore) -> None:
    numbers = []
    write(store, {0: 1.0, 1: 1.0})
    for price, now_ms in ((2.0, AT), (3.0, AT - 5000), (4.0, AT + 5000)):
        write(store, {0: price}, now_ms)
        numbers.append(mark_of(store).change)
    assert numbers == [AT, AT + 1, AT + 5000]


def test_each_series_has_its_own_stretches_and_its_own_end(store: MarketStore) -> None:
    store.write(SYMBOL, run_of_candles(10, H4), "test", written_at_ms=AT)
    mark = mark_of(store)
    assert mark.ends_ms == {"candles_4h": START_MS + 9 * H4.ms}
    interest = {"time_ms": [START_MS, START_MS + HOUR_MS], "open_interest": [1.0, 2.0]}
    series = OpenInterestSeries.validated(interest | {"open_interest_value": [np.nan] * 2})
    store.write(SYMBOL, series, "test", written_at_ms=AT, interval_ms=HOUR_MS)
    funding = {"time_ms": [START_MS], "rate": [1e-4], "interval_hours": [8.0]}
    store.write(SYMBOL, FundingSeries.validated(funding), "test", written_at_ms=AT)
    store.write("ETHUSDT", run_of_candles(10, H4, seed=1), "test", written_at_ms=AT)
    store.write(SYMBOL, run_of_candles(4, H4, seed=1), "test", written_at_ms=AT)

    changes = store.changes_since(SYMBOL, mark)
    assert {name: [s[:2] for s in parts] for name, parts in changes.stretches.items()} == {
        "candles_4h": [(START_MS, START_MS + 3 * H4.ms)],
        "funding": [(START_MS, START_MS)],
        "open_interest": [(START_MS, START_MS + HOUR_MS)],
    }
    assert store.changes_since("ETHUSDT", None).stretches == {}


def test_another_sampling_interval_changes_all_open_interest(store: MarketStore) -> None:
    def interest(*hours: int) -> OpenInterestSeries:
        times = [START_MS + hour * HOUR_MS for hour in hours]
        rows = {"time_ms": times, "open_interest": [1.0] * len(hours)}
        return OpenInterestSeries.validated(rows | {"open_interest_value": [np.nan] * len(hours)})

    store.write(SYMBOL, interest(0, 1, 2), "test", written_at_ms=AT, interval_ms=HOUR_MS)
    mark = mark_of(store)
    store.write(SYMBOL, interest(3, 7), "test", written_at_ms=AT, interval_ms=4 * HOUR_MS)
    (stretch,) = store.changes_since(SYMBOL, mark).stretches["open_interest"]
    assert stretch[:2] == (START_MS, START_MS + 7 * HOUR_MS)


def test_the_record_stays_small_and_covers_every_change(store: MarketStore) -> None:
    """A writer that replaces its last candle again and again, and scattered corrections."""
    write(store, dict.fromkeys(range(5000), 1.0))
    marks = []
    for slot in range(1000, 1200):
        write(store, {slot: 2.0})
        marks.append(mark_of(store))
    write(store, dict.fromkeys(range(2000, 5000, 5), 3.0))
    with store._read() as txn:
        content = txn.get(keys.META, f"changes:{SYMBOL}".encode())
    assert content is not None
    assert len(content) < 10_000
    assert len(store.changes_since(SYMBOL, None).stretches[DATABASE]) == STRETCHES_KEPT
    everything = slots_in(store.changes_since(SYMBOL, None), 5000)
    assert everything >= {*range(1000, 1200), *range(2000, 5000, 5)}
    assert min(everything) == 1000


@pytest.mark.soak
def test_a_reader_that_keeps_up_pays_little_for_the_bound(store: MarketStore) -> None:
    """A writer that replaces its last candle with every write, and a reader at its heels."""
    write(store, dict.fromkeys(range(400), 1.0))
    for slot in range(1, 300):
        write(store, {slot: 2.0})
        if slot in (200, 290):
            mark = mark_of(store)
        if slot == 250:
            late = slots_in(store.changes_since(SYMBOL, mark), 400)
    assert {*range(201, 251)} <= late <= {*range(150, 251)}
    recent = slots_in(store.changes_since(SYMBOL, mark), 400)
    assert {*range(291, 300)} <= recent <= {*range(270, 300)}


@pytest.mark.soak
def test_a_correction_and_its_record_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    program = """
with MarketStore.open(path, write=True) as store:
    for seed in range(1, 10_000):
        store.write("BTCUSDT", run_of_candles(2000, seed=seed), "t", written_at_ms=seed)
        if seed == 1:
            say("began")
            wait()
"""
    path = tmp_path / "store"
    with MarketStore.open(path, write=True, exchange="bybit") as store:
        store.write(SYMBOL, run_of_candles(2000), "test", written_at_ms=1)
    for delay in (0.02, 0.05, 0.09):
        with running(program, path) as process:
            assert hear(process) == "began"
            tell(process)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        with MarketStore.open(path) as store:
            changes = store.changes_since(SYMBOL, UNKNOWN)
            source = store.provenance(SYMBOL, M3)[-1]
            # Each write counts 2000 rows of its source, and one change.
            assert changes.stretches[DATABASE][0].change == changes.mark.change
            candles = store.candles(SYMBOL, M3)
            expected = run_of_candles(2000, seed=source.written_at_ms)
            assert np.array_equal(candles.close, expected.close)
            assert changes.mark.change >= source.written_at_ms
    with MarketStore.open(path, write=True) as store:
        before = mark_of(store)
        store.write(SYMBOL, candles_at([START_MS], seed=5), "t", written_at_ms=1)
        assert mark_of(store).change == before.change + 1


def test_a_mark_survives_json(store: MarketStore) -> None:
    write(store, {0: 1.0, 1: 1.0})
    mark = mark_of(store)
    assert msgspec.json.decode(msgspec.json.encode(mark), type=DataMark) == mark
