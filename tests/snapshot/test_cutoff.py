"""No snapshot knows its future, and none depends on what else was loaded or built with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Times
from llm_trader.market.history import MarketHistory
from llm_trader.snapshot.builder import FOUR_HOUR_REACH_MS, build_snapshots
from llm_trader.snapshot.model import EXPECTED_VOLATILITY, SCALARS
from llm_trader.snapshot.table import ROW, SnapshotTable
from llm_trader.timeframe import DAY_MS, H4, M3, M5, M15, Millis, Timeframe
from tests.market.builders import START_MS
from tests.snapshot.histories import (
    BINANCE_2023,
    BINANCE_2025_3M,
    BYBIT_2025,
    between,
    garbled_after,
    grid,
    real,
    same_snapshots,
    simulated,
    with_holes,
)

DAYS = 26
FIRST_DAY = 21.5  # 120 four-hour candles are 20 days
timeframes = st.sampled_from([M3, M5])
seeds = st.integers(0, 2**32)
cuts = st.one_of(
    st.integers(START_MS + 22 * DAY_MS, START_MS + DAYS * DAY_MS),
    st.integers(22 * 96, DAYS * 96).map(lambda quarter: START_MS + quarter * M15.ms),
)
REAL = [
    pytest.param(BYBIT_2025, "BTCUSDT", id="bybit-2025-btc", marks=pytest.mark.soak),
    pytest.param(BYBIT_2025, "SOLUSDT", id="bybit-2025-sol", marks=pytest.mark.soak),
    pytest.param(BINANCE_2023, "ETHUSDT", id="binance-2023-eth", marks=pytest.mark.soak),
    pytest.param(BINANCE_2025_3M, "BTCUSDT", id="binance-2025-3m-btc"),
]


def expected_until(
    cut_ms: Millis, timeframe: Timeframe, seed: int
) -> tuple[MarketHistory, Times, SnapshotTable]:
    """A history with its future, times on both sides of the cut, and the snapshots up to it."""
    history = with_holes(simulated(DAYS, timeframe), seed)
    times = grid(history, FIRST_DAY)
    return history, times, build_snapshots(history, times).take(times <= cut_ms)


def alone(history: MarketHistory, as_of_ms: Millis) -> SnapshotTable:
    """One snapshot as a live query builds it, from the history that it needs and no more."""
    part = between(history, as_of_ms - DAY_MS - FOUR_HOUR_REACH_MS, as_of_ms + 1)
    return build_snapshots(part, np.array([as_of_ms]))


@given(timeframes, seeds, cuts)
def test_cutting_the_future_off_changes_no_snapshot(
    timeframe: Timeframe, seed: int, cut_ms: Millis
) -> None:
    history, times, expected = expected_until(cut_ms, timeframe, seed)

    cut_off = build_snapshots(history.known_at(cut_ms), times[times <= cut_ms])

    assert same_snapshots(cut_off, expected)


@given(timeframes, seeds, cuts)
@pytest.mark.soak
def test_another_future_changes_no_snapshot(
    timeframe: Timeframe, seed: int, cut_ms: Millis
) -> None:
    history, times, expected = expected_until(cut_ms, timeframe, seed)

    otherwise = build_snapshots(garbled_after(history, cut_ms, seed), times)

    assert same_snapshots(otherwise.take(times <= cut_ms), expected)


def test_another_future_is_noticed_by_every_snapshot_in_it() -> None:
    """The test above can fail."""
    history = simulated(DAYS)
    times = grid(history, 24)
    cut_ms = START_MS + 24 * DAY_MS

    otherwise = build_snapshots(garbled_after(history, cut_ms, 0), times[1:])

    same_row = (otherwise.scalars == build_snapshots(history, times[1:]).scalars).all(axis=1)
    told = {name for name, same in zip(SCALARS, same_row.tolist(), strict=True) if same}
    # Nonsense has the same clock, and settles as often.
    assert told == {"hour_of_day", "funding_interval_hours", "missing_candles_4h"}


@pytest.mark.parametrize(("source", "symbol"), REAL)
def test_cutting_the_future_off_changes_no_snapshot_of_a_real_market(
    real_data: Path, source: tuple[str, str, Timeframe], symbol: str
) -> None:
    history = real(real_data, source, symbol)
    times = grid(history, 0)
    whole = build_snapshots(history, times)
    assert whole.complete().sum() > 2500
    cuts_ms = np.random.default_rng(5).integers(times[0] + 22 * DAY_MS, times[-1], 6)

    for cut_ms in cuts_ms.tolist():
        rows = (times <= cut_ms) & (times > cut_ms - 4 * DAY_MS)
        cut_off = build_snapshots(history.known_at(cut_ms), times[rows])
        assert same_snapshots(cut_off, whole.take(rows))
        otherwise = build_snapshots(garbled_after(history, cut_ms, 1), times[rows])
        assert same_snapshots(otherwise, whole.take(rows))


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 8))]
)
@pytest.mark.parametrize("timeframe", [M3, M5], ids=str)
def test_a_snapshot_built_alone_from_its_reach_equals_its_row_of_a_batch(
    timeframe: Timeframe, seed: int
) -> None:
    history = simulated(75, timeframe)
    if seed:
        history = with_holes(history, seed)
    times = grid(history, 62)
    batch = build_snapshots(history, times)

    for row in np.random.default_rng(seed).integers(0, len(times), 12).tolist():
        assert same_snapshots(alone(history, int(times[row])), batch.take(np.array([row])))


@pytest.mark.parametrize(("source", "symbol"), REAL)
def test_a_snapshot_of_a_real_market_built_alone_equals_its_row_of_a_batch(
    real_data: Path, source: tuple[str, str, Timeframe], symbol: str
) -> None:
    history = real(real_data, source, symbol)
    times = grid(history, 0)
    batch = build_snapshots(history, times)

    for row in np.random.default_rng(6).integers(0, len(times), 60).tolist():
        assert same_snapshots(alone(history, int(times[row])), batch.take(np.array([row])))


@given(seeds, st.floats(0.01, 0.99))
def test_a_snapshot_does_not_depend_on_which_others_are_built_with_it(
    seed: int, share: float
) -> None:
    history = with_holes(simulated(DAYS), seed)
    times = grid(history, FIRST_DAY)
    some = np.random.default_rng(seed).random(len(times)) < share

    assert same_snapshots(
        build_snapshots(history, times[some]), build_snapshots(history, times).take(some)
    )


@given(st.integers(0, 3 * 96 - 1))
def test_a_snapshot_is_made_of_the_last_closed_candles(row: int) -> None:
    history = simulated(DAYS)
    times = grid(history, 23)
    as_of_ms = int(times[row])

    snapshot = build_snapshots(history, times).snapshot(row)

    fine, coarse = history.intraday, history.four_hour
    last = np.searchsorted(fine.open_time_ms, as_of_ms - M5.ms)
    last_4h = np.searchsorted(coarse.open_time_ms, H4.floor(as_of_ms) - H4.ms)
    assert fine.open_time_ms[last] + M5.ms == as_of_ms
    assert as_of_ms - H4.ms < coarse.open_time_ms[last_4h] + H4.ms <= as_of_ms
    assert snapshot.price == fine.close[last]
    assert snapshot.mid_prices == fine.close[last - 9 : last + 1].tolist()
    assert snapshot.current_volume_4h == coarse.volume[last_4h]


@given(st.integers(1, 3 * 96 - 1), st.floats(0.01, 100))
def test_a_candle_that_is_still_open_does_not_matter(row: int, factor: float) -> None:
    history = simulated(DAYS)
    as_of_ms = int(grid(history, 23)[row])
    truth = build_snapshots(history, np.array([as_of_ms]))

    def altered(open_time_of_fine: Millis, open_time_of_coarse: Millis) -> SnapshotTable:
        changed = {}
        for name, at in (("intraday", open_time_of_fine), ("four_hour", open_time_of_coarse)):
            series = getattr(history, name)
            factors = np.where(series.open_time_ms == at, factor, 1.0)
            columns = {field: values * factors for field, values in series.columns()}
            changed[name] = replace(series, **columns)
        return build_snapshots(replace(history, **changed), np.array([as_of_ms]))

    still_open = altered(as_of_ms, H4.floor(as_of_ms))
    just_closed = altered(as_of_ms - M5.ms, H4.floor(as_of_ms) - H4.ms)

    assert same_snapshots(still_open, truth)
    assert same_snapshots(just_closed, truth) == (factor == 1.0)


@given(st.integers(1, 24 * 60 - 1))
def test_a_time_off_the_grid_knows_what_the_last_closed_candle_told(minutes: int) -> None:
    history = simulated(DAYS)
    as_of_ms = START_MS + 25 * DAY_MS + minutes * 60_000 + 17
    at = np.array([M5.floor(as_of_ms), as_of_ms])

    table = build_snapshots(history, at)

    differ = table.scalars[:, 0] != table.scalars[:, 1]
    moves_on = {"hour_of_day", *EXPECTED_VOLATILITY.values()}  # what is expected of the time ahead
    assert {name for name, changed in zip(SCALARS, differ, strict=True) if changed} <= moves_on
    assert differ[ROW["hour_of_day"]] == (at[1] // 60_000 != at[0] // 60_000)
    assert np.array_equal(table.series[:, 0], table.series[:, 1])
    assert np.isfinite(table.scalars).all()


def test_snapshots_before_and_after_midnight_agree_on_the_points_they_share() -> None:
    """The recursions of two days begin at different candles; the values must still agree."""
    history = simulated(75)
    midnight = START_MS + 70 * DAY_MS
    times = np.arange(midnight - M15.ms, midnight + 1, M5.ms)
    table = build_snapshots(history, times)

    later = build_snapshots(history, np.array([midnight + M15.ms]))

    before, at = table.series[:, -2], later.series[:, 0]
    fine, coarse = slice(0, 5), slice(5, 7)
    np.testing.assert_allclose(at[fine, 5], before[fine, 9], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(at[coarse, :9], before[coarse, 1:], rtol=1e-6, atol=1e-6)
