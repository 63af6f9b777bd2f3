"""Served forecasts are scored once, when their horizon has passed, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.forecasts.numbers import HorizonNumbers
from llm_trader.forecasts.scoring import Due, ForecastScores
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.retrieval.scores import quantile_scores
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, MINUTE_MS, Millis

NOW_MS = 1_735_689_600_000
QUARTER_MS = 15 * MINUTE_MS
SYMBOL = "BTCUSDT"


def forecast(
    spread: float = 1.0,
    base_spread: float = 2.0,
    band_80: tuple[float, float] | None = None,
    names: tuple[str, ...] = tuple(HORIZONS),
) -> dict[str, HorizonNumbers]:
    """Forecasts from -spread to spread, beside base rates from -base_spread to base_spread."""
    levels = 2 * QUANTILE_LEVELS - 1
    named = [(levels * width).tolist() for width in (spread, base_spread, spread)]
    return dict.fromkeys(names, HorizonNumbers(*named, 0.5, band_80))


def resolved(
    scores: ForecastScores, outcome: float, newest_ms: Millis, now_ms: Millis | None = None
) -> list[Due]:
    """Scores what is due by that outcome at every horizon."""
    due = scores.due({SYMBOL: newest_ms}, newest_ms if now_ms is None else now_ms)
    for part in due:
        scores.resolve(part, np.full((len(HORIZONS), len(part.times_ms)), outcome), newest_ms)
    return due


@pytest.mark.parametrize(("outcome", "covered"), [(0.0, 1.0), (0.79, 1.0), (0.81, 0.0), (-3, 0.0)])
def test_coverage_is_the_share_of_outcomes_in_the_served_band(
    outcome: float, covered: float
) -> None:
    scores = ForecastScores()
    scores.add(SYMBOL, NOW_MS, forecast(band_80=(-0.5, 0.5)), NOW_MS)
    resolved(scores, outcome, NOW_MS + DAY_MS)
    for score in scores.summary(NOW_MS + DAY_MS).values():
        assert (score.scored, score.coverage) == (1, covered)
        assert score.calibrated_coverage == float(abs(outcome) <= 0.5)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
def test_losses_are_the_mean_scores_of_what_was_served(outcomes: list[float]) -> None:
    scores = ForecastScores()
    for n, outcome in enumerate(outcomes):
        at_ms = NOW_MS + n * 2 * DAY_MS // 3
        scores.add(SYMBOL, at_ms, forecast(), at_ms)
        resolved(scores, outcome, at_ms + DAY_MS)
    named = 2 * QUANTILE_LEVELS - 1
    seen = np.array(outcomes)
    expected = quantile_scores(np.tile(named, (len(seen), 1)), QUANTILE_LEVELS, seen).mean()
    base = quantile_scores(np.tile(2 * named, (len(seen), 1)), QUANTILE_LEVELS, seen).mean()
    score = scores.summary(NOW_MS + 5 * DAY_MS)["24h"]
    assert score.scored == len(outcomes)
    assert score.crps == pytest.approx(expected)
    assert score.base_crps == pytest.approx(base)
    assert score.skill == pytest.approx(1 - expected / base)
    assert score.calibrated_coverage is None


def test_a_horizon_is_scored_once_and_not_before_its_candle_is_stored() -> None:
    scores = ForecastScores()
    scores.add(SYMBOL, NOW_MS, forecast(), NOW_MS)
    assert resolved(scores, 0.1, NOW_MS + QUARTER_MS - 1) == []
    for newest_ms in (NOW_MS + HOUR_MS, NOW_MS + HOUR_MS, NOW_MS + 5 * HOUR_MS):
        resolved(scores, 0.1, newest_ms)
    counts = {name: score.scored for name, score in scores.summary(NOW_MS).items()}
    assert counts == {"15m": 1, "1h": 1, "4h": 1, "24h": 0}
    assert scores.waiting == 1
    resolved(scores, 0.1, NOW_MS + DAY_MS)
    assert scores.waiting == 0
    assert scores.summary(NOW_MS + DAY_MS)["24h"].scored == 1


def test_replays_do_not_count_and_of_a_quarter_hour_one_does() -> None:
    scores = ForecastScores()
    for age_ms in (2 * HOUR_MS, -2 * HOUR_MS, 300 * DAY_MS):
        scores.add(SYMBOL, NOW_MS - age_ms, forecast(), NOW_MS)
    assert scores.waiting == 0
    for n in range(50):
        scores.add(SYMBOL, NOW_MS + n * 1000, forecast(), NOW_MS)
    assert scores.waiting == 1
    # Nor is it counted again after it was scored.
    resolved(scores, 0.0, NOW_MS + DAY_MS)
    scores.add(SYMBOL, NOW_MS, forecast(), NOW_MS)
    assert scores.waiting == 0


def test_only_the_horizons_that_were_asked_for_are_scored() -> None:
    scores = ForecastScores()
    scores.add(SYMBOL, NOW_MS, forecast(names=("1h",)), NOW_MS)
    scores.add("ETHUSDT", NOW_MS, forecast(names=()), NOW_MS)
    assert scores.waiting == 1
    resolved(scores, 0.0, NOW_MS + DAY_MS)
    counts = {name: score.scored for name, score in scores.summary(NOW_MS).items()}
    assert counts == {"15m": 0, "1h": 1, "4h": 0, "24h": 0}


def test_a_missing_candle_is_waited_for_for_an_hour_and_then_counted() -> None:
    scores = ForecastScores()
    scores.add(SYMBOL, NOW_MS, forecast(names=("15m",)), NOW_MS)
    resolved(scores, float("nan"), NOW_MS + QUARTER_MS + HOUR_MS)
    assert (scores.waiting, scores.unscored["no_outcome"]) == (1, 0)
    resolved(scores, float("nan"), NOW_MS + QUARTER_MS + HOUR_MS + 1)
    assert (scores.waiting, scores.unscored["no_outcome"]) == (0, 1)
    assert scores.summary(NOW_MS)["15m"].coverage is None


def test_a_feed_that_stands_still_gives_up_what_waits() -> None:
    scores = ForecastScores()
    scores.add(SYMBOL, NOW_MS, forecast(), NOW_MS)
    assert resolved(scores, 0.0, NOW_MS, NOW_MS + 3 * DAY_MS) == []
    assert (scores.waiting, scores.unscored["no_outcome"]) == (0, 1)


def test_memory_is_bounded_whatever_is_asked() -> None:
    scores = ForecastScores(max_waiting=10)
    for n in range(100):
        scores.add(f"MADE{n}", NOW_MS, forecast(), NOW_MS)
    assert scores.waiting == 10
    assert scores.unscored["memory"] == 90
    for n in range(40):  # ten hours, of which the last are remembered
        at_ms = NOW_MS + n * QUARTER_MS
        scores.add(SYMBOL, at_ms, forecast(), at_ms)
    assert scores.waiting == 10
    assert len(scores._keys) <= 21


def test_what_is_older_than_seven_days_is_forgotten() -> None:
    scores = ForecastScores()
    scores.add(SYMBOL, NOW_MS, forecast(), NOW_MS)
    resolved(scores, 0.0, NOW_MS + DAY_MS)
    assert scores.summary(NOW_MS + 7 * DAY_MS)["24h"].scored == 1
    assert scores.summary(NOW_MS + 8 * DAY_MS + HOUR_MS)["24h"].scored == 0
    assert scores.summary(NOW_MS)["24h"].scored == 0
