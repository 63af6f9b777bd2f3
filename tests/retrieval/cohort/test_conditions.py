"""The menu of conditions, the names of cohorts, and the looks that a verdict pays for."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import InvalidInputError
from llm_trader.index.points import COLUMN_ROW
from llm_trader.retrieval.cohort.conditions import (
    CONDITIONS,
    DIMENSIONS,
    MAX_CONDITIONS,
    CohortName,
    condition_masks,
    further_conditions,
    looks,
)
from llm_trader.timeframe import parse_rfc3339
from tests.retrieval.cohort.markets import null_market

AT_MS = parse_rfc3339("2026-03-20T12:00:00Z")
OPEN = CohortName("BTCUSDT", AT_MS)

# One condition of each of up to three kinds.
paths = (
    st.lists(st.sampled_from(DIMENSIONS), max_size=MAX_CONDITIONS, unique_by=lambda d: d.name)
    .flatmap(
        lambda ds: st.tuples(*(st.sampled_from([f"{d.name}={v}" for v in d.values]) for d in ds))
    )
    .map(list)
)


@given(paths, st.randoms())
def test_a_name_is_the_same_whatever_the_order_of_its_conditions(path, random) -> None:
    other = list(path)
    random.shuffle(other)
    name = OPEN.refined(path)
    step_by_step = OPEN
    for condition in other:
        step_by_step = step_by_step.refined([condition])
    assert str(name) == str(step_by_step)
    assert CohortName.parse(str(name)) == name
    assert name.refined(path) == name


def test_a_name_can_be_read() -> None:
    name = OPEN.refined(["volatility=high", "funding=negative"])
    assert str(name) == "BTCUSDT@2026-03-20T12:00:00Z/funding=negative/volatility=high"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("BTCUSDT", "is no name of a cohort, such as BTCUSDT@"),
        ("@2026-03-20T12:00:00Z", "is no name of a cohort"),
        ("BTCUSDT@noon", "'noon' is not RFC 3339"),
        ("BTCUSDT@2026-03-20T12:00:00Z/funding=none", "'funding=none' is unknown; choose from"),
        ("BTCUSDT@2026-03-20T12:00:00Z/funding=negative/funding=positive", "has funding=negative"),
        (f"{OPEN}/trend=up/hour=0-8/week=weekend/volume=low", "already has 3 conditions"),
    ],
)
def test_what_is_no_cohort_is_refused_with_what_to_do(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        CohortName.parse(text)


def test_a_look_pays_for_all_cohorts_that_could_have_been_looked_at() -> None:
    by_count = {0: [()], 1: [], 2: [], 3: []}
    for count in (1, 2, 3):
        for chosen in combinations(CONDITIONS, count):
            if len({condition.partition("=")[0] for condition in chosen}) == count:
                by_count[count].append(chosen)
    for count, cohorts in by_count.items():
        # Against the window and against each cohort that it is refined from, in a quarter of the
        # chance of error.
        assert looks(count) == 4 * len(cohorts) * (1 + count)
    share_of_error = sum(len(c) * (1 + n) / looks(n) for n, c in by_count.items())
    assert share_of_error == pytest.approx(1)


def test_no_order_of_asking_makes_a_look_cheaper() -> None:
    prices = {str(OPEN): looks(0)}
    for first in CONDITIONS:
        once = OPEN.refined([first])
        for second in further_conditions(once.conditions):
            twice = once.refined([second])
            prices.setdefault(str(twice), looks(len(twice.conditions)))
            assert prices[str(twice)] == looks(2) > looks(1) > looks(0)


def test_conditions_of_a_kind_share_the_states_that_know_it() -> None:
    window = null_market(0, days=10).window
    masks = condition_masks(window)
    for dimension in DIMENSIONS:
        met = sum(masks[f"{dimension.name}={value}"].astype(int) for value in dimension.values)
        assert (met == 1).all(), dimension.name
    thirds = [masks[f"volatility={value}"].mean() for value in ("low", "middle", "high")]
    assert thirds == pytest.approx([1 / 3] * 3, abs=0.01)
    hours = window.column("hour_of_day")
    assert set(np.unique(hours[masks["hour=8-16"]])) <= set(np.arange(8, 16, 0.25))
    # 2025 began on a Wednesday.
    assert masks["week=weekend"].reshape(-1, 96)[:, 0].tolist() == [d in (3, 4) for d in range(10)]


def test_a_state_that_lacks_a_field_meets_no_condition_of_it() -> None:
    window = null_market(0, days=2).window
    values = window.values.copy()
    for field in ("funding_rate", "oi_delta_pct"):
        values[COLUMN_ROW[field], ::2] = np.nan
    masks = condition_masks(replace(window, values=values))
    for name in ("funding=negative", "funding=positive", "oi_change=low", "oi_change=high"):
        assert not masks[name][::2].any()
        assert masks[name][1::2].any()
    values[COLUMN_ROW["oi_delta_pct"]] = np.nan
    assert not condition_masks(replace(window, values=values))["oi_change=middle"].any()
