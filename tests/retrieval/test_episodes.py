from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Rows, Times
from llm_trader.retrieval.episodes import earliest_episodes, effective_counts, nearest_episodes
from llm_trader.timeframe import HOUR_MS, MINUTE_MS
from tests.index.builders import START_MS

GAPS = st.one_of(
    st.sampled_from([1, MINUTE_MS, 15 * MINUTE_MS, 4 * HOUR_MS, 168 * HOUR_MS]),
    st.integers(1, 200 * HOUR_MS),
)
# In quarter-hours or to the millisecond, in any order, some twice.
TIMES = st.one_of(
    st.lists(st.integers(0, 400).map(lambda slot: START_MS + slot * 15 * MINUTE_MS), max_size=80),
    st.lists(st.integers(START_MS, START_MS + 400 * HOUR_MS), max_size=80),
)
Choose = Callable[[Times, int, int], Rows]
HORIZONS = st.lists(st.integers(1, 48 * HOUR_MS), min_size=1, max_size=4)


def greedy(times: list[int], gap_ms: int, count: int) -> list[int]:
    """Each against all chosen before."""
    chosen: list[int] = []
    for position, stamp in enumerate(times):
        if len(chosen) < count and all(abs(stamp - times[p]) >= gap_ms for p in chosen):
            chosen.append(position)
    return chosen


@given(TIMES, GAPS, st.integers(1, 90))
def test_the_nearest_are_those_of_the_plain_greedy_choice(
    times: list[int], gap_ms: int, count: int
) -> None:
    chosen = nearest_episodes(np.array(times, np.int64), gap_ms, count)
    assert chosen.tolist() == greedy(times, gap_ms, count)


@given(TIMES, GAPS)
def test_two_of_the_nearest_are_never_less_than_the_gap_apart(
    times: list[int], gap_ms: int
) -> None:
    chosen = sorted(
        times[i] for i in nearest_episodes(np.array(times, np.int64), gap_ms, 1000).tolist()
    )
    assert all(b - a >= gap_ms for a, b in pairwise(chosen))


@given(TIMES, GAPS)
def test_every_time_left_out_lies_near_a_nearer_one(times: list[int], gap_ms: int) -> None:
    chosen = nearest_episodes(np.array(times, np.int64), gap_ms, 1000).tolist()
    for position in set(range(len(times))) - set(chosen):
        assert any(abs(times[position] - times[p]) < gap_ms for p in chosen if p < position)


def earliest(times: list[int], gap_ms: int) -> list[int]:
    """Positions in the order of time, each a gap after the one before."""
    chosen: list[int] = []
    for position in sorted(range(len(times)), key=lambda p: times[p]):
        if not chosen or times[position] - times[chosen[-1]] >= gap_ms:
            chosen.append(position)
    return chosen


def searched_naively(times: list[int], gap_ms: int, count: int) -> list[int]:
    for head in range(len(times) + 1):
        if len(earliest(times[:head], gap_ms)) == count:
            return sorted(earliest(times[:head], gap_ms))
    return sorted(earliest(times, gap_ms))


@given(TIMES, GAPS, st.integers(1, 90))
def test_episodes_are_the_earliest_choice_of_the_fewest_times_that_have_as_many(
    times: list[int], gap_ms: int, count: int
) -> None:
    chosen = earliest_episodes(np.array(times, np.int64), gap_ms, count)
    assert chosen.tolist() == searched_naively(times, gap_ms, count)


@given(TIMES, GAPS)
def test_two_episodes_are_never_less_than_the_gap_apart(times: list[int], gap_ms: int) -> None:
    chosen = sorted(
        times[i] for i in earliest_episodes(np.array(times, np.int64), gap_ms, 1000).tolist()
    )
    assert all(b - a >= gap_ms for a, b in pairwise(chosen))


@given(TIMES, GAPS)
def test_every_time_left_out_lies_within_a_gap_after_an_episode(
    times: list[int], gap_ms: int
) -> None:
    chosen = earliest_episodes(np.array(times, np.int64), gap_ms, 1000).tolist()
    for position in set(range(len(times))) - set(chosen):
        assert any(0 <= times[position] - times[p] < gap_ms for p in chosen)


@given(TIMES, TIMES, GAPS, st.integers(1, 20))
def test_farther_times_change_nothing_once_there_are_enough(
    times: list[int], farther: list[int], gap_ms: int, count: int
) -> None:
    chosen = earliest_episodes(np.array(times, np.int64), gap_ms, count)
    if len(chosen) == count:
        more = earliest_episodes(np.array(times + farther, np.int64), gap_ms, count)
        assert more.tolist() == chosen.tolist()


@pytest.mark.parametrize("choose", [nearest_episodes, earliest_episodes])
@given(times=TIMES, count=st.integers(1, 90))
def test_without_a_gap_the_first_ones_are_chosen(
    choose: Choose, times: list[int], count: int
) -> None:
    chosen = choose(np.array(times, np.int64), 0, count)
    assert chosen.tolist() == list(range(min(count, len(times))))


@pytest.mark.parametrize("choose", [nearest_episodes, earliest_episodes])
def test_times_exactly_one_gap_apart_are_two_episodes(choose: Choose) -> None:
    times = np.array([START_MS, START_MS + HOUR_MS, START_MS + 2 * HOUR_MS - 1], np.int64)
    assert choose(times, HOUR_MS, 10).tolist() == [0, 1]


@given(TIMES.filter(len), HORIZONS)
def test_the_effective_count_is_that_of_outcomes_correlated_by_their_overlap(
    times: list[int], horizons: list[int]
) -> None:
    expected = []
    for horizon_ms in horizons:
        correlation = sum(max(0.0, 1 - abs(a - b) / horizon_ms) for a in times for b in times)
        expected.append(len(times) ** 2 / correlation)
    counts = effective_counts(np.array(times, np.int64), horizons)
    np.testing.assert_allclose(counts, expected, rtol=1e-9)


@given(TIMES.filter(len), HORIZONS)
def test_the_effective_count_lies_between_one_and_all(
    times: list[int], horizons: list[int]
) -> None:
    counts = effective_counts(np.array(times, np.int64), horizons)
    assert (counts >= 1 - 1e-9).all()
    assert (counts <= len(times) * (1 + 1e-9)).all()


@given(st.integers(1, 60), st.integers(1, 48 * HOUR_MS))
def test_episodes_a_horizon_apart_count_in_full(count: int, horizon_ms: int) -> None:
    times = START_MS + horizon_ms * np.arange(count, dtype=np.int64)
    assert effective_counts(times[::-1], [horizon_ms]).tolist() == [count]


@given(st.integers(1, 60), st.integers(1, 48 * HOUR_MS))
def test_episodes_of_one_time_count_as_one(count: int, horizon_ms: int) -> None:
    times = np.full(count, START_MS, np.int64)
    np.testing.assert_allclose(effective_counts(times, [horizon_ms]), [1.0])


def test_two_episodes_half_a_horizon_apart_count_as_one_and_a_third() -> None:
    times = np.array([START_MS, START_MS + HOUR_MS], np.int64)
    np.testing.assert_allclose(effective_counts(times, [2 * HOUR_MS]), [4 / 3])
