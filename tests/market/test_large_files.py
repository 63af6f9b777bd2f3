"""Files that do not fit into memory: read, checked and written in parts, seen as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.importing import import_cost, write_candles
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import InvalidDataError
from llm_trader.market import column_spool, derived_candles, file_candles, file_table
from llm_trader.market.column_spool import ColumnSpool
from llm_trader.market.file_import import import_folder
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H4, M1, M3, M5
from tests.market.builders import START_MS, run_of_candles, same_series
from tests.market.processes import hear, running, tell
from tests.market.test_derived_candles import imported, without
from tests.market.test_file_import import AT, frame_of, put_candles

SYMBOL = "BTCUSDT"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(tmp_path / "store", write=True, exchange="bybit") as opened:
        yield opened


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_candles, "ROWS_PER_PART", 3000)
    monkeypatch.setattr(derived_candles, "_ROWS_PER_READ", 3000)
    monkeypatch.setattr(file_table, "_BATCH_ROWS", 2000)
    monkeypatch.setattr(column_spool, "_BYTES_IN_MEMORY", 10_000)


MINUTES = without(run_of_candles(10 * 1440, M1, START_MS + 7 * M1.ms), [2879, 5000, 5001, 9000])


def test_a_file_in_many_parts_is_stored_as_one_in_a_single_part(
    store: MarketStore, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    put_candles(folder, MINUTES)
    import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    request.getfixturevalue("small_parts")
    with MarketStore.open(tmp_path / "parts", write=True, exchange="bybit") as parts:
        report = import_folder(folder, parts, exchange="bybit", written_at_ms=AT)
        assert parts.describe().series == store.describe().series
        for timeframe in (M1, M3, H4):
            assert same_series(parts.candles(SYMBOL, timeframe), store.candles(SYMBOL, timeframe))
        assert parts.built_candles(SYMBOL, H4) == store.built_candles(SYMBOL, H4)
        assert parts.check(deep=True).problems == 0
        assert report.files[0].rows == report.files[0].write.added == len(MINUTES)
        version = parts.version
        import_folder(folder, parts, exchange="bybit", written_at_ms=AT + 1)
        assert parts.version == version


@pytest.mark.usefixtures("small_parts")
def test_a_source_spans_all_parts_though_one_alone_changed(
    store: MarketStore, folder: Path
) -> None:
    candles = run_of_candles(40 * 288, M5)
    imported(store, folder, without(candles, [5000]))
    put_candles(folder, candles).rename(folder / "bybit_again_BTCUSDT_candles_5m.parquet")

    (folder / "bybit_linear_BTCUSDT_candles_5m.parquet").unlink(missing_ok=True)
    import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    latest = store.provenance(SYMBOL, M5)[-1]
    assert (latest.rows, latest.first_ms) == (1, START_MS)
    assert latest.last_ms == START_MS + 40 * DAY_MS - M5.ms


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("order", ["newest first", "pages that overlap"])
def test_the_order_of_a_file_in_parts_is_put_right(
    store: MarketStore, folder: Path, order: str
) -> None:
    frame = frame_of(MINUTES)
    if order == "newest first":
        frame = frame.reverse()
    else:
        frame = pl.concat([frame[:7000], frame[6500:]])
    frame.write_csv(folder / "bybit_linear_BTCUSDT_candles_1m.csv")

    report = import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    assert same_series(store.candles(SYMBOL, M1), MINUTES)
    told = [*report.files[0].notes, *report.files[0].left_out]
    assert any("newest first" in t or "duplicate row" in t for t in told)


@pytest.mark.usefixtures("small_parts")
def test_bad_rows_of_all_parts_are_counted_and_nothing_is_written(
    store: MarketStore, folder: Path
) -> None:
    frame = frame_of(MINUTES)
    volume = frame["volume"].to_numpy().copy()
    volume[[10, 6000, 14_000]] = -1
    path = folder / "bybit_linear_BTCUSDT_candles_1m.csv"
    frame.with_columns(volume=volume).write_csv(path)

    with pytest.raises(InvalidDataError, match=r"3 × negative volume \(line 12, 2024-01-01T00:17"):
        import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    assert store.symbols() == []


@pytest.mark.usefixtures("small_parts")
def test_progress_moves_within_a_file(store: MarketStore, folder: Path) -> None:
    put_candles(folder, MINUTES)
    seen: dict[str, list[tuple[int, int]]] = {}

    import_folder(
        folder,
        store,
        exchange="bybit",
        written_at_ms=AT,
        progress=lambda label, done, total: seen.setdefault(label, []).append((done, total)),
    )

    rows = len(MINUTES)
    for label in ("rows read", "rows written"):
        steps = [step for step in seen[label] if step[1] == rows]
        done = [d for d, _ in steps]
        assert len(done) > 4, label
        assert done == sorted(done), label
        assert done[-1] == rows, label


def test_a_reader_sees_nothing_of_a_file_before_all_of_it_is_written(
    tmp_path: Path, folder: Path
) -> None:
    put_candles(folder, MINUTES)
    program = """
from llm_trader.market import file_candles, series_records
from llm_trader.market.file_import import import_folder

file_candles.ROWS_PER_PART = 3000
record = series_records.record_write

def stop_within_the_transaction(*arguments):
    say("writing")
    wait()
    record(*arguments)

series_records.record_write = stop_within_the_transaction
store = MarketStore.open(path, write=True, exchange="bybit")
import_folder(Path(sys.argv[2]), store, exchange="bybit", written_at_ms=1_775_001_600_000)
"""
    path = tmp_path / "killed"
    with running(program, path, folder) as process:
        for _ in range(3):
            assert hear(process) == "writing"
            with MarketStore.open(path) as reader:
                assert reader.symbols() == [], "two parts are put, and not committed"
            tell(process)
        assert hear(process) == "writing"
        process.kill()
        process.wait()

    assert {entry.name for entry in path.iterdir()} == {"data.mdb", "lock.mdb"}
    with MarketStore.open(path, write=True, exchange="bybit") as survivor:
        assert survivor.symbols() == []
        import_folder(folder, survivor, exchange="bybit", written_at_ms=AT)
        assert same_series(survivor.candles(SYMBOL, M1), MINUTES)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.lists(st.integers(0, 399), max_size=30),
    st.sampled_from([100, 10**6]),
)
def test_a_spool_gives_what_was_put_into_it(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], wanted: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    rng = np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch, ColumnSpool(folder) as spool:
        patch.setattr(column_spool, "_BYTES_IN_MEMORY", limit)
        rows = np.flatnonzero(rng.random(sum(counts) * 2) < 0.6)
        values = {"open": rng.random(len(rows)), "close": rng.random(len(rows))}
        first = 0
        for count in counts:
            part = slice(first, first + count)
            if len(rows[part]):
                spool.write(rows[part], {name: column[part] for name, column in values.items()})
            first += count
        kept = np.array([at for at in wanted if at < min(first, len(rows))], np.intp)

        assert spool.names == ["open", "close"]
        for name, column in values.items():
            assert spool.read(name, rows[kept]).tolist() == column[kept].tolist()
        assert list(folder.iterdir()) == [], "its files have no name"


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_two_million_rows_take_less_than_700_mb(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"okx_linear_BTCUSDT_candles_1m.{suffix}"
    write_candles(file, 2_000_000)

    cost = import_cost(file, tmp_path / "store")

    assert cost.peak_mb < 700
    with MarketStore.open(tmp_path / "store") as store:
        assert {s.timeframe: s.rows for s in store.describe().series} == {
            "1m": 2_000_000,
            "3m": 666_666,
            "4h": 8_333,
        }
