"""Stretches of repeated candles."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.candles import CandleSeries
from llm_trader.market.frozen import FrozenStretch, frozen_stretches
from llm_trader.timeframe import H4, HOUR_MS, M5
from tests.market.builders import START_MS, run_of_candles
from tests.snapshot.histories import candle_rows


def stretches_of(candles: CandleSeries) -> list[FrozenStretch]:
    return frozen_stretches([candles])


def repeated(candles: CandleSeries, row: int, count: int) -> CandleSeries:
    """With `count` candles like the one of `row` after it."""
    rows = np.arange(len(candles))
    rows[row : row + count + 1] = row
    return replace(candles, **{name: values[rows] for name, values in candles.columns()})


@given(st.integers(0, 40), st.integers(0, 30))
def test_repeats_of_an_hour_or_longer_are_one_stretch(row: int, count: int) -> None:
    candles = repeated(run_of_candles(80, M5), row, count)
    stretches = stretches_of(candles)
    if count < 12:
        assert not stretches
    else:
        (stretch,) = stretches
        assert stretch.candles == count
        assert stretch.start_ms == START_MS + (row + 1) * M5.ms
        assert stretch.end_ms - stretch.start_ms == count * M5.ms


def test_a_hole_ends_a_stretch() -> None:
    candles = repeated(run_of_candles(80, M5), 10, 40)
    kept = np.ones(80, bool)
    kept[30:33] = False
    first, second = stretches_of(candle_rows(candles, kept))
    assert (first.candles, second.candles) == (19, 17)  # the first after the hole repeats nothing


def test_a_stretch_reaches_to_the_last_candle() -> None:
    (stretch,) = stretches_of(repeated(run_of_candles(40, M5), 20, 19))
    assert stretch.end_ms == START_MS + 40 * M5.ms


def test_one_repeated_4h_candle_is_four_hours() -> None:
    (stretch,) = stretches_of(repeated(run_of_candles(10, H4), 4, 1))
    assert stretch.end_ms - stretch.start_ms == 4 * HOUR_MS


def test_candles_of_which_only_the_volume_changes_are_not_frozen() -> None:
    candles = repeated(run_of_candles(60, M5), 10, 40)
    assert not stretches_of(replace(candles, volume=np.arange(60.0)))


def test_no_candles_have_no_stretch() -> None:
    assert not stretches_of(run_of_candles(0, M5))


@given(st.integers(0, 60), st.integers(0, 60), st.lists(st.integers(1, 78), max_size=5))
def test_candles_in_parts_have_the_same_stretches_as_one_series(
    row: int, count: int, cuts: list[int]
) -> None:
    candles = repeated(run_of_candles(80, M5), row, min(count, 79 - row))
    bounds = [0, *sorted(set(cuts)), 80]
    parts = [candles.rows(slice(max(0, first - 1), end)) for first, end in pairwise(bounds)]
    assert frozen_stretches(parts) == stretches_of(candles)
