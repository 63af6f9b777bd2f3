"""Coverage, reliability and skill of scored forecasts, against independent calculations."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.forecasts.numbers import HorizonNumbers
from llm_trader.forecasts.quality import ForecastQuality, quality_of, share_of, skill_of
from llm_trader.forecasts.scoring import ForecastScores
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.retrieval.scores import quantile_scores
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis

MIDNIGHT_MS = 1_735_689_600_000
SYMBOL = "BTCUSDT"
_NAMED = 2 * QUANTILE_LEVELS - 1


def scored(
    outcomes: dict[Millis, float],
    p_up: float = 0.53,
    symbol: str = SYMBOL,
    references: dict[Millis, dict[str, list[float]]] | None = None,
) -> ForecastScores:
    """Forecasts from -1 to 1 about the coming hour at these times, with what followed them, and
    further references at some of the times.
    """
    scores = ForecastScores()
    widths = (1.0, 2.0, 1.5)
    for as_of_ms, outcome in outcomes.items():
        named = [(_NAMED * width).tolist() for width in widths]
        numbers = HorizonNumbers(*named, p_up)
        if references is not None and as_of_ms in references:
            numbers = msgspec.structs.replace(numbers, **references[as_of_ms])
        scores.add(symbol, as_of_ms, {"1h": numbers}, as_of_ms)
        for due in scores.due({symbol: as_of_ms + HOUR_MS}, as_of_ms + HOUR_MS):
            scores.resolve(due, np.full((4, 1), outcome), as_of_ms + HOUR_MS)
    return scores


def hourly(days: int, seed: int = 0) -> dict[Millis, float]:
    rng = np.random.default_rng(seed)
    times = MIDNIGHT_MS + HOUR_MS * np.arange(24 * days) + 60_000
    return dict(zip(times.tolist(), rng.uniform(-1, 1, len(times)).tolist(), strict=True))


def of_hour(quality: ForecastQuality, part: str) -> list[object]:
    return [one for one in getattr(quality, part) if one.horizon == "1h"]


def test_coverage_and_skill_are_those_of_the_outcomes() -> None:
    outcomes = hourly(10)
    now_ms = MIDNIGHT_MS + 10 * DAY_MS + 2 * HOUR_MS
    quality = quality_of(scored(outcomes), None, 30, now_ms)
    values = np.array(list(outcomes.values()))
    (hour,) = of_hour(quality, "horizons")
    assert (hour.scored, hour.days) == (240, 11)  # the last one ends on the eleventh
    assert hour.coverage_80.value == np.mean(np.abs(values) <= 0.8)
    assert hour.coverage_50.value == np.mean(np.abs(values) <= 0.5)
    assert hour.rises.value == np.mean(values > 0)
    assert hour.calibrated_coverage_80.value is None
    losses, base, model = (
        quantile_scores(np.tile(_NAMED * width, (240, 1)), QUANTILE_LEVELS, values).mean()
        for width in (1.0, 2.0, 1.5)
    )
    assert hour.crps == pytest.approx(losses)
    over_base, _, over_model, _ = of_hour(quality, "skill")
    assert over_base.skill.value == pytest.approx(1 - losses / base)
    assert over_model.skill.value == pytest.approx(1 - losses / model)
    assert over_base.skill.low < over_base.skill.value < over_base.skill.high


def test_windows_of_seven_days_roll_on() -> None:
    outcomes = hourly(12)
    now_ms = MIDNIGHT_MS + 12 * DAY_MS + HOUR_MS
    (rolling,) = of_hour(quality_of(scored(outcomes), SYMBOL, 5, now_ms), "rolling")
    times, values = np.array(list(outcomes)) + HOUR_MS, np.array(list(outcomes.values()))
    assert rolling.time[-1] == now_ms
    for number, end_ms in enumerate(rolling.time):
        last_midnight_ms = (end_ms - 1) // DAY_MS * DAY_MS
        within = (times < end_ms) & (times >= last_midnight_ms - 6 * DAY_MS)
        assert rolling.scored[number] == within.sum()
        assert rolling.coverage_80[number] == np.mean(np.abs(values[within]) <= 0.8)


def test_reliability_has_the_rises_of_each_bin() -> None:
    scores = scored({MIDNIGHT_MS + n * HOUR_MS: 0.5 if n % 4 else -0.5 for n in range(48)})
    (bins,) = of_hour(quality_of(scores, None, 30, MIDNIGHT_MS + 3 * DAY_MS), "reliability")
    assert (bins.count, bins.p_up, bins.observed) == ([48], [pytest.approx(0.53)], [0.75])
    assert bins.low[0] < 0.75 < bins.high[0]


def test_misses_stand_there_with_the_newest_first_and_at_most_fifty() -> None:
    scores = scored({MIDNIGHT_MS + n * HOUR_MS: 0.9 if n % 2 else 0.1 for n in range(200)})
    quality = quality_of(scores, None, 30, MIDNIGHT_MS + 10 * DAY_MS)
    times = [miss.as_of for miss in quality.misses]
    assert times == [MIDNIGHT_MS + n * HOUR_MS for n in range(199, 99, -2)]
    assert (quality.misses[0].high, quality.misses[0].outcome) == (pytest.approx(0.8), 0.9)
    assert quality_of(scores, "ETHUSDT", 30, MIDNIGHT_MS + 10 * DAY_MS).misses == []


def test_days_count_as_one_observation_each() -> None:
    """The same share from days that differ has a wider interval than from days that agree."""
    counts = np.full(20, 96.0)
    agreeing = share_of(np.full(20, 77.0), counts)
    differing = share_of(np.where(np.arange(20) % 2, 58.0, 96.0), counts)
    assert agreeing.value == differing.value
    assert agreeing.low is not None
    assert differing.low is not None
    assert differing.low < agreeing.low < 0.8
    alone = share_of(np.array([77.0]), np.array([96.0]))
    assert alone.low is not None
    assert alone.low < differing.low


def test_intervals_of_skill_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        reference = rng.gamma(4, 1, 25)
        interval = skill_of(0.9 * reference + rng.normal(0, 0.3, 25), reference)
        assert interval.low is not None
        assert interval.high is not None
        held += interval.low <= 0.1 <= interval.high
    assert 0.85 <= held / 300 <= 0.95


@given(st.lists(st.sampled_from([(), (0,), (1,), (0, 1)]), min_size=48, max_size=48))
@settings(max_examples=15)
def test_skill_over_a_reference_is_of_the_forecasts_that_have_it(
    known: list[tuple[int, ...]],
) -> None:
    outcomes, widths = hourly(2), {"rescaled": 0.7, "random": 1.2}
    named = [(name, (_NAMED * width).tolist()) for name, width in widths.items()]
    references = {
        as_of_ms: dict(named[place] for place in has)
        for as_of_ms, has in zip(outcomes, known, strict=True)
    }
    now_ms = MIDNIGHT_MS + 3 * DAY_MS
    quality = quality_of(scored(outcomes, references=references), None, 30, now_ms)
    skills = {skill.reference: skill for skill in of_hour(quality, "skill")}
    assert list(skills) == ["base_rate", "rescaled", "volatility", "random"]
    values = np.array(list(outcomes.values()))
    for place, (name, width) in enumerate(widths.items()):
        has_it = np.array([place in has for has in known])
        n = np.count_nonzero(has_it)
        assert skills[name].scored == n
        if not n:
            assert skills[name].skill.value is None
            assert set(skills[name].rolling) == {None}
            continue
        served, reference = (
            quantile_scores(np.tile(_NAMED * w, (n, 1)), QUANTILE_LEVELS, values[has_it])
            for w in (1.0, width)
        )
        expected = 1 - served.mean() / reference.mean()
        assert skills[name].skill.value == pytest.approx(expected)
        assert skills[name].rolling[-1] == pytest.approx(expected)
    assert skills["base_rate"].scored == len(values)


def test_nothing_scored_is_unknown_of_each_of_the_four_references() -> None:
    quality = quality_of(ForecastScores(), None, 3, MIDNIGHT_MS)
    assert [one.coverage_80.value for one in quality.horizons] == [None] * 4
    assert all(skill.rolling == [None] * 3 for skill in quality.skill)
    compared = {skill.reference for skill in quality.skill}
    assert {one.name for one in quality.references if one.available} == compared
    assert compared == {"base_rate", "rescaled", "volatility", "random"}
