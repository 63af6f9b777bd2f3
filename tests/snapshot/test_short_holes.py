"""Across short holes a state is computed of what is there, says so, and is near the true one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.history import MarketHistory
from llm_trader.snapshot.builder import SnapshotRules, build_snapshots
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.table import ROW, SnapshotTable
from llm_trader.timeframe import DAY_MS, M5
from tests.snapshot.histories import BYBIT_2025, candle_rows, grid, real, simulated, without

DAYS = 26
FLAGS = ("missing_candles", "missing_candles_4h")
# Exact across a hole: they are of candles that are there.
EXACT = (
    *("price", "price_change_1h", "price_change_4h", "price_change_24h", "hour_of_day"),
    *("funding_rate", "funding_interval_hours", "open_interest_latest", "open_interest_avg_24h"),
)


def holed(first_back: int, length: int) -> MarketHistory:
    """Without some intraday candles, the first of them so many before the end."""
    history = simulated(DAYS)
    first = len(history.intraday) - first_back
    return replace(history, intraday=without(history.intraday, [(first, length)]))


@pytest.mark.parametrize(("length", "goes_on"), [(1, True), (3, True), (4, False)])
def test_indicators_go_on_across_a_hole_of_three_candles_and_begin_anew_after_four(
    length: int, goes_on: bool
) -> None:
    history = holed(40, length)
    last = grid(history, 25)[-1:]
    table = build_snapshots(history, last)
    assert np.isfinite(table.column("rsi_14")[0]) == goes_on
    assert np.isfinite(table.column("expected_volatility_1h")[0]) == goes_on
    assert table.column("missing_candles")[0] == (length if goes_on else 0)


def test_how_long_a_hole_may_be_is_a_rule() -> None:
    history, last = holed(40, 2), grid(simulated(DAYS), 25)[-1:]
    strict, lenient = (
        build_snapshots(history, last, SnapshotRules(max_hole_candles=longest))
        for longest in (1, 2)
    )
    assert np.isnan(strict.column("rsi_14")[0])
    assert np.isfinite(lenient.column("rsi_14")[0])


def test_no_value_is_put_into_a_hole_of_a_series() -> None:
    history = holed(5, 2)
    snapshot = build_snapshots(history, grid(history, 25)[-1:]).snapshot(0)
    closes = simulated(DAYS).intraday.close[-10:].tolist()
    assert snapshot.mid_prices == [*closes[:5], None, None, *closes[7:]]
    assert snapshot.rsi_14_values is not None
    assert [i for i, value in enumerate(snapshot.rsi_14_values) if value is None] == [5, 6]


def test_the_next_candle_after_a_hole_is_the_next_one_of_an_indicator() -> None:
    history = holed(40, 3)
    candles = history.intraday
    # As if the candles before the hole had been three candles later.
    hole = len(candles) - 37
    times = candles.open_time_ms.copy()
    times[:hole] += 3 * M5.ms
    closed_up = replace(history, intraday=replace(candles, open_time_ms=times))
    last = grid(simulated(DAYS), 25)[-1:]
    one, other = (build_snapshots(market, last) for market in (history, closed_up))
    for name in ("rsi_7", "rsi_14", "macd", "ema_20"):
        # Their recursions begin three candles apart, and have forgotten that.
        assert one.column(name)[0] == pytest.approx(other.column(name)[0], rel=1e-6), name


@given(
    st.lists(st.tuples(st.integers(13, 8 * 288), st.integers(1, 3)), min_size=1, max_size=12),
    st.integers(0, 2 * 96 - 1),
)
def test_what_is_known_across_holes_is_counted_and_depends_on_the_past_alone(
    holes: list[tuple[int, int]], row: int
) -> None:
    history = simulated(DAYS)
    n = len(history.intraday)
    intraday = without(history.intraday, [(n - back, length) for back, length in holes])
    market = replace(history, intraday=intraday)
    times = grid(history, DAYS - 2)
    batch, truth = build_snapshots(market, times), build_snapshots(history, times)

    # Live, of no more history than is read for it.
    as_of_ms = int(times[row])
    midnight_ms = as_of_ms - as_of_ms % DAY_MS
    past = replace(
        market.known_at(as_of_ms),
        intraday=intraday.between(midnight_ms - 7 * DAY_MS - 3_600_000, as_of_ms),
    )
    live = build_snapshots(past, times[row : row + 1])
    assert np.array_equal(live.scalars, batch.scalars[:, row : row + 1], equal_nan=True)

    known = np.isfinite(batch.scalars)
    for name in EXACT:
        same = known[ROW[name]]
        assert np.array_equal(batch.column(name)[same], truth.column(name)[same]), name
    complete = known.all(axis=0)
    missing_ms = np.setdiff1d(history.intraday.open_time_ms, intraday.open_time_ms)
    lacks = [((missing_ms < t) & (missing_ms >= t - 7 * DAY_MS)).sum() for t in times[complete]]
    assert batch.column("missing_candles")[complete].tolist() == lacks


def test_4h_indicators_go_on_across_missing_candles_and_say_how_many() -> None:
    history = simulated(75)
    n = len(history.four_hour)
    for length, goes_on in ((3, True), (4, False)):
        four_hour = without(history.four_hour, [(n - 40, length)])
        last = grid(history, 74)[-1:]
        table = build_snapshots(replace(history, four_hour=four_hour), last)
        assert np.isfinite(table.column("rsi_14_4h")[0]) == goes_on
        assert np.isfinite(table.column("missing_candles_4h")[0]) == goes_on
        if goes_on:
            assert table.column("missing_candles_4h")[0] == length


def test_where_more_than_a_tenth_is_missing_nothing_is_computed() -> None:
    history = simulated(DAYS)
    n = len(history.intraday)
    every_ninth = replace(
        history, intraday=without(history.intraday, [(row, 1) for row in range(4, n, 9)])
    )
    last = grid(history, 25)[-2:-1]
    table = build_snapshots(every_ninth, last)
    assert np.isfinite(table.column("price")[0])
    assert np.isnan(table.column("rsi_14")[0])


def spread(table: SnapshotTable, name: str) -> float:
    values = table.column(name)
    return float(np.nanquantile(values, 0.84) - np.nanquantile(values, 0.16)) / 2


@pytest.mark.parametrize("symbol", ["BTCUSDT", pytest.param("SOLUSDT", marks=pytest.mark.soak)])
def test_without_one_of_a_thousand_candles_a_real_market_keeps_its_states(
    real_data: Path, symbol: str
) -> None:
    history = real(real_data, BYBIT_2025, symbol)
    times = grid(history, 20)
    kept = np.random.default_rng(8).random(len(history.intraday)) >= 0.001
    intraday = candle_rows(history.intraday, kept)

    truth = build_snapshots(history, times)
    table = build_snapshots(replace(history, intraday=intraday), times)

    complete = np.isfinite(table.scalars).all(axis=0)
    assert complete.sum() >= 0.98 * np.isfinite(truth.scalars).all(axis=0).sum()
    lacks_in_week = table.column("missing_candles")[complete] > 0
    assert lacks_in_week.mean() > 0.8
    for name in SCALARS:
        if name in FLAGS:
            continue
        differs = np.abs(table.column(name) - truth.column(name))[complete]
        if name in EXACT:
            assert (differs == 0).all(), name
        # The stated tolerance: nearly all values differ by less than a tenth of their spread.
        assert np.quantile(differs, 0.99) <= 0.1 * spread(truth, name), name
        assert (differs[~lacks_in_week] == 0).all(), name
