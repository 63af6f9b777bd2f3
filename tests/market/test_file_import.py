from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llm_trader.errors import ConfigurationError, InvalidDataError, InvalidInputError
from llm_trader.market import file_table
from llm_trader.market.candles import CandleSeries
from llm_trader.market.file_import import import_folder
from llm_trader.market.file_rows import FileReading
from llm_trader.market.store import MarketStore
from llm_trader.market.value_codecs import WriteReport
from llm_trader.timeframe import H4, HOUR_MS, M1, M3, M5, MINUTE_MS, Timeframe
from tests.market.builders import START_MS, run_of_candles, same_series
from tests.market.processes import hear, running, tell

AT = 1_775_001_600_000  # 2026-04-01, after all real data


def frame_of(series: CandleSeries) -> pl.DataFrame:
    return pl.DataFrame({"timestamp_ms": series.open_time_ms, **dict(series.columns())})


def put_candles(folder: Path, series: CandleSeries, symbol: str = "BTCUSDT") -> Path:
    path = folder / f"bybit_linear_{symbol}_candles_{series.timeframe}.parquet"
    frame_of(series).write_parquet(path)
    return path


def put_csv(folder: Path, name: str, columns: Mapping[str, list[Any]]) -> Path:
    path = folder / name
    pl.DataFrame(columns).write_csv(path)
    return path


def candle_columns(**changes: list[Any]) -> dict[str, list[Any]]:
    columns = frame_of(run_of_candles(3, M5)).to_dict(as_series=False)
    return columns | changes


def test_candles_funding_and_open_interest_are_imported_with_their_file_as_source(
    store: MarketStore, folder: Path
) -> None:
    candles = run_of_candles(10, M5)
    path = put_candles(folder, candles)
    times = [START_MS, START_MS + 8 * HOUR_MS]
    funding: dict[str, list[Any]] = {
        "timestamp_ms": times,
        "funding_rate": [0.0001, -0.0002],
    }
    put_csv(folder, "bybit_linear_BTCUSDT_funding_8h.csv", funding)
    interest = {"timestamp_ms": times, "open_interest": [5, 6]}
    put_csv(folder, "bybit_linear_BTCUSDT_open_interest_1h.csv", interest)
    seen: list[tuple[str, int, int]] = []

    report = import_folder(
        folder,
        store,
        exchange="bybit",
        written_at_ms=AT,
        progress=lambda label, done, total: seen.append((label, done, total)),
    )

    assert [(f.kind, f.interval, f.rows) for f in report.files] == [
        ("candles", "5m", 10),
        ("funding", "8h", 2),
        ("open_interest", "1h", 2),
    ]
    assert all(f.write == WriteReport(added=f.rows) for f in report.files)
    files = [(done, total) for label, done, total in seen if label == "files"]
    assert files == [(1, 3), (2, 3), (3, 3)]
    assert same_series(store.candles("BTCUSDT", M5), candles)
    assert store.funding("BTCUSDT").rate.tolist() == [0.0001, -0.0002]
    assert store.funding("BTCUSDT").interval_hours.tolist() == [8, 8]
    assert np.isnan(store.open_interest("BTCUSDT").open_interest_value).all()
    assert store.open_interest_interval_ms("BTCUSDT") == HOUR_MS
    assert store.provenance("BTCUSDT", M5)[0].source == f"file {path.name}"
    assert store.provenance("BTCUSDT", M5)[0].written_at_ms == AT


def test_importing_again_changes_nothing(store: MarketStore, folder: Path) -> None:
    put_candles(folder, run_of_candles(480, M1))
    import_folder(folder, store, exchange="bybit", written_at_ms=AT)
    version = store.version

    report = import_folder(folder, store, exchange="bybit", written_at_ms=AT + 1)

    writes = [f.write for f in report.files] + [d.write for d in report.derived]
    assert [(w.added, w.replaced) for w in writes] == [(0, 0)] * 3
    assert store.version == version


# ---- columns


