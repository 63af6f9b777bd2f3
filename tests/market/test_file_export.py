"""Export to files, and import of them into an identical store."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.arrays import Times
from llm_trader.errors import InvalidDataError, InvalidInputError, SymbolNotFoundError
from llm_trader.market.absent_spans import Span
from llm_trader.market.candles import CandleSeries
from llm_trader.market.file_export import ExportReport, export_store
from llm_trader.market.file_import import ImportReport, import_folder
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M1, M3
from tests.market.builders import START_MS, candles_at, run_of_candles
from tests.market.drawn_series import any_candles, any_funding, any_open_interest
from tests.market.stores import content

AT = START_MS + 3 * 365 * DAY_MS
Format = Literal["parquet", "csv"]
SeriesT = TypeVar("SeriesT", CandleSeries, FundingSeries, OpenInterestSeries)


def over_months(series: SeriesT, step_ms: int) -> SeriesT:
    """The same rows in groups of ten steps, of which each begins another three weeks later."""
    slots = (series.times - START_MS) // step_ms
    times: Times = START_MS + slots // 10 * 21 * DAY_MS + slots % 10 * step_ms
    return replace(series, **{series.time_field: times})


def exported(
    store: MarketStore, folder: Path, file_format: Format = "parquet", *, force: bool = False
) -> ExportReport:
    return export_store(store, folder, file_format=file_format, force=force)


def read_back(folder: Path, store: Path, exchange: str = "bybit") -> MarketStore:
    imported = MarketStore.open(store, write=True, exchange=exchange)
    import_folder(folder, imported, exchange=exchange, written_at_ms=AT)
    return imported


# Each example writes two stores and an export.
@settings(max_examples=settings.default.max_examples // 2)
@given(
    candles=any_candles(),
    funding=any_funding(),
    interest=any_open_interest(),
    interval_ms=st.sampled_from([None, HOUR_MS, 5 * HOUR_MS, 90_001]),
    built=st.sets(st.integers(0, 40), max_size=20),
    native=st.sets(st.integers(0, 40), max_size=20),
    accepted=st.booleans(),
    file_format=st.sampled_from(["parquet", "csv"]),
)
def test_any_store_is_read_back_to_an_identical_one(
    candles: CandleSeries,
    funding: FundingSeries,
    interest: OpenInterestSeries,
    interval_ms: int | None,
    built: set[int],
    native: set[int],
    accepted: bool,
    file_format: Format,
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        with MarketStore.open(folder / "a", write=True, exchange="bybit") as store:
            fine = over_months(candles, M3.ms)
            store.write("BTCUSDT", fine, "by hand", written_at_ms=AT)
            store.write("BTCUSDT", over_months(funding, 8 * HOUR_MS), "paid", written_at_ms=AT)
            store.write(
                "ETHUSDT",
                over_months(interest, HOUR_MS),
                "asked",
                written_at_ms=AT,
                interval_ms=interval_ms,
            )
            for slots, source in ((built, "resampled from 3m"), (native - built, "by hand")):
                times = [START_MS + slot * H4.ms * 7 for slot in sorted(slots)]
                store.write(
                    "BTCUSDT",
                    candles_at(times, H4),
                    source,
                    written_at_ms=AT,
                    incomplete_ms=np.array(times[::3], np.int64) if slots is built else None,
                )
            if accepted:
                for jump in store.jumps("BTCUSDT") if "BTCUSDT" in store.symbols() else ():
                    store.accept_jump("BTCUSDT", jump.time_ms)
            expected = content(store)
            exported(store, folder / "out", file_format)
        if expected:
            with read_back(folder / "out", folder / "b") as again:
                assert content(again) == expected


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    market = simulate("BTCUSDT", start_ms=START_MS, days=70, seed=3)
    with MarketStore.open(folder, write=True, exchange="bybit") as store:
        for series in (market.intraday, market.four_hour, market.funding, market.open_interest):
            store.write("BTCUSDT", series, "simulation", written_at_ms=AT)
    return folder


@pytest.fixture
def store(written: Path, tmp_path: Path) -> MarketStore:
    copy = shutil.copytree(written, tmp_path / "store")
    return MarketStore.open(Path(copy), write=True, exchange="bybit")


def test_a_month_is_a_file_and_its_name_says_what_it_holds(
    store: MarketStore, tmp_path: Path
) -> None:
    with store:
        report = exported(store, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").rglob("*.parquet"))
    assert [name for name in names if "3m" in name] == [
        f"bybit_linear_BTCUSDT_candles_3m_2024-0{month}.parquet" for month in (1, 2, 3)
    ]
    assert "bybit_linear_BTCUSDT_funding_2024-01.parquet" in names
    assert [s.files for s in report.series] == [3] * 4
    january = pl.read_parquet(
        tmp_path / "out/BTCUSDT/candles_3m/bybit_linear_BTCUSDT_candles_3m_2024-01.parquet"
    )
    assert january.height == 31 * 480
    funding = pl.read_parquet(
        tmp_path / "out/BTCUSDT/funding/bybit_linear_BTCUSDT_funding_2024-01.parquet"
    )
    assert funding.columns == ["time_ms", "rate", "interval_hours"]


def test_what_is_exported_already_is_not_written_again(store: MarketStore, tmp_path: Path) -> None:
    with store:
        exported(store, tmp_path / "out")
        again = exported(store, tmp_path / "out")
    assert [s.written for s in again.series] == [0] * 4


def test_an_export_of_other_data_is_replaced_only_by_force(
    store: MarketStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with store:
        exported(store, out)
        later = run_of_candles(20, start_ms=START_MS + 70 * DAY_MS)
        store.write("BTCUSDT", later, "collected", written_at_ms=AT)
        with pytest.raises(InvalidInputError, match=r"earlier state of the store.*--force"):
            exported(store, out)
        with pytest.raises(InvalidInputError, match="--force"):
            exported(store, out, "csv")
        exported(store, out, "csv", force=True)
        expected = content(store)
    assert not list(out.rglob("*.parquet"))
    with read_back(out, tmp_path / "b") as again:
        assert content(again) == expected


def test_files_that_are_no_export_are_not_replaced(store: MarketStore, tmp_path: Path) -> None:
    mine = tmp_path / "out/BTCUSDT/funding/mine.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with store, pytest.raises(InvalidInputError, match=r"mine\.csv.*--force"):
        exported(store, tmp_path / "out")
    assert not list(tmp_path.rglob("*.parquet"))
    with MarketStore.open(tmp_path / "store") as again:
        exported(again, tmp_path / "out", force=True)
    assert mine.read_text() == "mine"


def test_an_exchange_that_the_store_does_not_say_is_asked_for(tmp_path: Path) -> None:
    with MarketStore.open(tmp_path / "a", write=True) as store:
        store.write("BTCUSDT", run_of_candles(480), "by hand", written_at_ms=AT)
        with pytest.raises(InvalidInputError, match="--exchange"):
            exported(store, tmp_path / "out")
        with pytest.raises(InvalidInputError, match="'Bybit'"):
            export_store(store, tmp_path / "out", file_format="csv", exchange="Bybit")
        export_store(store, tmp_path / "out", file_format="csv", exchange="bybit")
        expected = content(store)
    with read_back(tmp_path / "out", tmp_path / "b") as again:
        assert content(again) == expected


def test_a_symbol_that_is_not_there_is_named(store: MarketStore, tmp_path: Path) -> None:
    with store, pytest.raises(SymbolNotFoundError, match="DOGEUSDT"):
        export_store(store, tmp_path, file_format="csv", symbols=["DOGEUSDT"])


def test_candles_are_not_built_from_an_export_that_has_none(tmp_path: Path) -> None:
    with MarketStore.open(tmp_path / "a", write=True, exchange="bybit") as store:
        store.write("BTCUSDT", run_of_candles(1440, M1), "by hand", written_at_ms=AT)
        exported(store, tmp_path / "out")
    with read_back(tmp_path / "out", tmp_path / "b") as again:
        assert again.timeframes("BTCUSDT") == [M1]


def test_a_file_alone_says_all_of_itself(store: MarketStore, tmp_path: Path) -> None:
    with store:
        exported(store, tmp_path / "out")
        january = store.candles("BTCUSDT", M3, end_ms=START_MS + 31 * DAY_MS)
    path = next((tmp_path / "out").rglob("*_3m_2024-01.parquet"))
    with read_back(path, tmp_path / "b") as again:
        assert len(again.candles("BTCUSDT", M3)) == len(january)
        assert [s.source for s in again.provenance("BTCUSDT", M3)] == ["simulation"]


@pytest.mark.soak
def test_files_without_their_manifest_are_like_any_others(
    store: MarketStore, tmp_path: Path
) -> None:
    with store:
        exported(store, tmp_path / "out")
    for path in (tmp_path / "out").rglob("series.json"):
        path.unlink()
    with read_back(tmp_path / "out", tmp_path / "b") as again:
        sources = [s.source for s in again.provenance("BTCUSDT", H4)]
        assert sources[0].endswith("candles_4h_2024-01.parquet")


def test_an_export_that_lost_a_file_or_rows_is_refused(store: MarketStore, tmp_path: Path) -> None:
    with store:
        exported(store, tmp_path / "out", "csv")
    path = next((tmp_path / "out").rglob("*_funding_2024-02.csv"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-3]) + "\n")
    with (
        MarketStore.open(tmp_path / "b", write=True, exchange="bybit") as again,
        pytest.raises(InvalidDataError, match="the export wrote 87"),
    ):
        import_folder(tmp_path / "out", again, exchange="bybit", written_at_ms=AT)
    path.unlink()
    with (
        MarketStore.open(tmp_path / "b", write=True, exchange="bybit") as again,
        pytest.raises(InvalidInputError, match="lacks 1 files"),
    ):
        import_folder(tmp_path / "out", again, exchange="bybit", written_at_ms=AT)


def test_what_is_noted_beside_the_rows_is_read_back_with_them(
    store: MarketStore, tmp_path: Path
) -> None:
    """Outages, refused rows, files of an archive, several sources, and what prune removed."""
    series, path = candles_of("BTCUSDT", M3), "daily/klines/BTCUSDT/3m/BTCUSDT-3m-2024-03-01.zip"
    hole_ms = START_MS + 40 * DAY_MS
    with store:
        later = run_of_candles(100, M3, START_MS + 71 * DAY_MS)
        store.write("BTCUSDT", later, "REST of bybit", written_at_ms=AT + 5)
        store.write("BTCUSDT", run_of_candles(9, M3, hole_ms), "corrected", written_at_ms=AT + 9)
        hole = Span(START_MS + 70 * DAY_MS, START_MS + 71 * DAY_MS)
        bad = RefusedSpan(hole.start_ms, hole.start_ms + M3.ms, "high below low")
        store.note_answer(series, hole, [Span(bad.end_ms, hole.end_ms)], [bad])
        store.put_note("archive", path, b'{"state":"stored","checked_at_ms":7,"etag":"a"}')
        store.remove_before(START_MS + 20 * DAY_MS)
        expected, findings = content(store), store.check().findings
        assert len(store.series_origin(series).sources) == 3  # type: ignore[union-attr]
        exported(store, tmp_path / "out")
    with read_back(tmp_path / "out", tmp_path / "b") as again:
        assert content(again) == expected
        # The remedies name the folder.
        assert [f.text for f in again.check(deep=True).findings] == [f.text for f in findings]
        version = again.version
        import_folder(tmp_path / "out", again, exchange="bybit", written_at_ms=AT)
        assert again.version == version


def test_importing_an_export_into_its_own_store_changes_nothing(
    store: MarketStore, tmp_path: Path
) -> None:
    with store:
        exported(store, tmp_path / "out")
        version = store.version
        report: ImportReport = import_folder(
            tmp_path / "out", store, exchange="bybit", written_at_ms=AT
        )
        assert store.version == version
    assert all(not f.write.added and not f.write.replaced for f in report.files)


@pytest.mark.soak
def test_an_export_can_be_moved(store: MarketStore, tmp_path: Path) -> None:
    with store:
        exported(store, tmp_path / "out")
        expected = content(store)
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    with read_back(tmp_path / "elsewhere", tmp_path / "b") as again:
        assert content(again) == expected
