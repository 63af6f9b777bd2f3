"""Markets of which the answer is known, walked through from candles to skills."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from llm_trader.embedding.state import StateSpace
from llm_trader.evaluation.controls.control_data import (
    PLANTED_REVERSAL,
    SYMBOL,
    simulated_dataset,
    simulated_points,
)
from llm_trader.evaluation.dataset import read_dataset
from llm_trader.evaluation.forecast.neighbour_search import find_neighbours
from llm_trader.evaluation.forecast.skills import score_forecasts, walk_forward
from llm_trader.evaluation.plan import ForecastRule, Search
from llm_trader.evaluation.significance import skill_interval, verdict
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE
from llm_trader.market.simulation import simulate_random_walk
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.intervals import Interval
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, M15
from tests.index.markets import make_store

SPACES = Spaces(StateSpace(M5))
RULES = dict.fromkeys(("1h", "4h"), ForecastRule(weight_of_neighbours=0.5))
SEARCH = Search(include_regime_filters=False, lookback_days=30)
SEEDS = (1, 2)
# As of controls: wide enough that chance alone stops 1 of 20 runs of this file.
LEVEL = 1 - 0.05 / (len(RULES) * len(SEEDS))


def skills(reversal: float, seed: int) -> list[Interval]:
    """Against random neighbours, one query an hour for two months."""
    data = simulated_dataset(
        SPACES, days=110, lookback_days=30, seed=seed, interval_ms=HOUR_MS, reversal=reversal
    )
    walk = walk_forward(
        data.points[SYMBOL],
        data.queries(SYMBOL, HOUR_MS),
        SEARCH,
        intraday=M5,
        step_ms=HOUR_MS,
        seed=seed,
    )
    return [
        skill_interval(of.losses.forecast, of.losses.random, of.block, 2000, seed, LEVEL)
        for of in score_forecasts(walk, RULES)
    ]


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_no_skill_is_found_where_there_is_none(seed: int) -> None:
    assert {verdict(of) for of in skills(0.0, seed)} == {"no evidence"}


@pytest.mark.soak
def test_a_planted_reversal_is_found_at_both_horizons() -> None:
    assert {verdict(of) for of in skills(PLANTED_REVERSAL, seed=1)} == {"better"}


def test_neighbours_show_no_reversal_where_the_market_has_none() -> None:
    data = simulated_dataset(SPACES, days=80, lookback_days=30, seed=4, interval_ms=M15.ms)
    points, queries = data.points[SYMBOL], data.queries(SYMBOL, HOUR_MS)
    # 200 are nearly the same ones for every query, and by chance alone correlate by 0.5.
    search = replace(SEARCH, neighbours=50, gap_hours=4.0)
    found = find_neighbours(points, queries, search)
    theirs = points.column("outcome_1h")[found.rows].mean(axis=1)
    # Of those chosen for being nearest it is -0.5: they are near because the market turned away.
    assert abs(np.corrcoef(theirs, queries.column("price_change_1h"))[0, 1]) < 0.2


def test_its_states_are_those_that_a_store_with_the_same_candles_gives(tmp_path: Path) -> None:
    made = simulated_points(SPACES, days=25, seed=3, interval_ms=M15.ms, reversal=0.1)
    start_ms, end_ms = int(made.timestamp_ms[0]), int(made.timestamp_ms[-1])
    market = simulate_random_walk(
        SYMBOL, start_ms=start_ms - 20 * DAY_MS, days=25, seed=3, timeframe=M5, reversal=0.1
    )
    with MarketStore.open(make_store(tmp_path, market)) as store:
        read = read_dataset(
            store, SPACES, [SYMBOL], start_ms, end_ms, lookback_days=1, interval_ms=M15.ms
        ).points[SYMBOL]

    assert np.array_equal(read.timestamp_ms, made.timestamp_ms)
    assert np.array_equal(read.values, made.values)
    assert np.array_equal(read.vectors[STATE], made.vectors[STATE])


def test_the_first_query_has_a_whole_lookback_to_look_at() -> None:
    data = simulated_dataset(SPACES, days=40, lookback_days=10, seed=0, interval_ms=HOUR_MS)
    asked = data.queries(SYMBOL, HOUR_MS).timestamp_ms
    known = data.points[SYMBOL].timestamp_ms

    assert ((asked[0] - 10 * DAY_MS <= known) & (known <= asked[0] - DAY_MS)).sum() == 9 * 24 + 1
    assert asked[-1] == known[-1]


def test_equal_seeds_give_equal_markets_and_others_do_not() -> None:
    one, same, other = (
        simulated_dataset(SPACES, days=23, lookback_days=1, seed=seed, interval_ms=HOUR_MS)
        for seed in (4, 4, 5)
    )

    assert one.digest() == same.digest() != other.digest()
