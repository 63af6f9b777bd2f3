"""The verdict: what similar states add to the base, and that no jump in the past fakes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.retrieval.answer import Difference, Novelty
from llm_trader.retrieval.forecast import ForecastBase, size_numbers
from llm_trader.retrieval.verdict import (
    INFORMATIVE_Z,
    LEAST_EFFECTIVE_EPISODES,
    WEAK_Z,
    Comparison,
    compare_neighbours,
    decide_verdict,
    summary,
)
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS

EVERYWHERE = frozenset(HORIZONS)
ORDINARY = Novelty(50.0, 0.8, 128)
STRENGTH = ["none", "weak", "informative"]
SPREAD_MS = np.arange(60) * DAY_MS


def base_of(outcomes: np.ndarray) -> ForecastBase:
    """A window whose outcomes (n,) are the same at all horizons."""
    rows = np.sort(np.tile(outcomes, (4, 1)), axis=1)
    return ForecastBase.of_ascending(rows, rows.mean(axis=1))


def compared(base: np.ndarray, neighbours: np.ndarray, times_ms: np.ndarray) -> list[Comparison]:
    outcomes, ascending = (
        np.tile(values, (4, 1))[:, None] for values in (neighbours, np.sort(neighbours))
    )
    sizes, numbers = size_numbers(outcomes), base_of(base).numbers
    [comparisons] = compare_neighbours(numbers, outcomes, ascending, sizes, times_ms[None])
    return comparisons


def comparisons(**deviations: float) -> list[Comparison]:
    """By horizon, such as h4h; only the scale deviates."""
    return [
        Comparison(name.removeprefix("h"), Difference(1.2, 1.0, d), Difference(0.5, 0.5, 0.0))
        for name, d in deviations.items()
    ]


def verdict(skilled: frozenset[str] | None, **deviations: float) -> tuple[str, str]:
    return decide_verdict(comparisons(**deviations), 40.0, None, skilled)


def test_wider_and_higher_neighbours_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_t(4, 4000)
    wide = compared(base, 2 * rng.standard_t(4, 60), SPREAD_MS)[0]
    assert wide.scale.deviation > INFORMATIVE_Z
    assert wide.scale.value == pytest.approx(2, rel=0.4)
    assert abs(wide.direction.deviation) < WEAK_Z
    narrow = compared(base, rng.standard_t(4, 60) / 3, SPREAD_MS)[0]
    assert narrow.scale.deviation < -INFORMATIVE_Z
    high = compared(base, np.abs(rng.standard_t(4, 60)), SPREAD_MS)[0]
    assert high.direction.deviation > INFORMATIVE_Z
    assert high.direction.value == 1.0
    assert abs(high.scale.deviation) < WEAK_Z


@given(st.integers(0, 10_000), st.sampled_from([1e3, -1e3, 1e9]))
def test_a_jump_however_large_is_one_outcome_among_others(seed: int, jump: float) -> None:
    rng = np.random.default_rng(seed)
    base, neighbours = rng.standard_t(4, 2000), rng.standard_t(4, 60)
    before = compared(base, neighbours, SPREAD_MS)
    jumped = neighbours.copy()
    jumped[0] = jump
    after = compared(np.append(base, np.full(96, jump)), jumped, SPREAD_MS)
    for was, is_now in zip(before, after, strict=True):
        assert abs(is_now.scale.deviation - was.scale.deviation) < 1.5
        assert abs(is_now.direction.deviation - was.direction.deviation) < 1.5


@pytest.mark.parametrize("hours_apart", [1, pytest.param(6, marks=pytest.mark.soak), 48])
def test_chance_passes_the_thresholds_no_more_often_than_they_say(hours_apart: int) -> None:
    rng = np.random.default_rng(hours_apart)
    base, times_ms = rng.standard_normal(4000), np.arange(200) * hours_apart * HOUR_MS
    size = np.exp(np.repeat(rng.normal(0, 0.5, (400, 9)), 24, axis=1)[:, :200])  # by the day
    size = size if hours_apart == 1 else np.ones_like(size)
    deviations = []
    for row in range(400):
        first, *_ = compared(base, size[row] * rng.standard_normal(200), times_ms)
        deviations += [first.scale.deviation, first.direction.deviation]
    assert np.mean(np.abs(deviations) > 1.96) < 0.09
    assert np.mean(np.abs(deviations) > INFORMATIVE_Z) < 0.005


@pytest.mark.parametrize("count", [2, LEAST_EFFECTIVE_EPISODES - 1])
def test_few_episodes_are_no_evidence_however_far_from_the_base(count: int) -> None:
    base = np.linspace(-1, 1, 500)
    few = compared(base, np.full(count, 9.0), np.arange(count) * DAY_MS)
    assert all(part.scale is part.direction is None for part in few)
    told, reason = decide_verdict(few, count, None, EVERYWHERE)
    assert told == "none"
    assert "effective episodes" in reason
    many = compared(base, np.full(60, 9.0), SPREAD_MS)
    assert decide_verdict(many, 60.0, None, EVERYWHERE)[0] == "informative"


def test_no_neighbours_compare_with_nothing() -> None:
    [nothing] = compare_neighbours(
        base_of(np.ones(5)).numbers, *[np.empty((4, 1, 0))] * 3, np.empty((1, 0), np.int64)
    )
    assert nothing == [Comparison(name, None, None) for name in HORIZONS]


def test_a_verdict_names_what_deviates_most() -> None:
    told, reason = verdict(EVERYWHERE, h15m=0.5, h4h=-9.0, h24h=3.0)
    assert told == "informative"
    assert "over 4h the price moved 1.20 times as far as usual, 9.0 standard errors" in reason


@given(
    st.lists(st.floats(-12, 12), min_size=1, max_size=4),
    st.one_of(st.none(), st.builds(Novelty, st.floats(0, 100), st.floats(-1, 1), st.just(128))),
    st.sampled_from([None, frozenset(), EVERYWHERE]),
)
def test_a_verdict_is_one_of_three_words_with_a_reason(
    deviations: list[float], novelty: Novelty | None, skilled: frozenset[str] | None
) -> None:
    named = dict(zip(("h15m", "h1h", "h4h", "h24h"), deviations, strict=False))
    told, reason = decide_verdict(comparisons(**named), 40.0, novelty, skilled)
    assert told in STRENGTH
    assert reason
    mirrored = {name: -deviation for name, deviation in named.items()}
    assert decide_verdict(comparisons(**mirrored), 40.0, novelty, skilled)[0] == told


def test_a_state_unlike_the_past_is_no_evidence_however_far_its_neighbours_lie() -> None:
    parts = comparisons(h1h=20.0)
    told, reason = decide_verdict(parts, 40.0, Novelty(99.5, 0.31, 128), EVERYWHERE)
    assert told == "none"
    assert "unlike the past" in reason
    assert "0.31" in reason
    assert decide_verdict(parts, 40.0, Novelty(98.0, 0.31, 128), EVERYWHERE)[0] == "informative"


def test_without_a_calibration_nothing_is_more_than_weak() -> None:
    told, reason = verdict(None, h15m=9.0)
    assert told == "weak"
    assert "no calibration has measured whether such forecasts are better" in reason


def test_with_one_a_horizon_is_informative_only_where_skill_was_measured() -> None:
    told, reason = verdict(frozenset({"4h"}), h4h=-9.0, h24h=1.0)
    assert told == "informative"
    assert "better than the volatility model in the calibration" in reason
    told, reason = verdict(frozenset({"24h"}), h4h=-9.0, h24h=1.0)
    assert told == "weak"
    assert reason.endswith(
        "but there such forecasts were not better than the volatility model in the calibration"
    )
    told, reason = verdict(frozenset(), h15m=9.0, h1h=9.0)
    assert told == "weak"
    assert "but at no horizon were they better" in reason


def test_the_reason_is_of_the_horizon_that_has_skill_not_of_a_larger_deviation() -> None:
    told, reason = verdict(frozenset({"1h"}), h1h=5.0, h4h=9.0)
    assert told == "informative"
    assert reason.startswith("over 1h")


@pytest.mark.parametrize("deviation", [0.5, 3.0])
def test_below_informative_a_calibration_changes_nothing(deviation: float) -> None:
    assert verdict(frozenset(), h4h=deviation) == verdict(None, h4h=deviation)


def test_the_summary_is_read_in_ten_seconds() -> None:
    band_80 = -0.51, 0.49
    more = Comparison("1h", Difference(1.18, 1.0, 4.0), Difference(0.5, 0.5, 0.3))
    assert summary(more, 0.42, band_80) == (
        "Next 1h: expect ±0.42 % (8 of 10 times between -0.51 and +0.49). Similar states moved "
        "more than usual: yes, by 18 %. Direction: no evidence."
    )
    other = Comparison("1h", Difference(0.9, 1.0, -4.0), Difference(0.62, 0.5, 4.0))
    assert summary(other, 0.42, band_80).endswith(
        "Similar states moved less than usual: yes, by 10 %. Direction: the price rose after 62 % "
        "of them, after 50 % of all states."
    )
    unclear = Comparison("1h", Difference(1.1, 1.0, 1.0), Difference(0.5, 0.5, 0.0))
    assert "moved more or less than usual: no evidence." in summary(unclear, 0.42, band_80)
    assert "Similar states: too few." in summary(Comparison("1h", None, None), 0.42, band_80)
