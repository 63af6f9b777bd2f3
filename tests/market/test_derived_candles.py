"""Candles that an import builds from finer ones: whole, in part, and where native ones end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.candles import CandleSeries
from llm_trader.market.file_import import ImportReport, import_folder
from llm_trader.market.resampling import resample, resample_with_holes
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H1, H4, M1, M3, M5, Millis
from tests.market.builders import START_MS, candles_at, run_of_candles, same_series
from tests.market.test_file_import import AT, put_candles
from tests.market.test_store import fresh_store

SYMBOL = "BTCUSDT"


def without(series: CandleSeries, rows: Sequence[int]) -> CandleSeries:
    """The series with holes."""
    columns = {name: np.delete(values, rows) for name, values in series.columns()}
    times = np.delete(series.open_time_ms, rows)
    return CandleSeries.validated(series.timeframe, {"open_time_ms": times, **columns})


def imported(store: MarketStore, folder: Path, *series: CandleSeries) -> ImportReport:
    """After an import of a folder that holds these series alone."""
    for path in folder.iterdir():
        path.unlink()
    for part in series:
        put_candles(folder, part)
    return import_folder(folder, store, exchange="bybit", written_at_ms=AT)


def incomplete(store: MarketStore) -> list[Millis]:
    return list(store.built_candles(SYMBOL, H4).incomplete_ms)


def test_three_minute_and_four_hour_candles_are_built_from_one_minute_candles(
    store: MarketStore, folder: Path
) -> None:
    minutes = run_of_candles(1000, M1)

    report = imported(store, folder, minutes)

    source = "resampled from 1m of bybit_linear_BTCUSDT_candles_1m.parquet"
    assert [(d.timeframe, d.source, d.rows) for d in report.derived] == [
        ("3m", source, 333),
        ("4h", source, 4),
    ]
    assert same_series(store.candles(SYMBOL, M3), resample(minutes, M3))
    assert same_series(store.candles(SYMBOL, H4), resample(minutes, H4))
    assert store.provenance(SYMBOL, M3)[0].source == source


def test_four_hour_candles_are_built_from_the_finest_that_was_imported(
    store: MarketStore, folder: Path
) -> None:
    fine = run_of_candles(96, M5)

    report = imported(store, folder, resample(fine, H1), fine)

    source = "resampled from 5m of bybit_linear_BTCUSDT_candles_5m.parquet"
    assert [d.source for d in report.derived] == [source]


def test_two_files_complete_the_candle_between_them(store: MarketStore, folder: Path) -> None:
    whole = run_of_candles(96, M5)
    for part in (slice(0, 45), slice(45, 60), slice(60, 96)):
        imported(store, folder, whole.rows(part))

    assert same_series(store.candles(SYMBOL, H4), resample(whole, H4))
    assert incomplete(store) == []


# ---- holes

SECOND_MS = START_MS + H4.ms


@pytest.mark.parametrize(
    ("missing", "is_built"),
    [
        ([60], True),
        ([49, 60, 61, 94], True),  # 44 of 48 are there, 92 %
        ([50, 60, 61, 70, 94], False),  # 43 of 48, 90 % to the whole per cent
        ([48], False),
        ([95], False),
    ],
)
def test_a_candle_is_built_where_nine_tenths_of_it_are_there_and_its_ends_are(
    store: MarketStore, folder: Path, missing: list[int], is_built: bool
) -> None:
    whole = run_of_candles(144, M5)
    holey = without(whole, missing)

    report = imported(store, folder, holey)

    coarse = store.candles(SYMBOL, H4)
    times = [START_MS, *([SECOND_MS] if is_built else []), START_MS + 2 * H4.ms]
    assert coarse.open_time_ms.tolist() == times
    assert incomplete(store) == ([SECOND_MS] if is_built else [])
    (derived,) = report.derived
    assert (derived.rows, derived.incomplete) == (len(times), int(is_built))
    assert derived.source.endswith(", 1 incomplete") == is_built
    complete = coarse.open_time_ms != SECOND_MS
    for name, values in resample(whole, H4).columns():
        assert getattr(coarse, name)[complete].tolist() == values[[0, 2]].tolist()
    if is_built:
        inside = holey.between(SECOND_MS, SECOND_MS + H4.ms)
        assert coarse.open[1] == whole.open[48]
        assert coarse.close[1] == whole.close[95]
        assert (coarse.high[1], coarse.low[1]) == (inside.high.max(), inside.low.min())
        assert coarse.volume[1] == inside.volume.sum(), "what is there, not scaled up"


def test_three_minute_candles_are_never_built_in_part(store: MarketStore, folder: Path) -> None:
    imported(store, folder, without(run_of_candles(240, M1), [100]))

    assert len(store.candles(SYMBOL, M3)) == 79
    assert incomplete(store) == [START_MS]


def test_a_hole_that_is_filled_later_leaves_no_mark(store: MarketStore, folder: Path) -> None:
    whole = run_of_candles(144, M5)
    imported(store, folder, without(whole, [60, 100]))
    assert incomplete(store) == [SECOND_MS, START_MS + 2 * H4.ms]

    imported(store, folder, whole.rows(slice(55, 65)))

    assert incomplete(store) == [START_MS + 2 * H4.ms]
    info = next(s for s in store.describe().series if s.timeframe == "4h")
    assert (info.built, info.incomplete) == (3, ["2024-01-01T08:00:00Z"])
    assert store.check().problems == 0


def test_importing_a_file_with_holes_again_changes_nothing(
    store: MarketStore, folder: Path
) -> None:
    holey = without(run_of_candles(144, M5), [60])
    imported(store, folder, holey)
    version = store.version

    imported(store, folder, holey)

    assert store.version == version


def test_resampling_without_holes_is_the_same_to_the_bit_whatever_share_is_asked_for() -> None:
    fine = run_of_candles(1000, M5)
    for share in (0.5, 0.9, 1.0):
        built = resample_with_holes(fine, H4, share)
        assert same_series(built.candles, resample(fine, H4))
        assert not len(built.incomplete_ms)


# ---- the record of what was built


def test_series_that_an_earlier_version_built_count_as_built(store: MarketStore) -> None:
    candles = run_of_candles(6, H4)
    store.write(SYMBOL, candles, "resampled from 5m of a file", written_at_ms=AT)
    assert store.built_candles(SYMBOL, H4).contain(candles.open_time_ms).all()

    store.write(SYMBOL, run_of_candles(1, H4, START_MS + DAY_MS), "live", written_at_ms=AT)
    assert not store.built_candles(SYMBOL, H4).spans, "no record says which of them it built"


slots = st.sets(st.integers(0, 30), min_size=1, max_size=20).map(sorted)


@given(st.lists(st.tuples(slots, st.booleans(), st.integers(0, 2)), min_size=1, max_size=8))
def test_the_record_says_of_every_candle_how_it_was_written_last(
    writes: list[tuple[list[int], bool, int]],
) -> None:
    built: dict[Millis, bool] = {}  # and whether in part
    with fresh_store() as store:
        for chosen, is_built, every in writes:
            times = [START_MS + slot * H4.ms for slot in chosen]
            incomplete = times[:: every + 1] if is_built else []
            for time_ms in times:
                built.pop(time_ms, None)
            if is_built:
                built |= {time_ms: time_ms in incomplete for time_ms in times}
            store.write(
                SYMBOL,
                candles_at(times, H4),
                "resampled from 5m" if is_built else "live",
                written_at_ms=AT,
                incomplete_ms=np.array(incomplete, np.int64) if is_built else None,
            )
            record = store.built_candles(SYMBOL, H4)
            stored = store.candles(SYMBOL, H4).open_time_ms
            assert stored[record.contain(stored)].tolist() == sorted(built)
            assert list(record.incomplete_ms) == sorted(t for t in built if built[t])
            assert all(end <= start for (_, end), (start, _) in pairwise(record.spans))


# ---- where native candles end


def days(count: int, first: int = 0) -> CandleSeries:
    fine = run_of_candles(count * 288 + first * 288, M5)
    return fine.rows(slice(first * 288, None))


def test_the_exchange_s_own_four_hour_candles_are_kept(store: MarketStore, folder: Path) -> None:
    fine = days(2)
    own = replace(resample(fine, H4), volume=resample(fine, H4).volume * (1 + 1e-5))

    report = imported(store, folder, own, fine)

    assert report.derived == []
    assert same_series(store.candles(SYMBOL, H4), own)
    assert not store.built_candles(SYMBOL, H4).spans


def test_four_hour_candles_go_on_from_five_minute_ones_where_native_ones_end(
    store: MarketStore, folder: Path
) -> None:
    fine = days(4)
    own = resample(fine, H4).rows(slice(0, 12))
    imported(store, folder, own, fine.rows(slice(0, 576)))

    for day in (2, 3):
        report = imported(store, folder, fine.rows(slice(288 * day, 288 * (day + 1))))
        assert [(d.timeframe, d.rows, d.warnings) for d in report.derived] == [("4h", 6, [])]

    assert same_series(store.candles(SYMBOL, H4), resample(fine, H4))
    built = store.built_candles(SYMBOL, H4)
    assert built.spans == ((START_MS + 2 * DAY_MS, START_MS + 4 * DAY_MS),)


def test_native_candles_that_come_later_replace_built_ones(
    store: MarketStore, folder: Path
) -> None:
    fine = days(4)
    own = resample(fine, H4)
    own = replace(own, volume=own.volume * (1 + 1e-5))
    imported(store, folder, own.rows(slice(0, 12)), without(fine, [1000]))
    assert len(incomplete(store)) == 1

    imported(store, folder, own.rows(slice(12, 24)))

    assert same_series(store.candles(SYMBOL, H4), own)
    assert store.built_candles(SYMBOL, H4).spans == ()
    assert incomplete(store) == []
    assert imported(store, folder, fine).derived == []


def test_the_same_native_candles_replace_built_ones_in_the_record(
    store: MarketStore, folder: Path
) -> None:
    fine = days(2)
    imported(store, folder, fine)
    assert store.built_candles(SYMBOL, H4).spans == ((START_MS, START_MS + 2 * DAY_MS),)

    imported(store, folder, resample(fine, H4).rows(slice(3, 6)))

    spans = store.built_candles(SYMBOL, H4).spans
    assert spans == ((START_MS, START_MS + DAY_MS // 2), (START_MS + DAY_MS, START_MS + 2 * DAY_MS))


def test_candles_that_differ_are_not_continued_and_the_first_are_named(
    store: MarketStore, folder: Path
) -> None:
    fine = days(3)
    own = resample(fine, H4).rows(slice(0, 12))
    contracts = replace(own, volume=own.volume * 1000)

    report = imported(store, folder, contracts, fine)

    assert same_series(store.candles(SYMBOL, H4), contracts)
    (derived,) = report.derived
    assert (derived.timeframe, derived.rows) == ("4h", 0)
    (warning,) = derived.warnings
    volume = own.volume[0]
    for told in (
        "BTCUSDT 4h does not go on: 12 of 12 imported 4h candles are not what their 5m candles",
        f"2024-01-01T00:00:00Z, volume {volume * 1000:.10g} in 4h, {volume:.10g} from 5m",
        "import later 4h candles",
    ):
        assert told in warning


def test_candles_without_an_overlap_are_not_continued_and_the_way_on_is_told(
    store: MarketStore, folder: Path
) -> None:
    fine = days(4)
    imported(store, folder, resample(fine, H4).rows(slice(0, 12)))

    report = imported(store, folder, fine.rows(slice(576, None)))

    assert len(store.candles(SYMBOL, H4)) == 12
    (warning,) = report.derived[0].warnings
    assert "import later 4h candles, or earlier 5m candles" in warning

    imported(store, folder, fine.rows(slice(0, 576)))
    report = imported(store, folder, fine.rows(slice(576, None)))
    assert report.derived[0].warnings == []
    assert same_series(store.candles(SYMBOL, H4), resample(fine, H4))


def test_a_single_volume_that_an_exchange_got_wrong_does_not_end_a_series(
    store: MarketStore, folder: Path
) -> None:
    fine = days(40)
    volume = resample(fine, H4).volume.copy()
    volume[100] *= 1.08
    own = replace(resample(fine, H4), volume=volume).rows(slice(0, 200))

    report = imported(store, folder, own, fine)

    assert [(d.rows, d.warnings) for d in report.derived] == [(40, [])]


def test_real_four_hour_candles_go_on_to_the_bit(
    store: MarketStore, folder: Path, real_data: Any
) -> None:
    source = real_data / "bybit_5m_2025-09_2026-03"
    import_folder(
        source / "bybit_linear_SOLUSDT_candles_4h.parquet",
        store,
        exchange="bybit",
        written_at_ms=AT,
    )
    native = store.candles("SOLUSDT", H4)
    with MarketStore.open(folder / "continued", write=True, exchange="bybit") as continued:
        half = native.rows(slice(0, 600))
        continued.write("SOLUSDT", half, "file", written_at_ms=AT)
        report = import_folder(
            source / "bybit_linear_SOLUSDT_candles_5m.parquet",
            continued,
            exchange="bybit",
            written_at_ms=AT,
        )
        built = continued.candles("SOLUSDT", H4)

    assert [d.rows for d in report.derived] == [534]
    for name in ("open_time_ms", "open", "high", "low", "close"):
        assert np.array_equal(getattr(built, name), getattr(native, name))
    assert np.allclose(built.volume, native.volume, rtol=1e-12)
