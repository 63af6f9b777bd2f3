"""Tests and intervals against independent calculations, and against what they promise.

What they promise is looked at where they are used: losses of outcomes that overlap, so that a row
shares most of its outcome with the next.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import combinations
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Floats
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.evaluation.significance import (
    MIN_BLOCKS,
    bootstrap_means,
    diebold_mariano,
    long_run_variance,
    mean_interval,
    minimum_detectable_effect,
    skill_interval,
    verdict,
)
from llm_trader.evaluation.verdict.multiple_testing import holm, superior_predictive_ability
from llm_trader.retrieval.intervals import Interval, student_t

HORIZON = 16
BLOCK = 4 * HORIZON
SEEDS = st.integers(0, 2**32 - 1)


def overlapping(rng: np.random.Generator, n: int, horizon: int = HORIZON) -> Floats:
    """Sums over the next `horizon` of independent steps, mean 0 and variance 1."""
    path = np.concatenate([[0.0], np.cumsum(rng.standard_normal(n + horizon - 1))])
    return (path[horizon:] - path[:-horizon]) / sqrt(horizon)


# --- bootstrap


def block_bootstrap(
    losses: Floats,
    statistic: Callable[[Floats], float],
    block: int,
    reps: int,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Any statistic of the rows of `losses`, (n,) or (n, m), by drawing whole rows."""
    n = len(losses)
    starts = np.random.default_rng(seed).integers(0, n, (reps, -(-n // block)))
    rows = (starts[:, :, None] + np.arange(block)).reshape(reps, -1)[:, :n] % n
    value, drawn = statistic(losses), [statistic(losses[row]) for row in rows]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    z, blocks = NormalDist().inv_cdf((1 + level) / 2), n / block
    wider = student_t(z, blocks - 1) / z * sqrt(blocks / (blocks - 1))
    return Interval(value, value + wider * (low - value), value + wider * (high - value))


@pytest.mark.parametrize(("n", "block"), [(100, 1), (100, 7), (101, 10), (120, 12)])
def test_the_quick_way_for_means_draws_the_rows_of_the_general_one(n: int, block: int) -> None:
    losses = np.random.default_rng(0).gamma(2, size=(n, 2)) * [1, 9]
    general = block_bootstrap(losses[:, 0], np.mean, block, reps=80, seed=3)
    quick = mean_interval(losses[:, 0], block, reps=80, seed=3)
    assert (quick.value, quick.low, quick.high) == pytest.approx(
        (general.value, general.low, general.high), rel=1e-10
    )
    general = block_bootstrap(
        losses, lambda rows: 1 - rows[:, 0].mean() / rows[:, 1].mean(), block, reps=80, seed=3
    )
    quick = skill_interval(losses[:, 0], losses[:, 1], block, reps=80, seed=3)
    assert (quick.value, quick.low, quick.high) == pytest.approx(
        (general.value, general.low, general.high), rel=1e-10
    )


def test_a_resample_is_made_of_runs_of_rows_where_the_first_follows_the_last() -> None:
    n, block = 100, 7
    drawn: list[Floats] = []

    def keep(rows: Floats) -> float:
        drawn.append(rows)
        return 0.0

    block_bootstrap(np.arange(100.0), keep, block, reps=20, seed=1)
    resamples = [rows for rows in drawn if rows.tolist() != list(range(n))]
    assert len(resamples) == 20
    for rows in resamples:
        assert len(rows) == n
        within = np.delete(np.diff(rows), np.arange(block - 1, n - 1, block))
        assert (within % n == 1).all()
    assert any((np.diff(rows) == 1 - n).any() for rows in resamples)


def test_resampled_means_spread_as_those_of_another_circular_bootstrap() -> None:
    arch = pytest.importorskip("arch.bootstrap", reason="needs the eval extra")
    losses = overlapping(np.random.default_rng(1), 1000) ** 2
    theirs = arch.CircularBlockBootstrap(40, losses, seed=2).apply(np.mean, 3000)
    ours = bootstrap_means(losses[:, None], 40, 3000, seed=2)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.05)
    assert ours.mean() == pytest.approx(losses.mean(), abs=4 * ours.std() / sqrt(3000))


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly() -> None:
    d = overlapping(np.random.default_rng(0), 3000)
    one, again, other = (mean_interval(d, BLOCK, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.05)


@pytest.mark.parametrize("blocks", [MIN_BLOCKS, 25, 60])
def test_intervals_of_overlapping_outcomes_cover_the_truth_as_often_as_they_say(
    blocks: int,
) -> None:
    rng = np.random.default_rng(blocks)
    trials = 500
    intervals = [
        mean_interval(overlapping(rng, BLOCK * blocks), BLOCK, reps=300, seed=seed)
        for seed in range(trials)
    ]
    covered = sum(i.low <= 0 <= i.high for i in intervals) / trials
    assert 0.915 <= covered <= 0.975  # a standard error is 0.01


def test_blocks_much_shorter_than_the_overlap_are_too_sure() -> None:
    rng = np.random.default_rng(0)
    intervals = [mean_interval(overlapping(rng, 1000), 2, reps=200, seed=s) for s in range(200)]
    assert sum(i.low <= 0 <= i.high for i in intervals) / 200 < 0.75


def test_skill_is_resampled_in_pairs_so_what_moves_both_losses_cancels() -> None:
    rng = np.random.default_rng(0)
    common = 5 + overlapping(rng, 4000)
    loss, reference = 0.98 * common, common + 0.01 * rng.standard_normal(4000)
    paired = skill_interval(loss, reference, BLOCK)
    assert paired.value == pytest.approx(0.02, abs=1e-3)
    assert paired.high - paired.low < 1e-3
    assert mean_interval(loss, BLOCK).high - mean_interval(loss, BLOCK).low > 0.1


def test_rows_unknown_in_either_loss_are_left_out_of_both() -> None:
    rng = np.random.default_rng(0)
    loss, reference = rng.gamma(2, size=(2, 400))
    holed, other = loss.copy(), reference.copy()
    holed[::7], other[3::11] = np.nan, np.nan
    kept = ~np.isnan(holed + other)
    expected = skill_interval(loss[kept], reference[kept], 4)
    assert skill_interval(holed, other, 4) == expected
    assert diebold_mariano(holed, other, 4) == diebold_mariano(loss[kept], reference[kept], 4)
    assert mean_interval(holed, 4) == mean_interval(holed[~np.isnan(holed)], 4)


@pytest.mark.parametrize("n", [0, 1, BLOCK, MIN_BLOCKS * BLOCK - 1])
def test_too_few_blocks_have_no_interval_and_no_verdict(n: int) -> None:
    loss = 1 + np.random.default_rng(0).random(n)
    for interval in (mean_interval(loss, BLOCK), skill_interval(loss, 2 * loss, BLOCK)):
        assert interval.low is interval.high is None
        assert (interval.value is None) == (n == 0)
        assert verdict(interval) == "no evidence"
    assert np.isnan(minimum_detectable_effect(loss, BLOCK))


def test_senseless_requests_are_refused() -> None:
    d = np.arange(100.0)
    with pytest.raises(InvalidInputError, match="blocks of 0"):
        mean_interval(d, 0)
    with pytest.raises(InvalidInputError, match="0 resamples"):
        mean_interval(d, 1, reps=0)
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        mean_interval(d, 1, level=95)
    with pytest.raises(InvalidInputError, match="row by row"):
        skill_interval(d, d[:, None], 1)
    with pytest.raises(InvalidInputError, match="lags"):
        long_run_variance(d, -1)
    with pytest.raises(InvalidInputError, match="power"):
        minimum_detectable_effect(d, 1, power=80)


# --- tests of equal loss


@pytest.mark.parametrize("lags", [0, 1, 16, 64])
def test_the_diebold_mariano_test_is_that_of_a_regression_on_a_constant(lags: int) -> None:
    regression = pytest.importorskip("statsmodels.api", reason="needs the eval extra")
    stats = pytest.importorskip("scipy.stats", reason="needs the eval extra")
    rng = np.random.default_rng(lags)
    n = 500
    loss, reference = overlapping(rng, n) ** 2, overlapping(rng, n) ** 2 + 0.3
    fit = regression.OLS(reference - loss, np.ones(n)).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    h = lags + 1
    statistic = fit.tvalues[0] * sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    test = diebold_mariano(loss, reference, lags)
    assert test.statistic == pytest.approx(statistic, rel=1e-10)
    freedom = n / max(lags, 1) - 1
    assert test.p_value == pytest.approx(2 * stats.t.sf(abs(statistic), freedom), rel=2e-3)
    assert long_run_variance(reference - loss, lags) == pytest.approx(n * fit.bse[0] ** 2)


def test_swapping_the_losses_turns_the_statistic_around() -> None:
    loss, reference = np.random.default_rng(0).gamma(2, size=(2, 300))
    one, other = diebold_mariano(loss, reference, 8), diebold_mariano(reference, loss, 8)
    assert one.statistic == pytest.approx(-other.statistic)
    assert one.p_value == pytest.approx(other.p_value)
    assert diebold_mariano(loss, loss + 0.5 + 0.1 * reference, 8).statistic > 5


def test_two_equally_good_forecasts_of_overlapping_outcomes_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(7)
    trials, n = 800, 2000
    p_values = np.array(
        [
            diebold_mariano(overlapping(rng, n) ** 2, overlapping(rng, n) ** 2, BLOCK).p_value
            for _ in range(trials)
        ]
    )
    assert 0.03 <= (p_values < 0.05).mean() <= 0.075  # a standard error is 0.008
    assert 0.07 <= (p_values < 0.1).mean() <= 0.135


def test_a_forecast_better_by_far_more_than_chance_is_found() -> None:
    rng = np.random.default_rng(8)
    n = 2000
    found = [
        diebold_mariano(overlapping(rng, n) ** 2, overlapping(rng, n) ** 2 + 0.8, BLOCK)
        for _ in range(100)
    ]
    assert sum(test.p_value < 0.05 and test.statistic > 0 for test in found) >= 95


@pytest.mark.parametrize(
    ("difference", "lags"),
    [(np.zeros(50), 4), (np.full(50, 0.1), 4), (np.arange(5.0), 5), (np.zeros(0), 0)],
)
def test_differences_that_do_not_vary_or_are_too_few_are_not_tested(
    difference: Floats, lags: int
) -> None:
    test = diebold_mariano(np.zeros(len(difference)), difference, lags)
    assert np.isnan([test.statistic, test.p_value]).all()
    assert not long_run_variance(difference, lags) > 0


# --- how much the data can tell


def effective_sample_size(d: Floats, lags: int) -> float:
    """How many independent rows would tell the mean of d (n,) as exactly as its n rows do."""
    return len(d) * float(d.var()) / long_run_variance(d, lags)


def test_independent_rows_count_in_full_and_overlapping_ones_once_a_horizon() -> None:
    rng = np.random.default_rng(0)
    n = 60_000
    assert effective_sample_size(rng.standard_normal(n), 0) == pytest.approx(n)
    assert effective_sample_size(rng.standard_normal(n), 16) == pytest.approx(n, rel=0.1)
    counted = effective_sample_size(overlapping(rng, n), 20 * HORIZON)
    assert counted == pytest.approx(n / HORIZON, rel=0.15)


def test_an_autoregression_counts_as_its_closed_form() -> None:
    rng = np.random.default_rng(1)
    n, rho = 60_000, 0.8
    d = np.zeros(n)
    steps = rng.standard_normal(n)
    for i in range(1, n):
        d[i] = rho * d[i - 1] + steps[i]
    assert effective_sample_size(d, 100) == pytest.approx(n * (1 - rho) / (1 + rho), rel=0.15)


def test_the_detectable_effect_of_independent_rows_is_that_of_the_textbook() -> None:
    d = np.random.default_rng(0).standard_normal(2500)
    textbook = (1.959964 + 0.841621) * d.std() / 50
    assert minimum_detectable_effect(d, 1) == pytest.approx(textbook, rel=1e-6)
    assert minimum_detectable_effect(np.append(d, np.nan), 1) == pytest.approx(textbook, rel=1e-6)


def test_the_detectable_effect_rests_on_the_spread_of_resampled_means() -> None:
    d = overlapping(np.random.default_rng(1), 50 * BLOCK)
    spread = bootstrap_means(d[:, None], BLOCK, 5000, seed=0).std()
    assert minimum_detectable_effect(d, BLOCK) == pytest.approx(2.801585 * spread, rel=0.04)


def test_an_effect_of_that_size_is_found_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)
    n, trials = 100 * BLOCK, 300
    effect = minimum_detectable_effect(overlapping(rng, 4 * n), BLOCK) * 2  # of n rows
    found = [
        verdict(mean_interval(overlapping(rng, n) + effect, BLOCK, reps=200, seed=seed))
        for seed in range(trials)
    ]
    assert 0.72 <= found.count("better") / trials <= 0.9
    assert found.count("worse") == 0


# --- many comparisons


def test_holms_adjustment_is_that_of_a_worked_example() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert list(adjusted.values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holms_adjustment_is_bonferronis_over_every_family_a_hypothesis_is_in(
    p_values: list[float],
) -> None:
    everyone = range(len(p_values))
    families = [f for size in everyone for f in combinations(everyone, size + 1)]
    bonferroni = {f: min(1.0, len(f) * min(p_values[i] for i in f)) for f in families}
    closed = [max(p for f, p in bonferroni.items() if i in f) for i in everyone]
    adjusted = holm({str(i): p for i, p in enumerate(p_values)})
    assert list(adjusted.values()) == pytest.approx(closed)


def test_an_unknown_p_value_stays_one_and_counts_as_a_comparison() -> None:
    adjusted = holm({"a": 0.01, "b": np.nan})
    assert adjusted["a"] == pytest.approx(0.02)
    assert np.isnan(adjusted["b"])
    assert holm({}) == {}


def test_what_is_no_probability_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="of b"):
        holm({"a": 0.5, "b": 1.5})


@pytest.fixture
def needs_arch() -> None:
    pytest.importorskip("arch.bootstrap", reason="needs the eval extra")


@pytest.mark.usefixtures("needs_arch")
@pytest.mark.soak
def test_the_best_of_many_models_without_ability_is_rarely_called_superior() -> None:
    rng = np.random.default_rng(3)
    n, trials = 400, 60
    rejected = 0
    for seed in range(trials):
        losses = np.column_stack([overlapping(rng, n, 4) for _ in range(5)])
        p_value = superior_predictive_ability(losses, overlapping(rng, n, 4), 16, 150, seed)
        assert 0 <= p_value <= 1
        rejected += p_value < 0.05
    assert rejected <= 8  # 3 expected


@pytest.mark.usefixtures("needs_arch")
def test_one_superior_model_is_found_beside_a_noisy_one() -> None:
    rng = np.random.default_rng(4)
    benchmark = rng.standard_normal(600)
    better = benchmark - 0.2 + 0.5 * rng.standard_normal(600)
    noisy = benchmark + 1 + 30 * rng.standard_normal(600)
    losses = np.column_stack([noisy, better, benchmark])
    assert superior_predictive_ability(losses, benchmark, 5, 200) < 0.01


@pytest.mark.usefixtures("needs_arch")
def test_models_that_only_match_the_benchmark_or_do_worse_are_never_superior() -> None:
    rng = np.random.default_rng(4)
    benchmark = rng.standard_normal(600)
    losses = np.column_stack([benchmark, benchmark + 1 + rng.standard_normal(600)])
    assert superior_predictive_ability(losses, benchmark, 5) == 1


@pytest.mark.usefixtures("needs_arch")
def test_superior_ability_is_the_same_for_a_seed_and_leaves_unknown_rows_out() -> None:
    rng = np.random.default_rng(5)
    losses, benchmark = rng.standard_normal((300, 2)), rng.standard_normal(300)
    holed = losses.copy()
    holed[10, 1] = np.nan
    kept = np.arange(300) != 10
    one = superior_predictive_ability(holed, benchmark, 5, 100, seed=1)
    assert one == superior_predictive_ability(losses[kept], benchmark[kept], 5, 100, seed=1)
    assert np.isnan(superior_predictive_ability(losses, benchmark, 31, 100))


def test_without_arch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch.bootstrap", None)
    with pytest.raises(ConfigurationError, match=r'pip install "llm-trader-rag\[eval\]"'):
        superior_predictive_ability(np.zeros((100, 2)), np.zeros(100), 5)


# --- verdicts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.02, "better"),
        (-0.02, -0.001, "worse"),
        (-0.01, 0.02, "no evidence"),
        (0.0, 0.02, "no evidence"),
        (-0.02, 0.0, "no evidence"),
        (None, None, "no evidence"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    low: float | None, high: float | None, expected: str
) -> None:
    assert verdict(Interval(0.01, low, high)) == expected