def test_microseconds_iso_times_and_dates_with_time_zone_all_mean_milliseconds(
    store: MarketStore, folder: Path
) -> None:
    start = pl.datetime(2024, 1, 1, time_zone="UTC")
    moments = pl.select(pl.datetime_range(start, start + pl.duration(minutes=10), "5m")).to_series()
    stamps: list[list[Any]] = [
        [(START_MS + i * M5.ms) * 1000 for i in range(3)],
        ["2024-01-01T00:00:00Z", "2024-01-01T00:05:00Z", "2024-01-01T00:10:00Z"],
        ["2024-01-01 00:00:00", "2024-01-01 00:05:00", "2024-01-01 00:10:00"],
        ["2024-01-01T02:00+02:00", "2024-01-01T02:05+02:00", "2024-01-01T02:10+02:00"],
        moments.dt.convert_time_zone("Asia/Tokyo").to_list(),
        moments.dt.replace_time_zone(None).to_list(),
    ]
    for number, column in enumerate(stamps):
        path = folder / f"bybit_linear_S{number}_candles_5m.parquet"
        pl.DataFrame(candle_columns(timestamp_ms=column)).write_parquet(path)

    import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    for number in range(len(stamps)):
        assert same_series(store.candles(f"S{number}", M5), run_of_candles(3, M5))


def test_the_columns_of_exchange_archives_are_known(store: MarketStore, folder: Path) -> None:
    put_csv(
        folder,
        "bybit_linear_BTCUSDT_funding_8h.csv",
        {
            "calc_time": [START_MS, START_MS + 4 * HOUR_MS],
            "funding_interval_hours": [4, 4],
            "last_funding_rate": [0.0001, 0.0002],
        },
    )
    put_csv(
        folder,
        "bybit_linear_BTCUSDT_open_interest_5m.csv",
        {
            "create_time": ["2024-01-01 00:05:00", "2024-01-01 00:10:00"],
            "symbol": ["BTCUSDT", "BTCUSDT"],
            "sum_open_interest": [10.5, 11.5],
            "sum_open_interest_value": [100.0, None],
        },
    )

    import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    assert store.funding("BTCUSDT").interval_hours.tolist() == [4, 4]
    interest = store.open_interest("BTCUSDT")
    assert interest.time_ms.tolist() == [START_MS + 5 * MINUTE_MS, START_MS + 10 * MINUTE_MS]
    assert interest.open_interest.tolist() == [10.5, 11.5]
    assert interest.open_interest_value[0] == 100
    assert np.isnan(interest.open_interest_value[1])


def test_a_mapping_names_other_columns(store: MarketStore, folder: Path) -> None:
    columns = candle_columns()
    columns["when"], columns["traded"] = columns.pop("timestamp_ms"), columns.pop("volume")
    put_csv(folder, "bybit_linear_BTCUSDT_candles_5m.csv", columns)

    with pytest.raises(InvalidInputError) as refusal:
        import_folder(folder, store, exchange="bybit", written_at_ms=AT)
    for told in ("timestamp_ms", "the file has: open, high, low, close, when, traded", "--map"):
        assert told in str(refusal.value)

    reading = FileReading(mapping={"timestamp_ms": "when", "volume": "traded"})
    import_folder(folder, store, exchange="bybit", written_at_ms=AT, reading=reading)
    assert same_series(store.candles("BTCUSDT", M5), run_of_candles(3, M5))


@pytest.mark.parametrize("mapping", [{"price": "p"}, {"close": "last"}])
def test_a_mapping_that_leads_nowhere_is_refused(
    store: MarketStore, folder: Path, mapping: dict[str, str]
) -> None:
    put_candles(folder, run_of_candles(3, M5))

    reading = FileReading(mapping=mapping)
    with pytest.raises(InvalidInputError):
        import_folder(folder, store, exchange="bybit", written_at_ms=AT, reading=reading)


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"close": [100.0, None, 100.0]}, {"price not finite": 1}),
        ({"volume": ["1", "many", "3"]}, {"volume not a number": 1}),
        ({"volume": [1.0, -2.0, -3.0]}, {"negative volume": 2}),
        ({"timestamp_ms": ["soon", "later", ""]}, {"time missing or not readable": 3}),
        (
            {"timestamp_ms": [START_MS + i * HOUR_MS for i in range(3)]},
            {"candle mostly 1h from the next, not 5m": 3},
        ),
        ({name: [] for name in candle_columns()}, {"file without rows": 1}),
    ],
)
def test_a_bad_file_is_refused_with_counts_and_reasons(
    store: MarketStore, folder: Path, changes: dict[str, list[Any]], reasons: dict[str, int]
) -> None:
    path = put_csv(folder, "bybit_linear_BTCUSDT_candles_5m.csv", candle_columns(**changes))

    with pytest.raises(InvalidDataError) as refusal:
        import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    assert refusal.value.reasons == reasons
    assert path.name in str(refusal.value)
    assert store.symbols() == []


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("content", [b"", b"PAR1 but no more", b"a,b\n1,2,3\n\x00\xff"])
def test_a_file_that_is_not_what_its_name_says_is_refused(
    store: MarketStore, folder: Path, suffix: str, content: bytes
) -> None:
    path = folder / f"bybit_linear_BTCUSDT_candles_5m.{suffix}"
    path.write_bytes(content)

    with pytest.raises((InvalidDataError, InvalidInputError), match=path.name):
        import_folder(folder, store, exchange="bybit", written_at_ms=AT)


