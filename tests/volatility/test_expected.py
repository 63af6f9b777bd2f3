"""Expected volatility is that of the definition, live as in batch, and never a guess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.candle_runs import CandleRuns
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M1, M3, M5, M15, MINUTE_MS, Timeframe
from llm_trader.volatility.expected import expected_volatility, mean_over, window_variances
from llm_trader.volatility.model import BUILT_IN, LONGEST_WINDOW_MS, WINDOWS
from tests.volatility.candles import START_MS, candles_of, walk, without
from tests.volatility.slow_har import expected_by_definition

WALK = walk(20)
FIRST_MS = START_MS + LONGEST_WINDOW_MS + M5.ms
LAST_MS = START_MS + 20 * DAY_MS


def expectation(candles: CandleSeries, as_of_ms: np.ndarray, max_hole: int = 0) -> np.ndarray:
    return expected_volatility(BUILT_IN, CandleRuns(candles, max_hole), as_of_ms)


def times(step_ms: int = M15.ms) -> np.ndarray:
    return np.arange(FIRST_MS - FIRST_MS % step_ms + step_ms, LAST_MS + 1, step_ms)


@given(st.integers(0, (LAST_MS - FIRST_MS) // M5.ms))
def test_it_is_that_of_the_definition_at_any_time(candle: int) -> None:
    as_of_ms = FIRST_MS + candle * M5.ms
    expected = expectation(WALK, np.array([as_of_ms]))[:, 0]
    slow = [expected_by_definition(BUILT_IN, WALK, as_of_ms, name) for name in HORIZONS]
    np.testing.assert_allclose(expected, slow, rtol=1e-10)


@given(st.integers(0, len(times()) - 1), st.integers(0, 3 * DAY_MS // M5.ms))
def test_a_live_value_equals_that_of_a_batch_to_the_bit(row: int, more: int) -> None:
    as_of_ms = int(times()[row])
    batch = expectation(WALK, times())[:, row]
    past = WALK.between(as_of_ms - LONGEST_WINDOW_MS - (1 + more) * M5.ms, as_of_ms)
    assert np.array_equal(expectation(past, times()[row : row + 1])[:, 0], batch)


def test_candles_that_close_later_change_nothing() -> None:
    as_of_ms = times()[100:101]
    cut = WALK.known_at(int(as_of_ms[0]))
    expected = expectation(WALK, as_of_ms)
    assert np.array_equal(expectation(cut, as_of_ms), expected)


def test_a_hole_that_is_too_long_makes_a_week_of_unknown_values_and_no_guess() -> None:
    hole = len(WALK) // 3
    holed = without(WALK, np.arange(len(WALK)) == hole)
    missing_ms = int(WALK.open_time_ms[hole])
    expected = expectation(holed, times())
    # The first whole window after the hole also needs the close before its first return.
    unknown = (times() > missing_ms) & (times() < missing_ms + 2 * M5.ms + LONGEST_WINDOW_MS)
    assert np.array_equal(np.isnan(expected).any(axis=0), unknown)
    whole = expectation(WALK, times())
    assert np.array_equal(expected[:, ~unknown], whole[:, ~unknown])


def test_across_a_short_hole_only_windows_that_begin_in_it_are_unknown() -> None:
    hole = len(WALK) // 2
    holed = without(WALK, np.isin(np.arange(len(WALK)), [hole, hole + 1]))
    closes_ms = WALK.open_time_ms[[hole, hole + 1]] + M5.ms
    found, whole = expectation(holed, times(), max_hole=2), expectation(WALK, times())
    begins_in_it = [np.isin(times() - w, closes_ms) for w in (0, *WINDOWS.values())]
    assert np.array_equal(np.isnan(found).any(axis=0), np.any(begins_in_it, axis=0))
    before = times() < closes_ms[0]
    after_a_week = times() > closes_ms[-1] + LONGEST_WINDOW_MS
    clean = before | after_a_week
    assert np.array_equal(found[:, clean], whole[:, clean])
    known = ~np.isnan(found).any(axis=0)
    # One return of three candles stands for three of a candle each.
    np.testing.assert_allclose(found[:, known], whole[:, known], rtol=0.35)
    np.testing.assert_allclose(np.median(found[:, known] / whole[:, known], axis=1), 1, atol=0.01)


def test_a_week_that_lacks_more_than_a_tenth_of_its_candles_gives_no_value() -> None:
    as_of_ms = np.array([LAST_MS])
    back = len(WALK) - 1 - np.arange(len(WALK))
    # No window begins at a candle that is 5 more than a multiple of 11 or 9 candles back.
    few, many = (back % every == 5 for every in (11, 9))
    assert np.isfinite(expectation(without(WALK, few), as_of_ms, max_hole=3)).all()
    assert np.isnan(expectation(without(WALK, many), as_of_ms, max_hole=3)).all()


def test_too_short_a_history_or_none_gives_no_value() -> None:
    early = np.array([START_MS + LONGEST_WINDOW_MS])
    assert np.isnan(expectation(WALK, early)).all()
    nothing = WALK.between(LAST_MS + DAY_MS, None)
    assert np.isnan(expectation(nothing, times())).all()


def test_a_market_that_does_not_move_has_a_small_and_finite_expectation() -> None:
    still = candles_of(np.full(10 * 288, 100.0))
    expected = expectation(still, np.array([START_MS + 9 * DAY_MS]))
    assert np.isfinite(expected).all()
    assert (expected < 0.2).all()


@pytest.mark.parametrize("timeframe", [M1, M3], ids=str)
def test_windows_of_candles_of_other_lengths_mean_the_same(timeframe: Timeframe) -> None:
    fine = walk(30, timeframe, seed=4)
    as_of_ms = np.arange(START_MS + 8 * DAY_MS, START_MS + 30 * DAY_MS, HOUR_MS)
    every = M15.ms // timeframe.ms
    coarse = candles_of(fine.close[every - 1 :: every], M15)
    factors = BUILT_IN.hour_factors
    of_fine, of_coarse = (
        window_variances(factors, CandleRuns(c, 0), as_of_ms)[2:] for c in (fine, coarse)
    )
    # The same random walk, seen through fewer returns: equal but for sampling noise.
    np.testing.assert_allclose(np.median(of_fine / of_coarse, axis=1), 1, atol=0.08)


@given(st.integers(0, 10**6), st.sampled_from([15, 60, 240, 1440, 10_080]))
def test_the_mean_over_a_length_of_time_is_that_of_its_minutes(minute: int, length: int) -> None:
    values = np.random.default_rng(5).random(168)
    start_ms = START_MS + minute * MINUTE_MS
    # START_MS is a Thursday at 00:00: hour 72 of a week that begins on Monday.
    hours = (72 + (minute + np.arange(length)) // 60) % 168
    mean = mean_over(values, np.array([start_ms]), length * MINUTE_MS)
    np.testing.assert_allclose(mean, values[hours].mean(), rtol=1e-9)
