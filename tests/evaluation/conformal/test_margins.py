"""Margins follow what past scores show of each condition, as far as they show it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator

from llm_trader.arrays import Floats
from llm_trader.evaluation.conformal.bands import (
    WINDOW_DAYS,
    Conditions,
    LocalMargins,
    band_scores,
    covered,
    effective_scores,
    fit_margins,
    margins_of,
    trailing_margins,
)
from llm_trader.evaluation.forecast.ensembles import Forecasts
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis
from tests.evaluation.conformal.slow_margins import slow_margins
from tests.index.builders import points_at

SYMBOLS = 2
# Sixty days of hours.
EFFECTIVE = 1440.0
WIDTHS = {
    "fifth": np.array([0.4, 0.5, 0.6, 2.0, 2.2]),
    "hours": np.array([0.6, 0.5, 0.4, 2.2, 1.8, 2.0]),
    "symbol": np.array([0.5, 1.5]),
}


def drawn(rng: Generator, n: int) -> Conditions:
    """Ratios from 0 to 5, so that each fifth has a whole part."""
    hours = rng.integers(0, 6, n).astype(np.intp)
    return Conditions(rng.uniform(0, 5, n), hours, rng.integers(0, SYMBOLS, n).astype(np.intp))


def cells_of(conditions: Conditions) -> dict[str, np.ndarray]:
    fifth = np.floor(conditions.volatility_ratio).astype(int)
    return {"fifth": fifth, "hours": conditions.hours, "symbol": conditions.symbol}


def scores_of(rng: Generator, conditions: Conditions, *divisions: str) -> Floats:
    """Of a band of ±1 around 0, where outcomes differ in width by the cells of the divisions."""
    width = np.ones(len(conditions.hours))
    for name in divisions:
        width *= WIDTHS[name][cells_of(conditions)[name]]
    return np.asarray(np.abs(width * rng.standard_normal(len(width))) - 1)


def fitted_on(scores: Floats, conditions: Conditions, effective: float) -> LocalMargins:
    return fit_margins(scores, conditions, effective, SYMBOLS)


def common_margin(scores: Floats) -> float:
    return float(np.quantile(scores, 0.8))


# --- By conditions


@pytest.mark.parametrize(
    "divisions", [("fifth",), ("hours",), ("symbol",), ("fifth", "hours", "symbol")], ids=str
)
def test_each_cells_coverage_is_nearer_to_four_in_five_than_with_one_common_margin(
    divisions: tuple[str, ...],
) -> None:
    rng = np.random.default_rng(1)
    fitted, asked = drawn(rng, 2880), drawn(rng, 60_000)
    scores, new = scores_of(rng, fitted, *divisions), scores_of(rng, asked, *divisions)
    local = covered(new, fitted_on(scores, fitted, EFFECTIVE).of(asked))
    common = covered(new, common_margin(scores))
    for name in divisions:
        cells = cells_of(asked)[name]
        for cell in np.unique(cells):
            apart, apart_before = (abs(of[cells == cell].mean() - 0.8) for of in (local, common))
            assert apart < apart_before, (name, cell)
    assert local.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("division", WIDTHS)
def test_a_condition_alone_is_corrected_to_four_in_five_in_each_of_its_cells(
    division: str,
) -> None:
    rng = np.random.default_rng(2)
    fitted, asked = drawn(rng, 28_800), drawn(rng, 60_000)
    scores, new = scores_of(rng, fitted, division), scores_of(rng, asked, division)
    # Worth ten times as many, so that hardly anything is left of the assumption before.
    local = covered(new, fitted_on(scores, fitted, 10 * EFFECTIVE).of(asked))
    cells = cells_of(asked)[division]
    for cell in np.unique(cells):
        assert local[cells == cell].mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.7])
def test_where_conditions_make_no_difference_local_margins_are_nearly_the_common_one(
    shift: float,
) -> None:
    rng = np.random.default_rng(3)
    fitted, asked = drawn(rng, 28_800), drawn(rng, 60_000)
    scores, new = scores_of(rng, fitted) + shift, scores_of(rng, asked) + shift
    margins = fitted_on(scores, fitted, 10 * EFFECTIVE).of(asked)
    # The order statistic of a cell of 5000 scores has a standard error of 0.01.
    assert np.abs(margins - common_margin(scores)).mean() < 0.025
    assert np.abs(margins - common_margin(scores)).max() < 0.08
    assert covered(new, margins).mean() == pytest.approx(0.8, abs=0.01)
    for cells in cells_of(asked).values():
        for cell in np.unique(cells):
            assert covered(new, margins)[cells == cell].mean() == pytest.approx(0.8, abs=0.02)


@given(st.floats(-3, 3), st.integers(1, 200), st.integers(0, 100))
def test_equal_scores_have_one_margin_under_all_conditions(score: float, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fitted, asked = drawn(rng, n), drawn(rng, 50)
    margins = fitted_on(np.full(n, score), fitted, EFFECTIVE)
    assert not any(offset.any() for offset in margins.offsets)
    expected = score * EFFECTIVE / (EFFECTIVE + 60)
    assert margins.of(asked) == pytest.approx([expected] * 50)


@given(
    st.integers(0, 2**32),
    st.integers(1, 400),
    st.sampled_from([0.5, 9.7, 33.3, 1440.0]),
    st.integers(0, 3),
)
def test_margins_are_those_of_going_through_the_divisions_one_by_one(
    seed: int, n: int, effective: float, decimals: int
) -> None:
    rng = np.random.default_rng(seed)
    fitted, asked = drawn(rng, n), drawn(rng, 40)
    # Rounded scores are often tied, and of a few a cell or a symbol may have none.
    scores = np.round(scores_of(rng, fitted, *WIDTHS), decimals)
    found = fitted_on(scores, fitted, effective).of(asked)
    assert found == pytest.approx(slow_margins(scores.tolist(), fitted, effective, asked))


def test_fewer_effective_scores_are_trusted_less() -> None:
    rng = np.random.default_rng(4)
    fitted = drawn(rng, 1000)
    scores = scores_of(rng, fitted, *WIDTHS) + 1
    margins = [fitted_on(scores, fitted, effective) for effective in (1, 10, 60, 1000)]
    for few, many in pairwise(margins):
        assert 0 < few.base < many.base
        for one, other in zip(few.offsets[:2], many.offsets[:2], strict=True):
            assert (np.abs(one) <= np.abs(other)).all()
    assert margins[0].base < 0.05 * scores.max()


@settings(max_examples=12)
@given(st.sampled_from(["normal", "heavy", "ties"]), st.integers(0, 1000))
def test_of_many_exchangeable_scores_a_new_one_is_covered_as_often_as_it_says(
    kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n, new = 6000, 50_000
    draw = {
        "normal": lambda: rng.standard_normal(n + new),
        "heavy": lambda: rng.standard_cauchy(n + new),
        "ties": lambda: np.round(rng.standard_normal(n + new), 1),
    }
    scores = draw[kind]()
    margins = fitted_on(scores[:n], drawn(rng, n), n).of(drawn(rng, new))
    # A share of 6000 has a standard error of 0.5 %, and 1 % of each margin is held back; 3 % of the
    # scores are tied at the margin.
    tolerance = 0.04 if kind == "ties" else 0.025
    assert covered(scores[n:], margins).mean() == pytest.approx(0.8, abs=tolerance)


def test_a_query_has_the_margin_of_its_day() -> None:
    rng = np.random.default_rng(5)
    fitted, asked = drawn(rng, 500), drawn(rng, 9)
    one, other = (fitted_on(scores_of(rng, fitted), fitted, n) for n in (40, 400))
    day = np.array([0, 0, 1, 1, 1, 3, 3, 4, 4])
    found = margins_of([None, one, None, other, None], day, asked)
    rows = np.flatnonzero(day == 1), np.flatnonzero(day == 3)
    assert np.array_equal(found[rows[0]], one.of(asked.take(rows[0])))
    assert np.array_equal(found[rows[1]], other.of(asked.take(rows[1])))
    assert np.isnan(found[(day != 1) & (day != 3)]).all()


# --- Scores and conditions


def test_a_score_is_how_far_outside_the_band_in_units_of_the_scale() -> None:
    nothing, observed = np.zeros(5), np.array([-3.0, 3.0, 0.5, np.nan, 0.0])
    low, high = np.array([-1.0] * 4 + [np.nan]), np.full(5, 2.0)
    scores = band_scores(Forecasts(nothing, low, nothing, high, observed, np.full(5, 2.0)))
    assert scores[:3].tolist() == [1.0, 0.5, -0.75]
    assert np.isnan(scores[3:]).all()
    assert covered(scores, 0.5)[:3].tolist() == [0.0, 1.0, 1.0]
    assert np.isnan(covered(scores, 0.5)[3:]).all()


def test_conditions_are_the_ratio_of_volatilities_the_part_of_the_utc_day_and_the_symbol() -> None:
    queries = points_at(
        range(0, 96, 8),
        expected_volatility_4h=np.arange(1.0, 13.0),
        realized_volatility_24h=[2.0] * 11 + [0.0],
    )
    found = Conditions.of(queries, "4h", 3)
    assert found.volatility_ratio[:11].tolist() == [number / 2 for number in range(1, 12)]
    assert np.isfinite(found.volatility_ratio[11])
    assert found.hours.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert set(found.symbol) == {3}


# --- Over time


def hourly(days: int, seed: int = 0) -> tuple[np.ndarray, Conditions]:
    times = np.arange(0, days * DAY_MS, HOUR_MS)
    return times, drawn(np.random.default_rng(seed), len(times))


def trailing(
    times: np.ndarray, scores: Floats, conditions: Conditions, horizon_ms: Millis = HOUR_MS
) -> list[LocalMargins | None]:
    days = np.arange(0, int(times[-1]), DAY_MS)
    return trailing_margins(times, scores, conditions, days, horizon_ms, HOUR_MS)


def as_numbers(margins: list[LocalMargins | None]) -> list[list[float] | None]:
    return [
        margin and [margin.base, *margin.ratio_edges, *np.concatenate(margin.offsets)]
        for margin in margins
    ]


@given(st.integers(0, 100))
def test_no_margin_depends_on_outcomes_that_were_not_known_by_then(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, conditions = hourly(100, seed)
    scores = rng.standard_normal(len(times))
    day = int(rng.integers(20, 99))
    unknown = times > day * DAY_MS - DAY_MS
    changed = np.where(unknown, scores + 100, scores)
    as_of_ms = np.arange(day - 10, day + 2) * DAY_MS
    before, after = (
        as_numbers(trailing_margins(times, of, conditions, as_of_ms, HOUR_MS, HOUR_MS))
        for of in (scores, changed)
    )
    assert before[-2] is not None
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_an_outcome_counts_from_the_moment_it_is_known() -> None:
    times = np.arange(HOUR_MS, 10 * DAY_MS + 1, HOUR_MS)
    conditions = drawn(np.random.default_rng(0), len(times))
    as_of_ms = np.array([11 * DAY_MS - 1, 11 * DAY_MS])
    # The last of 240 hours is the one that makes ten days of outcomes over 24h.
    before, then = trailing_margins(
        times, np.ones(len(times)), conditions, as_of_ms, DAY_MS, HOUR_MS
    )
    assert before is None
    assert then is not None


def test_margins_forget_what_is_older_than_their_window() -> None:
    times, conditions = hourly(150)
    scores = np.where(times < 50 * DAY_MS, 100.0, 1.0)
    margins = trailing(times, scores, conditions)
    long_ago, since = margins[40], margins[50 + 1 + WINDOW_DAYS]
    assert long_ago is not None
    assert since is not None
    assert since.base == pytest.approx(EFFECTIVE / (EFFECTIVE + 60))
    assert long_ago.base > 90


def test_margins_take_ten_outcomes_that_do_not_overlap() -> None:
    times, conditions = hourly(20)
    margins = trailing(times, np.ones(len(times)), conditions, DAY_MS)
    assert [margin is not None for margin in margins] == [day >= 11 for day in range(20)]


def test_symbols_of_one_time_count_once_and_overlapping_outcomes_by_their_share() -> None:
    times = np.repeat(np.arange(0, 10 * DAY_MS, HOUR_MS), 2)
    assert effective_scores(times, HOUR_MS, HOUR_MS) == 240
    assert effective_scores(times, DAY_MS, HOUR_MS) == 10
    assert effective_scores(times, HOUR_MS, 4 * HOUR_MS) == 240


def test_unknown_scores_are_as_if_they_were_not_asked() -> None:
    times, conditions = hourly(40)
    scores = np.random.default_rng(0).standard_normal(len(times))
    known = np.arange(len(times)) % 3 != 0
    gaps = trailing(times, np.where(known, scores, np.nan), conditions)
    days = np.arange(0, int(times[-1]), DAY_MS)
    without = trailing_margins(
        times[known], scores[known], conditions.take(known), days, HOUR_MS, HOUR_MS
    )
    assert as_numbers(gaps) == as_numbers(without)