def test_a_file_of_many_batches_is_read_whole_and_places_count_from_its_first_line(
    store: MarketStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_table, "_BATCH_ROWS", 7)
    candles = run_of_candles(100, M5)
    path = folder / "bybit_linear_BTCUSDT_candles_5m.csv"
    frame_of(candles).write_csv(path)
    whole = path.read_text().splitlines()
    path.write_text("\n".join([*whole[:80], "oops", *whole[80:]]))

    with pytest.raises(InvalidDataError, match=r"1 × .* \(line 81, "):
        import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    path.write_text("\n".join([*whole[:80], whole[1], *whole[80:]]))
    report = import_folder(folder, store, exchange="bybit", written_at_ms=AT)
    assert report.files[0].left_out == {"duplicate row": 1}
    assert same_series(store.candles("BTCUSDT", M5), candles)


def test_files_before_a_bad_one_stay_and_are_named(store: MarketStore, folder: Path) -> None:
    good = put_candles(folder, run_of_candles(3, M5), "AAAUSDT")
    put_csv(folder, "bybit_linear_BBBUSDT_candles_5m.csv", candle_columns(volume=[1, -1, 1]))
    put_candles(folder, run_of_candles(3, M5), "CCCUSDT")

    with pytest.raises(InvalidDataError, match="BBBUSDT") as refusal:
        import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    assert refusal.value.details["imported"] == [good.name]
    assert store.symbols() == ["AAAUSDT"]


def test_files_of_other_names_and_other_venues_are_listed_as_skipped(
    store: MarketStore, folder: Path
) -> None:
    put_candles(folder, run_of_candles(3, M5))
    (folder / "README.md").write_text("about")
    frame_of(run_of_candles(3, M5)).write_parquet(folder / "okx_swap_BTCUSDT_candles_5m.parquet")

    report = import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    assert [s.file for s in report.skipped] == ["README.md", "okx_swap_BTCUSDT_candles_5m.parquet"]
    assert "<SYMBOL>" in report.skipped[0].reason
    assert "candles of okx" in report.skipped[1].reason


def test_open_interest_of_another_venue_serves_only_where_there_is_no_own(
    store: MarketStore, folder: Path
) -> None:
    columns = {"timestamp_ms": [START_MS, START_MS + HOUR_MS], "open_interest": [1, 2]}
    for venue, symbol in (("bybit", "AAA"), ("okx", "AAA"), ("okx", "BBB"), ("zeta", "BBB")):
        put_csv(folder, f"{venue}_swap_{symbol}_open_interest_1h.csv", columns)

    report = import_folder(folder, store, exchange="bybit", written_at_ms=AT)

    assert [f.file for f in report.files] == [
        "bybit_swap_AAA_open_interest_1h.csv",
        "okx_swap_BBB_open_interest_1h.csv",
    ]
    sources = [s.provenance[0].source for s in store.describe().series]
    assert sources == [f"file {f.file}" for f in report.files]


def test_a_folder_with_nothing_to_import_names_the_convention(
    store: MarketStore, folder: Path
) -> None:
    (folder / "prices.csv").write_text("a,b\n")

    for path in (folder, folder / "prices.csv"):
        with pytest.raises(InvalidInputError, match="<exchange>_<market>_<SYMBOL>"):
            import_folder(path, store, exchange="bybit", written_at_ms=AT)
    with pytest.raises(InvalidInputError, match="does not exist"):
        import_folder(folder / "missing", store, exchange="bybit", written_at_ms=AT)


