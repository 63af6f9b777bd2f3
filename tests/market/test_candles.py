from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.market.candles import CANDLE_FIELDS, CandleSeries, Gap
from llm_trader.market.resampling import resample
from llm_trader.timeframe import H1, H4, M3, M5, M15, Millis, Timeframe
from tests.market.builders import START_MS, candles_at, run_of_candles
from tests.market.drawn_series import grid_times


def columns_of(series: CandleSeries) -> dict[str, Any]:
    copied = {name: values.copy() for name, values in series.columns()}
    return {"open_time_ms": series.open_time_ms.copy(), **copied}


def resampled_naively(series: CandleSeries, to: Timeframe) -> list[tuple[float, ...]]:
    """One bucket after the other, keeping only those in which every candle is found."""
    by_time = {int(t): i for i, t in enumerate(series.open_time_ms)}
    found: list[tuple[float, ...]] = []
    for bucket in sorted({t - t % to.ms for t in by_time}):
        wanted = range(bucket, bucket + to.ms, series.timeframe.ms)
        if not all(t in by_time for t in wanted):
            continue
        rows = [by_time[t] for t in wanted]
        found.append(
            (
                bucket,
                float(series.open[rows[0]]),
                max(float(series.high[i]) for i in rows),
                min(float(series.low[i]) for i in rows),
                float(series.close[rows[-1]]),
                sum(float(series.volume[i]) for i in rows),
            )
        )
    return found


@given(grid_times(), st.sampled_from([M3, M15, H1]))
def test_resampling_equals_a_naive_loop_and_builds_nothing_across_a_gap(
    times: list[Millis], to: Timeframe
) -> None:
    series = candles_at(times)

    coarse = resample(series, to)

    rows = zip(coarse.open_time_ms, *(values for _, values in coarse.columns()), strict=True)
    assert [tuple(map(float, row)) for row in rows] == resampled_naively(series, to)
    CandleSeries.validated(to, columns_of(coarse))


@given(grid_times(max_slots=400))
def test_resampling_in_two_steps_equals_one_step(times: list[Millis]) -> None:
    series = candles_at(times)

    once, twice = resample(series, H1), resample(resample(series, M15), H1)

    assert np.array_equal(once.open_time_ms, twice.open_time_ms)
    assert np.array_equal(once.close, twice.close)
    assert np.array_equal(once.high, twice.high)


def test_candles_are_not_resampled_to_what_is_no_multiple() -> None:
    for to in (M5, Timeframe.parse("1m")):
        with pytest.raises(InvalidInputError, match="cannot build"):
            resample(run_of_candles(10), to)


@given(grid_times())
def test_gaps_and_candles_together_fill_the_grid(times: list[Millis]) -> None:
    series = candles_at(times)

    missing = [t for gap in series.gaps() for t in range(gap.start_ms, gap.end_ms, M3.ms)]

    whole = list(range(times[0], times[-1] + 1, M3.ms)) if times else []
    assert sorted(missing + times) == whole
    assert sum(gap.missing for gap in series.gaps()) == len(missing)


@given(grid_times())
def test_each_segment_is_gapless_and_follows_a_gap(times: list[Millis]) -> None:
    series = candles_at(times)

    starts = series.segment_starts().tolist()

    expected = [i for i, t in enumerate(times) if i == 0 or t - times[i - 1] != M3.ms]
    assert starts == expected


def test_a_gap_names_the_first_missing_candle_the_end_and_the_count() -> None:
    series = candles_at([START_MS, START_MS + 4 * M3.ms])

    assert series.gaps() == [Gap(START_MS + M3.ms, START_MS + 4 * M3.ms, 3)]


@given(grid_times(), st.integers(-10, 210), st.integers(0, M3.ms - 1))
def test_only_candles_that_had_closed_are_known(times: list[Millis], slot: int, rest: int) -> None:
    as_of = START_MS + slot * M3.ms + rest

    known = candles_at(times).known_at(as_of)

    assert known.open_time_ms.tolist() == [t for t in times if t + M3.ms <= as_of]


@given(grid_times(), st.none() | st.integers(-5, 205), st.none() | st.integers(-5, 205))
def test_a_range_is_half_open(times: list[Millis], first: int | None, last: int | None) -> None:
    start = None if first is None else START_MS + first * M3.ms
    end = None if last is None else START_MS + last * M3.ms

    found = candles_at(times).between(start, end).open_time_ms.tolist()

    assert found == [t for t in times if (start is None or t >= start) and (end is None or t < end)]


def broken(field: str, row: int, value: float) -> dict[str, Any]:
    columns = columns_of(run_of_candles(10))
    columns[field][row] = value
    return columns


@pytest.mark.parametrize(
    ("columns", "reasons"),
    [
        (broken("close", 3, np.nan), {"price not finite": 1}),
        (broken("open", 3, np.inf), {"price not finite": 1}),
        (broken("low", 0, -1.0), {"price not positive": 1}),
        (broken("volume", 3, -1.0), {"negative volume": 1}),
        (broken("volume", 3, np.nan), {"volume not finite": 1}),
        (broken("high", 3, 1.0), {"high below low": 1}),
        (broken("close", 3, 1.0), {"high or low does not bracket open and close": 1}),
        (broken("open_time_ms", 3, START_MS + 2 * M3.ms), {"duplicate time": 1}),
        (broken("open_time_ms", 3, START_MS), {"not in time order": 1}),
        (broken("open_time_ms", 3, START_MS + 3 * M3.ms + 1), {"open time off the 3m grid": 1}),
        # Off the grid as well, and still one bad row.
        (broken("open_time_ms", 0, 1_704_067_200), {"time outside 2001 to 2286": 1}),
    ],
)  # fmt: skip
def test_a_bad_candle_is_refused_with_its_reason(
    columns: dict[str, Any], reasons: dict[str, int]
) -> None:
    with pytest.raises(InvalidDataError) as refusal:
        CandleSeries.validated(M3, columns)

    assert refusal.value.reasons == reasons


@given(st.sets(st.integers(0, 49), min_size=1), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_refused_candles_are_counted(rows: set[int], value: float) -> None:
    columns = columns_of(run_of_candles(50))
    columns["volume"][list(rows)] = value

    with pytest.raises(InvalidDataError) as refusal:
        CandleSeries.validated(M3, columns, "my file")

    assert refusal.value.reasons["volume not finite"] == len(rows)
    assert "my file" in str(refusal.value)


def test_columns_of_different_length_are_refused() -> None:
    columns = columns_of(run_of_candles(10))
    columns["volume"] = columns["volume"][1:]

    with pytest.raises(InvalidInputError, match="differ in length"):
        CandleSeries.validated(M3, columns)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "SOLUSDT"])
def test_real_five_minute_candles_give_the_exchange_s_own_four_hour_candles(
    real_data: Any, symbol: str
) -> None:
    def read(timeframe: Timeframe) -> CandleSeries:
        name = f"bybit_linear_{symbol}_candles_{timeframe}.parquet"
        table = pl.read_parquet(real_data / "bybit_5m_2025-09_2026-03" / name)
        columns = {field: table[field].to_numpy() for field in CANDLE_FIELDS}
        return CandleSeries.validated(
            timeframe, {"open_time_ms": table["timestamp_ms"].to_numpy(), **columns}
        )

    built, native = resample(read(M5), H4), read(H4)

    assert np.array_equal(built.open_time_ms, native.open_time_ms)
    for field in ("open", "high", "low", "close"):
        assert np.array_equal(getattr(built, field), getattr(native, field))
    assert np.allclose(built.volume, native.volume, rtol=1e-9)
