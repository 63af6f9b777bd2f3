"""Controls pass where a search is honest, and stop one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace as replaced

from llm_trader.embedding.state import StateSpace
from llm_trader.evaluation import significance
from llm_trader.evaluation.controls import negative_controls
from llm_trader.evaluation.controls.control_data import simulated_dataset
from llm_trader.evaluation.controls.negative_controls import (
    ALTERATION_NAMES,
    NO_EDGE,
    PLANTED,
    market_controls,
    simulated_controls,
)
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast import neighbour_search as walking
from llm_trader.evaluation.plan import DEFAULT_RULES, ForecastRule, Search, StudyPlan
from llm_trader.evaluation.results import Control
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE, PointTable
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5
from tests.index.builders import SYMBOL

LOOKBACK_DAYS = 20
PLAN = StudyPlan(
    step_minutes=60,
    search=Search(include_regime_filters=False, lookback_days=LOOKBACK_DAYS, neighbours=30),
    rules={name: DEFAULT_RULES[name] for name in ("1h", "4h", "24h")},
    reps=100,
)
# For what is not about chance.
QUICK = replaced(PLAN, step_minutes=240, rules={"1h": PLAN.rules["1h"]})


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(negative_controls, "_SIMULATED_DAYS", 90)
        patch.setattr(negative_controls, "_REPS", 1000)
        yield


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    spaces = Spaces(StateSpace(M5))
    return simulated_dataset(
        spaces, days=80, lookback_days=LOOKBACK_DAYS, seed=4, interval_ms=HOUR_MS
    )


@pytest.fixture(scope="module")
def of_market(dataset: Dataset) -> list[Control]:
    return market_controls(dataset, SYMBOL, PLAN, unheard)


@pytest.fixture(scope="module")
def of_simulations() -> list[Control]:
    return simulated_controls(M5, 1, PLAN, unheard)


@pytest.fixture
def leaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "Timestamp before T": outcomes are seen a day before they are known."""
    honest = walking.visible_rows

    def visible(timestamp_ms: Any, as_of_ms: Any, *more: Any) -> Any:
        return honest(timestamp_ms, as_of_ms + DAY_MS, *more)

    monkeypatch.setattr(walking, "visible_rows", visible)


def unheard(what: str, done: int, total: int) -> None:
    pass


def failed(controls: list[Control]) -> set[str]:
    return {one.name for one in controls if not one.passed}


def test_an_honest_search_passes_them_all(
    of_market: list[Control], of_simulations: list[Control]
) -> None:
    assert failed(of_market + of_simulations) == set()


@pytest.mark.soak
def test_a_search_that_sees_outcomes_too_early_finds_skill_where_there_is_none(
    dataset: Dataset, leaking: None
) -> None:
    assert "random vectors" in failed(market_controls(dataset, SYMBOL, PLAN, unheard))
    assert NO_EDGE in failed(simulated_controls(M5, 1, PLAN, unheard))


@pytest.mark.soak
def test_a_search_that_finds_nothing_misses_the_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = negative_controls.simulated_dataset

    def blurred(*of: Any, **more: Any) -> Dataset:
        made = honest(*of, **more)
        points = negative_controls.random_vectors(made.points[SYMBOL], 1)
        return replace(made, points={SYMBOL: points})

    monkeypatch.setattr(negative_controls, "simulated_dataset", blurred)
    assert failed(simulated_controls(M5, 1, PLAN, unheard)) == {PLANTED}


def test_each_is_judged_at_the_two_horizons_with_the_most_to_tell(
    of_market: list[Control], of_simulations: list[Control]
) -> None:
    judged = [(one.name, one.horizon) for one in of_market]
    assert judged == [(name, horizon) for name in ALTERATION_NAMES for horizon in ("1h", "4h")]
    assert {one.symbol for one in of_market} == {SYMBOL}
    assert {one.symbol for one in of_simulations} == {"simulated"}
    kinds = {one.name: one.kind for one in of_market + of_simulations}
    assert kinds == {**dict.fromkeys((*ALTERATION_NAMES, NO_EDGE), "negative"), PLANTED: "positive"}


def test_a_plan_of_another_horizon_is_controlled_at_its_own(dataset: Dataset) -> None:
    plan = replaced(QUICK, rules={"24h": ForecastRule(weight_of_neighbours=0.5)})
    assert {one.horizon for one in market_controls(dataset, SYMBOL, plan, unheard)} == {"24h"}


def test_it_is_the_wide_interval_that_decides(of_market: list[Control]) -> None:
    for one in of_market:
        assert one.wide.value == one.skill.value
        assert one.wide.low < one.skill.low < one.skill.high < one.wide.high
        assert one.passed == (significance.verdict(one.wide) != "better")


@pytest.mark.soak
def test_intervals_are_the_wider_the_more_controls_there_are() -> None:
    few, many = (simulated_controls(M5, symbols, QUICK, unheard) for symbols in (1, 5))
    # One that fails by the wider interval is tried again, on other data.
    pairs = [(a, b) for a, b in zip(few, many, strict=True) if a.attempts == b.attempts]
    assert pairs
    for one, other in pairs:
        assert (other.skill, other.wide.value) == (one.skill, one.wide.value)
        assert other.wide.high - other.wide.low > one.wide.high - one.wide.low


@pytest.mark.soak
def test_equal_seeds_give_equal_controls_and_others_others(
    dataset: Dataset,
) -> None:
    one, same, other = (
        market_controls(dataset, SYMBOL, replaced(QUICK, seed=seed), unheard) for seed in (0, 0, 1)
    )
    assert one == same
    assert {of.skill.value for of in one}.isdisjoint({of.skill.value for of in other})


@pytest.mark.soak
def test_a_simulated_market_is_searched_by_its_numbers_whatever_the_plan_says() -> None:
    plans = [
        replaced(QUICK, search=replaced(PLAN.search, vector=vector))
        for vector in ("state", "text", "random")
    ]
    state, *others = (simulated_controls(M5, 1, plan, unheard) for plan in plans)
    assert others == [state, state]


def test_the_wrong_symbol_is_another_one_where_there_is_one(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = dataset.points[SYMBOL]
    other = replace(points, symbol="ETHUSDT")
    both = replace(dataset, points={SYMBOL: points, "ETHUSDT": other})
    taken: list[PointTable] = []
    honest = negative_controls.wrong_symbol

    def noted(own: PointTable, of: PointTable, seed: int) -> PointTable:
        taken.append(of)
        return honest(own, of, seed)

    monkeypatch.setattr(negative_controls, "wrong_symbol", noted)
    for of in (both, dataset):
        market_controls(of, SYMBOL, QUICK, unheard)
    assert taken[0] is other
    assert np.array_equal(taken[-1].timestamp_ms, points.timestamp_ms)
    assert not np.array_equal(taken[-1].vectors[STATE], points.vectors[STATE])
    np.testing.assert_allclose(np.linalg.norm(taken[-1].vectors[STATE], axis=1), 1, atol=1e-6)


def test_progress_is_told_until_all_are_done(dataset: Dataset) -> None:
    heard: list[tuple[str, int, int]] = []
    market_controls(dataset, SYMBOL, QUICK, lambda *told: heard.append(told))
    assert heard == [(f"{SYMBOL}, controls", done, 4) for done in range(5)]