def test_a_store_of_another_exchange_is_refused(store: MarketStore, folder: Path) -> None:
    put_candles(folder, run_of_candles(3, M5))

    with pytest.raises(ConfigurationError, match="bybit"):
        import_folder(folder, store, exchange="binance", written_at_ms=AT)


def test_a_single_file_of_any_name_is_imported_as_described(
    store: MarketStore, folder: Path
) -> None:
    path = put_csv(folder, "prices.csv", candle_columns())

    report = import_folder(
        path,
        store,
        exchange="bybit",
        written_at_ms=AT,
        symbol="BTCUSDT",
        kind="candles",
        interval="5m",
    )

    assert report.files[0].rows == 3
    assert same_series(store.candles("BTCUSDT", M5), run_of_candles(3, M5))
    with pytest.raises(InvalidInputError, match="--interval"):
        import_folder(
            path, store, exchange="bybit", written_at_ms=AT, symbol="BTCUSDT", kind="candles"
        )


def test_funding_without_a_stated_interval_takes_the_usual_distance(
    store: MarketStore, folder: Path
) -> None:
    times = [START_MS + i * 4 * HOUR_MS + 7 * i for i in range(5)]
    path = put_csv(folder, "f.csv", {"time": times, "rate": [0.0001] * 5})

    import_folder(path, store, exchange="bybit", written_at_ms=AT, symbol="BTCUSDT", kind="funding")

    assert store.funding("BTCUSDT").interval_hours.tolist() == [4] * 5


# ---- interruption


def test_a_killed_import_leaves_a_consistent_store_that_a_second_run_completes(
    tmp_path: Path, folder: Path
) -> None:
    for symbol in ("AAAUSDT", "BBBUSDT"):
        put_candles(folder, run_of_candles(2000, M1), symbol)
    program = """
from llm_trader.market import series_records
from llm_trader.market.file_import import import_folder
from llm_trader.market.file_rows import FileReading

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
        assert hear(process) == "writing"
        tell(process)
        assert hear(process) == "writing", "the second file's rows are put, but not committed"
        process.kill()
        process.wait()

    with MarketStore.open(path) as survivor:
        assert survivor.symbols() == ["AAAUSDT"]
        assert same_series(survivor.candles("AAAUSDT", M1), run_of_candles(2000, M1))

    with (
        MarketStore.open(path, write=True, exchange="bybit") as again,
        MarketStore.open(tmp_path / "whole", write=True, exchange="bybit") as whole,
    ):
        for target in (again, whole):
            import_folder(folder, target, exchange="bybit", written_at_ms=AT)
        assert again.describe().series == whole.describe().series
        for symbol in ("AAAUSDT", "BBBUSDT"):
            for timeframe in (M1, M3, H4):
                assert same_series(
                    again.candles(symbol, timeframe), whole.candles(symbol, timeframe)
                )


# ---- real files


@pytest.mark.soak
def test_the_real_bybit_folder_is_imported_whole(store: MarketStore, real_data: Path) -> None:
    report = import_folder(
        real_data / "bybit_5m_2025-09_2026-03", store, exchange="bybit", written_at_ms=AT
    )

    assert (len(report.files), report.derived, report.skipped) == (12, [], [])
    assert all(f.write == WriteReport(added=f.rows) for f in report.files)
    assert store.symbols() == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    rows = {(s.kind, s.timeframe): (s.rows, s.missing) for s in store.describe().series}
    assert rows == {
        ("candles", "4h"): (1134, 0),
        ("candles", "5m"): (54_432, 0),
        ("funding", None): (567, 0),
        ("open_interest", None): (4536, 0),
    }


@pytest.mark.soak
def test_real_one_minute_candles_give_whole_days_of_three_minutes(
    tmp_path: Path, real_data: Path
) -> None:
    with MarketStore.open(tmp_path / "binance", write=True, exchange="binance") as store:
        report = import_folder(
            real_data / "binance_1m_2025-05_2025-06", store, exchange="binance", written_at_ms=AT
        )
        three = store.candles("SOLUSDT", M3)

    assert [f.file.split("_")[0] for f in report.files if f.kind == "open_interest"] == [
        "bybit"
    ] * 3
    assert {(d.timeframe, d.rows) for d in report.derived} == {("3m", 24_000), ("4h", 300)}
    assert three.gaps() == []
    assert three.timeframe == Timeframe.parse("3m")
