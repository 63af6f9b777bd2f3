from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.backtest.performance import (
    daily_returns,
    expected_best_sharpe,
    max_drawdown_pct,
    measure,
    probabilistic_sharpe_ratio,
    sharpe_ratio,
)
from llm_trader.evaluation.backtest.simulator import Simulation, Trade
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis
from tests.market.builders import START_MS


def trade(entry_ms: Millis, exit_ms: Millis, net_pct: float) -> Trade:
    return Trade(entry_ms, exit_ms, "LONG", 100, 110, "time", 10, 0, 10 - net_pct, net_pct)


def run_of(
    equity: Any,
    step_ms: Millis = DAY_MS,
    start_ms: Millis = START_MS,
    trades: list[Trade] | None = None,
) -> Simulation:
    """Equity at times a step apart, the last of them that of the end."""
    *sampled, final = equity
    times = start_ms + np.arange(len(sampled), dtype=np.int64) * step_ms
    end_ms = start_ms + len(sampled) * step_ms
    return Simulation(trades or [], times, np.array(sampled, np.float64), end_ms, final)


def growth(returns: Floats) -> Floats:
    return np.concatenate(([1.0], np.cumprod(1 + returns)))


def deflated(
    sharpe: float, days: int, skewness: float, kurtosis: float, trials: int, variance: float
) -> float | None:
    """The probability of being above the best of all trials without skill, as of the paper."""
    best = expected_best_sharpe(trials, variance)
    return probabilistic_sharpe_ratio(sharpe, best, days, skewness, kurtosis)


def test_the_numerical_example_of_the_paper_comes_out() -> None:
    """Bailey and López de Prado (2014), "A numerical example".

    Annual Sharpe 2.5 over five years of 250 days, skewness -3, kurtosis 10, 100 trials whose
    annual Sharpe ratios have a variance of 1/2.
    """
    daily, variance = 2.5 / sqrt(250), 0.5 / 250
    assert expected_best_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert deflated(daily, 1250, -3, 10, 100, variance) == pytest.approx(0.9004, abs=5e-5)
    assert deflated(daily, 1250, -3, 10, 46, variance) == pytest.approx(0.9505, abs=5e-5)
    assert deflated(daily, 1250, 0, 3, 88, variance) == pytest.approx(0.9505, abs=5e-5)


def test_the_probabilistic_example_of_the_earlier_paper_comes_out() -> None:
    """Bailey and López de Prado (2012): two years of monthly returns, Sharpe 0.458 a month."""
    assert probabilistic_sharpe_ratio(0.458, 0, 24, 0, 3) == pytest.approx(0.982, abs=5e-4)
    skewed = probabilistic_sharpe_ratio(0.458, 0, 24, -2.448, 10.164)
    assert skewed == pytest.approx(0.913, abs=5e-4)


def test_the_best_of_many_without_skill_shows_what_is_expected_of_it() -> None:
    best = np.random.default_rng(5).standard_normal((4000, 50)).max(axis=1).mean()
    assert expected_best_sharpe(50, 1.0) == pytest.approx(best, abs=0.04)


def test_one_trial_is_no_selection_and_each_further_one_deflates_more() -> None:
    assert expected_best_sharpe(1, 0.5) == 0
    assert expected_best_sharpe(100, 0.0) == 0
    chances = [deflated(0.1, 500, -1, 6, n, 0.002) for n in (1, 2, 10, 1000)]
    assert chances == sorted(chances, key=lambda chance: -(chance or 0))
    assert chances[0] == probabilistic_sharpe_ratio(0.1, 0, 500, -1, 6)


@pytest.mark.parametrize(("trials", "variance"), [(0, 0.5), (5, -0.1), (5, float("nan"))])
def test_no_trials_and_no_variance_are_refused(trials: int, variance: float) -> None:
    with pytest.raises(InvalidInputError):
        expected_best_sharpe(trials, variance)


def test_impossible_moments_have_no_probability() -> None:
    assert probabilistic_sharpe_ratio(1.0, 0, 100, 3.0, 3.0) is None
    assert probabilistic_sharpe_ratio(1.0, 0, 1, 0.0, 3.0) is None


