"""What followed a cohort: honest where there is nothing, and able to find what there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from llm_trader.index.points import COLUMN_ROW
from llm_trader.retrieval.answer import Novelty
from llm_trader.retrieval.cohort.conditions import CONDITIONS, condition_masks, looks
from llm_trader.retrieval.cohort.outcomes import (
    NearestStates,
    _compare,
    describe_cohort,
    rank_conditions,
)
from llm_trader.retrieval.verdict import WEAK_Z
from llm_trader.timeframe import HORIZONS
from tests.retrieval.cohort.markets import EXPECTED_PCT, nearest_by, null_market

QUESTIONS = 50


def promising(market: NearestStates) -> list[tuple[str, ...]]:
    """Fifty cohorts, as somebody would choose them who wants to find something."""
    first = [ranked.condition for ranked in rank_conditions(market, ())]
    asked: list[tuple[str, ...]] = [(), *((condition,) for condition in first[:13])]
    for condition in first[:3]:
        further = rank_conditions(market, (condition,))
        asked += [(condition, ranked.condition) for ranked in further[:12]]
    return [tuple(sorted(names, key=CONDITIONS.index)) for names in asked[:QUESTIONS]]


def claims(market: NearestStates) -> tuple[bool, bool]:
    """Whether fifty questions find an edge, with the correction and without."""
    asked = promising(market)
    assert len(set(asked)) >= QUESTIONS - 3  # pairs may meet from both sides
    corrected = any(
        describe_cohort(market, names, EXPECTED_PCT).verdict != "none" for names in asked
    )
    compared = (_compare(market.meeting(names), market.base) for names in asked)
    return corrected, max(c.largest[0] for parts in compared for c in parts) > WEAK_Z


@pytest.mark.parametrize(
    ("markets", "days"), [(5, 90), pytest.param(100, 90, marks=pytest.mark.soak)]
)
def test_fifty_questions_on_a_market_without_an_edge_make_none(markets: int, days: int) -> None:
    found = np.array([claims(null_market(seed, days)) for seed in range(markets)])
    corrected, uncorrected = found.mean(axis=0)
    assert corrected <= 0.1  # the level of `weak`
    assert uncorrected > 0.5  # else there would be nothing to correct


@pytest.mark.soak
def test_all_cohorts_of_a_state_together_keep_the_level_of_one_answer() -> None:
    found = 0
    for seed in range(40):
        market = null_market(seed, 60)
        ranked = rank_conditions(market, ())
        seen = any(entry.beyond_chance for entry in ranked)
        for condition in CONDITIONS:
            further = rank_conditions(market, (condition,))
            seen |= any(entry.beyond_chance for entry in further)
            for entry in further:
                names = tuple(sorted((condition, entry.condition), key=CONDITIONS.index))
                seen |= describe_cohort(market, names, EXPECTED_PCT).verdict != "none"
        found += seen
    assert found <= 4


def planted(seed: int, condition: str, factor: float) -> NearestStates:
    """A market in which prices move further after states that meet a condition."""
    market = null_market(seed)
    values = market.window.values.copy()
    after = condition_masks(market.window, [condition])[condition]
    for name in HORIZONS:
        values[COLUMN_ROW[f"outcome_{name}"], after] *= factor
    window = replace(market.window, values=values)
    likeness = np.full(len(window), -1.0)
    likeness[market.rows] = market.similarity
    return nearest_by(window, likeness)


@pytest.mark.parametrize("condition", ["volume=high", "hour=0-8", "change_24h=high"])
def test_the_condition_that_matters_is_ranked_first_and_survives_the_correction(
    condition: str,
) -> None:
    market = planted(3, condition, 8.0)
    first = rank_conditions(market, ())[0]
    assert first.condition == condition
    assert first.changes == "distance"
    assert first.beyond_chance
    refined = describe_cohort(market, (condition,), EXPECTED_PCT)
    assert refined.verdict == "weak"
    assert "1 in 500 states" in refined.reason or "1 in 10 states" in refined.reason
    assert "in any of their cohorts" in refined.reason
    wide, usual = refined.horizons["1h"].changes, refined.horizons["1h"].base_changes
    assert wide.p90 - wide.p10 > 1.5 * (usual.p90 - usual.p10)


def test_a_cohort_is_described_by_its_own_states() -> None:
    market = null_market(1)
    names = ("hour=0-8", "trend=up")
    told = describe_cohort(market, names, EXPECTED_PCT)
    window, rows = market.window, market.rows
    met = (window.column("hour_of_day")[rows] < 8) & (window.column("ema_ratio")[rows] > 1)
    assert told.states == met.sum()
    assert told.window_states == len(window)
    assert told.looks == looks(2)
    changes = window.column("outcome_4h")[rows[met]] / 1.2 * EXPECTED_PCT[2]
    assert told.horizons["4h"].changes.p50 == pytest.approx(np.median(changes), abs=0.2)
    assert told.similarity_range == (market.similarity[met].min(), market.similarity[met].max())
    left = told.conditions_left
    assert not any(name.startswith(("hour", "trend")) for name in left)
    assert left["funding=negative"] + left["funding=positive"] == told.states
    again = market.meeting(names).meeting(["week=weekend"])
    assert left["week=weekend"] == len(again.rows)


def test_a_cohort_of_nothing_abstains() -> None:
    market = null_market(1, days=2)
    nothing = market._replace(rows=market.rows[:0], similarity=market.similarity[:0])
    told = describe_cohort(nothing, (), EXPECTED_PCT)
    assert (told.verdict, told.states, told.similarity_range) == ("none", 0, None)
    assert told.horizons["1h"].changes is None
    assert all(entry.states == 0 for entry in rank_conditions(nothing, ()))


def test_an_unknown_volatility_leaves_out_price_changes_and_nothing_else() -> None:
    market = null_market(1)
    told = describe_cohort(market, (), [float("nan")] * 4)
    assert told.horizons["1h"].changes is told.horizons["1h"].base_changes is None
    assert told.horizons["1h"].scale is not None


def test_a_state_unlike_the_past_abstains_whatever_its_cohort_shows() -> None:
    market = planted(3, "volume=high", 4.0)._replace(novelty=Novelty(99.5, 0.3, 128))
    told = describe_cohort(market, ("volume=high",), EXPECTED_PCT)
    assert told.verdict == "none"
    assert "unlike the past" in told.reason


def test_the_future_of_the_window_changes_no_cohort() -> None:
    market = null_market(2)
    values = market.window.values.copy()
    # Which states belong to a cohort depends on no outcome.
    for name in HORIZONS:
        values[COLUMN_ROW[f"outcome_{name}"]] *= -3
    other = market._replace(window=replace(market.window, values=values))
    for condition in islice(CONDITIONS, 0, None, 4):
        ours, theirs = market.meeting([condition]), other.meeting([condition])
        assert ours.rows.tolist() == theirs.rows.tolist()
