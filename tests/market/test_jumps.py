"""Jumps of candles: what counts as one, and how runs of candles end there."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.candles import CandleSeries
from llm_trader.market.jumps import CandleSpan, find_jumps, jump_rows, jumps_of_parts, mark_jumps
from llm_trader.market.resampling import resample
from llm_trader.timeframe import H4, HOUR_MS, M3, M5, MINUTE_MS
from tests.market.builders import START_MS, run_of_candles
from tests.market.drawn_series import any_candles

PRICES = ("open", "high", "low", "close")


def scaled(candles: CandleSeries, rows: slice, factor: float) -> CandleSeries:
    """The candles with all prices of some rows multiplied."""
    factors = np.ones(len(candles))
    factors[rows] = factor
    return replace(candles, **{name: getattr(candles, name) * factors for name in PRICES})


def with_price(candles: CandleSeries, row: int, **prices: float) -> CandleSeries:
    columns = {name: getattr(candles, name).copy() for name in prices}
    for name, price in prices.items():
        columns[name][row] = price
    return replace(candles, **columns)


def jumps_by_loop(candles: CandleSeries) -> list[int]:
    rows = []
    for row in range(len(candles)):
        open_, high, low, close = (float(getattr(candles, name)[row]) for name in PRICES)
        before = float(candles.close[row - 1]) if row else open_
        moved = max(open_, close, before) > 3 * min(open_, close, before)
        if moved or high > 3 * max(open_, close) or 3 * low < min(open_, close):
            rows.append(row)
    return rows


@given(any_candles())
def test_jumps_equal_those_of_a_naive_loop(candles: CandleSeries) -> None:
    assert jump_rows(candles).tolist() == jumps_by_loop(candles)
    assert [jump.time_ms for jump in find_jumps("BTCUSDT", candles, [])] == (
        candles.open_time_ms[jumps_by_loop(candles)].tolist()
    )


@pytest.mark.parametrize("factor", [3.5, 1 / 3.5, 1000.0, 0.001])
def test_a_redenomination_is_one_jump_at_its_first_candle(factor: float) -> None:
    candles = scaled(run_of_candles(50, M5), slice(20, None), factor)
    (jump,) = find_jumps("BTCUSDT", candles, [])
    assert jump.time_ms == candles.open_time_ms[20]
    assert jump.ratio == pytest.approx(factor, rel=0.02)
    assert jump.before in (candles.close[19], candles.open[20])


@pytest.mark.parametrize("factor", [2.9, 1 / 2.9])
def test_a_move_by_less_than_three_is_none(factor: float) -> None:
    assert not find_jumps("BTCUSDT", scaled(run_of_candles(50, M5), slice(20, None), factor), [])


def test_a_bad_tick_is_two_jumps_there_and_back() -> None:
    candles = scaled(run_of_candles(50, M5), slice(20, 21), 10.0)
    assert jump_rows(candles).tolist() == [20, 21]


@pytest.mark.parametrize(("name", "price"), [("high", 400.0), ("low", 20.0)])
def test_a_spike_inside_a_candle_is_a_jump(name: str, price: float) -> None:
    candles = with_price(run_of_candles(50, M5), 20, **{name: price})
    (jump,) = find_jumps("BTCUSDT", candles, [])
    assert (jump.time_ms, jump.price, jump.after) == (candles.open_time_ms[20], name, price)


def test_a_jump_across_a_hole_is_one() -> None:
    candles = scaled(run_of_candles(50, M5), slice(30, None), 1000.0)
    kept = np.r_[0:20, 30:50]
    holed = CandleSeries(
        M5, candles.open_time_ms[kept], *(values[kept] for _, values in candles.columns())
    )
    assert [jump.time_ms for jump in find_jumps("BTCUSDT", holed, [])] == [candles.open_time_ms[30]]


def test_a_run_of_candles_begins_anew_at_an_unaccepted_jump_only() -> None:
    candles = scaled(run_of_candles(50, M5), slice(20, None), 1000.0)
    open_ms = int(candles.open_time_ms[20])
    assert mark_jumps(candles, []).segment_starts().tolist() == [0, 20]
    accepted = [CandleSpan(open_ms, open_ms + M5.ms)]
    assert mark_jumps(candles, accepted).segment_starts().tolist() == [0]


@given(st.integers(1, 48), st.integers(0, 48), st.integers(1, 10))
def test_no_window_that_follows_a_candle_crosses_a_jump(jump: int, start: int, count: int) -> None:
    candles = mark_jumps(scaled(run_of_candles(50, M5), slice(jump, None), 1000.0), [])
    places, _ = candles.followed_by(np.array([start]), np.array([0]), count)
    inside = start + count < 50
    assert places.tolist() == ([0] if inside and not start < jump <= start + count else [])


def test_what_was_known_before_a_jump_has_none() -> None:
    candles = mark_jumps(scaled(run_of_candles(50, M5), slice(20, None), 1000.0), [])
    jump_ms = int(candles.open_time_ms[20])
    assert candles.known_at(jump_ms + M5.ms).jumps_ms.tolist() == [jump_ms]
    assert not len(candles.known_at(jump_ms + M5.ms - 1).jumps_ms)
    assert not len(candles.between(jump_ms + M5.ms, None).jumps_ms)


@pytest.mark.parametrize("jump_minute", [0, 5, 85, 235])
def test_the_same_jump_in_4h_candles_is_accepted_with_that_of_5m(jump_minute: int) -> None:
    fine = run_of_candles(12 * 24, M5)
    row = (12 * HOUR_MS + jump_minute * MINUTE_MS) // M5.ms
    fine = scaled(fine, slice(row, None), 1000.0)
    coarse = resample(fine, H4)
    (jump,) = find_jumps("BTCUSDT", coarse, [])
    assert jump.time_ms == START_MS + 12 * HOUR_MS
    (fine_jump,) = find_jumps("BTCUSDT", fine, [])
    accepted = [CandleSpan(fine_jump.time_ms, fine_jump.time_ms + M5.ms)]
    assert not len(mark_jumps(coarse, accepted).jumps_ms)
    assert [found.accepted for found in find_jumps("BTCUSDT", fine, accepted)] == [True]


def test_an_accepted_jump_leaves_the_way_back_of_a_bad_tick_unaccepted() -> None:
    candles = scaled(run_of_candles(50, M3), slice(20, 21), 10.0)
    there_ms, back_ms = candles.open_time_ms[[20, 21]].tolist()
    marked = mark_jumps(candles, [CandleSpan(there_ms, there_ms + M3.ms)])
    assert marked.jumps_ms.tolist() == [back_ms]


@given(any_candles(), st.lists(st.integers(1, 28), max_size=5))
def test_candles_in_parts_have_the_same_jumps_as_one_series(
    candles: CandleSeries, cuts: list[int]
) -> None:
    bounds = [0, *sorted({cut for cut in cuts if cut < len(candles)}), len(candles)]
    parts = [
        candles.rows(slice(max(0, first - 1), end))
        for first, end in pairwise(bounds)
        if end > first
    ]
    assert jumps_of_parts("BTCUSDT", parts, []) == find_jumps("BTCUSDT", candles, [])