def test_everything_is_measured_as_worked_by_hand() -> None:
    """Four days: +10 %, -20 %, +5 %, 0; two trades that hold for 36 of 96 hours."""
    from scipy import stats

    returns = np.array([0.1, -0.2, 0.05, 0.0])
    trades = [
        trade(START_MS, START_MS + 24 * HOUR_MS, 10),
        trade(START_MS + 24 * HOUR_MS, START_MS + 36 * HOUR_MS, -16),
    ]
    found = measure(run_of(growth(returns), trades=trades), trials=7)
    assert found.total_return_pct == pytest.approx((1.1 * 0.8 * 1.05 - 1) * 100)
    sharpe = returns.mean() / returns.std(ddof=1)
    assert found.sharpe == pytest.approx(sharpe * sqrt(365))
    moments = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    assert found.probabilistic_sharpe == pytest.approx(
        probabilistic_sharpe_ratio(sharpe, 0, 4, *moments)
    )
    assert found.deflated_sharpe == pytest.approx(deflated(sharpe, 4, *moments, 7, 1 / 3))
    assert found.max_drawdown_pct == pytest.approx(-20)
    assert (found.trades, found.win_rate, found.trials, found.daily_returns) == (2, 0.5, 7, 4)
    assert found.mean_net_pct == pytest.approx(-3)
    assert found.exposure == pytest.approx(36 / 96)
    assert found.turnover_per_day == pytest.approx(2 * 2.1 / 4)


def test_without_a_trade_the_return_is_zero_and_the_ratios_are_undefined() -> None:
    found = measure(run_of(np.ones(31)), trials=3)
    assert (found.total_return_pct, found.max_drawdown_pct, found.exposure) == (0, 0, 0)
    assert (found.trades, found.daily_returns) == (0, 30)
    assert found.sharpe is found.probabilistic_sharpe is found.deflated_sharpe is None
    assert found.win_rate is found.mean_net_pct is None


def test_without_a_decision_nothing_but_the_counts_is_known() -> None:
    found = measure(run_of([1.0]), trials=1)
    assert (found.trades, found.daily_returns, found.trials) == (0, 0, 1)
    assert found.total_return_pct is found.sharpe is found.max_drawdown_pct is None
    assert found.exposure is found.turnover_per_day is None


def test_no_trials_are_refused_even_without_a_return() -> None:
    with pytest.raises(InvalidInputError):
        measure(run_of([1.0]), trials=0)


def test_days_are_whole_and_of_utc() -> None:
    """From 18:00 on, by the hour: six hours that belong to no whole day, two days, three hours."""
    equity = 1 + 0.001 * np.arange(6 + 48 + 3 + 1)
    run = run_of(equity, HOUR_MS, START_MS + 18 * HOUR_MS)
    expected = [equity[30] / equity[6] - 1, equity[54] / equity[30] - 1]
    assert daily_returns(run) == pytest.approx(expected)


def test_a_day_without_samples_ends_with_the_last_one_before_it() -> None:
    times = START_MS + np.array([0, DAY_MS + HOUR_MS], np.int64)
    run = Simulation([], times, np.array([1.0, 1.2]), START_MS + 3 * DAY_MS, 1.5)
    assert daily_returns(run) == pytest.approx([0, 0.2, 0.25])


def test_after_ruin_there_are_no_more_returns() -> None:
    run = run_of([1.0, 0.5, 0.0, 0.0, 0.0])
    assert daily_returns(run).tolist() == [-0.5, -1.0]
    assert max_drawdown_pct(run) == -100


def test_a_sharpe_ratio_leaves_out_what_is_unknown() -> None:
    known = np.array([0.01, -0.02, 0.03])
    holed = np.array([0.01, np.nan, -0.02, 0.03, np.nan])
    assert sharpe_ratio(holed) == sharpe_ratio(known)


@pytest.mark.parametrize("returns", [[], [0.01], [np.nan, 0.01], [0.01, 0.01, 0.01]])
def test_a_sharpe_ratio_of_too_little_is_undefined(returns: list[float]) -> None:
    assert sharpe_ratio(np.array(returns)) is None


daily = arrays(np.float64, st.integers(2, 40), elements=st.floats(-0.5, 0.5))


@given(daily, st.floats(0.1, 10))
def test_a_sharpe_ratio_does_not_depend_on_the_size_of_the_bets(
    returns: Floats, size: float
) -> None:
    one, other = sharpe_ratio(returns), sharpe_ratio(returns * size)
    if one is not None and other is not None:
        assert other == pytest.approx(one, rel=1e-6, abs=1e-9)


@given(daily)
def test_measures_stay_within_their_ranges(returns: Floats) -> None:
    found = measure(run_of(growth(returns)), trials=5)
    assert found.max_drawdown_pct is not None
    assert -100 <= found.max_drawdown_pct <= min(0, found.total_return_pct or 0) + 1e-9
    for share in (found.probabilistic_sharpe, found.deflated_sharpe):
        assert share is None or 0 <= share <= 1
    if found.deflated_sharpe is not None and found.probabilistic_sharpe is not None:
        assert found.deflated_sharpe <= found.probabilistic_sharpe


@given(daily)
def test_the_drawdown_is_the_worst_of_all_pairs(returns: Floats) -> None:
    equity = growth(returns)
    worst = min(later / equity[i] - 1 for i in range(len(equity)) for later in equity[i:])
    assert max_drawdown_pct(run_of(equity)) == pytest.approx(worst * 100, abs=1e-9)
