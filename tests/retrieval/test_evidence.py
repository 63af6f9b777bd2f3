from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.embedding.state import StateSpace
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.retrieval.answer import BarrierEvidence, Estimate, Evidence
from llm_trader.retrieval.evidence import (
    INTERVAL_LEVEL,
    EpisodeNumbers,
    Neighbourhood,
    Outlook,
    Prospect,
    build_evidence,
    no_evidence,
)
from llm_trader.retrieval.forecast import (
    FORECAST_LEVELS,
    WEIGHT_OF_NEIGHBOURS,
    ForecastBase,
    mixture_quantiles,
)
from llm_trader.retrieval.intervals import student_t, wilson
from llm_trader.retrieval.reference import QUANTILE_LEVELS, BaseRates
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HORIZONS, M5
from tests.index.builders import at
from tests.retrieval.builders import (
    index_of,
    of_symbol,
    outcomes_at,
    past,
    points_of,
    states_at,
)

ALL = tuple(HORIZONS)
Z90 = NormalDist().inv_cdf(0.95)


EXPECTED_PCT = [0.2, 0.4, 0.9, 2.5]


def evidence_of(
    episodes: Neighbourhood,
    window: PointTable,
    volatility: float = 2.0,
    horizons: tuple[str, ...] = ALL,
    expected_pct: Sequence[float] = EXPECTED_PCT,
) -> Evidence:
    """Evidence of episodes that are the neighbours of the forecast, too."""
    prospect = Prospect.of(ForecastBase.of(window), episodes)
    outlook = Outlook.of(prospect, window, list(expected_pct))
    one = episodes.rows[None], episodes.similarity[None], np.array([volatility])
    [numbers] = EpisodeNumbers.of(episodes.points, *one)
    return build_evidence(numbers, BaseRates.of(window), outlook, horizons, volatility, None)


class Case(NamedTuple):
    points: PointTable
    window: PointTable
    evidence: Evidence
    volatility_now: float


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Neighbours in any order of time, of a window of 300 points."""
    window = past(range(300), seed=draw(st.integers(0, 20)))
    rows = draw(st.lists(st.integers(0, 299), min_size=2, max_size=50, unique=True))
    points = window.take(np.array(rows))
    volatility = draw(st.floats(0.1, 20))
    episodes = Neighbourhood(points, np.arange(len(points)), np.linspace(0.9, 0.5, len(rows)))
    evidence = evidence_of(episodes, window, volatility)
    return Case(points, window, evidence, volatility)


def effective(points: PointTable, horizon_ms: int) -> float:
    times = points.timestamp_ms.tolist()
    return len(times) ** 2 / sum(
        max(0.0, 1 - abs(a - b) / horizon_ms) for a in times for b in times
    )


def interval(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


@given(cases())
def test_means_and_shares_stand_with_their_intervals_beside_the_windows(case: Case) -> None:
    for name, horizon_ms in HORIZONS.items():
        actual = case.evidence.horizons[name]
        values = case.points.column(f"outcome_{name}")
        everything = case.window.column(f"outcome_{name}")
        n = effective(case.points, horizon_ms)
        assert actual.effective_episodes == pytest.approx(n)
        assert actual.mean.value == pytest.approx(values.mean())
        assert actual.mean.base_rate == pytest.approx(everything.mean())
        reach = student_t(Z90, max(n - 1, 1)) * values.std(ddof=1) / math.sqrt(n)
        assert interval(actual.mean) == pytest.approx(
            (values.mean() - reach, values.mean() + reach)
        )
        assert actual.p_up.value == pytest.approx((values > 0).mean())
        assert actual.p_up.base_rate == pytest.approx((everything > 0).mean())
        assert interval(actual.p_up) == pytest.approx(wilson((values > 0).mean(), n, Z90))


@given(cases())
def test_quantiles_stand_with_their_order_statistics_beside_the_windows(case: Case) -> None:
    for name, horizon_ms in HORIZONS.items():
        actual = case.evidence.horizons[name]
        values = case.points.column(f"outcome_{name}")
        n = effective(case.points, horizon_ms)
        for level in QUANTILE_LEVELS:
            off = Z90 * math.sqrt(level * (1 - level) / n)
            at_levels = np.clip([level, level - off, level + off], 0, 1)
            value, low, high = np.quantile(values, at_levels)
            estimate = getattr(actual, f"p{round(level * 100)}")
            assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
                (value, low, high), abs=1e-9
            )
            base_rate = np.quantile(case.window.column(f"outcome_{name}"), level)
            assert estimate.base_rate == pytest.approx(base_rate)


@given(cases())
def test_outcomes_are_rescaled_by_volatility_now_over_volatility_then(case: Case) -> None:
    for name in HORIZONS:
        rescaled = case.evidence.horizons[name].rescaled
        assert rescaled is not None
        then = case.points.column("realized_volatility_24h").tolist()
        outcomes = case.points.column(f"outcome_{name}").tolist()
        scaled = [o * case.volatility_now / v for o, v in zip(outcomes, then, strict=True)]
        assert rescaled.mean == pytest.approx(sum(scaled) / len(scaled))
        actual = [getattr(rescaled, f"p{round(level * 100)}") for level in QUANTILE_LEVELS]
        assert actual == pytest.approx(np.quantile(scaled, QUANTILE_LEVELS).tolist())


@given(cases())
def test_barriers_are_shares_of_what_was_touched_first(case: Case) -> None:
    barriers = case.evidence.barriers
    assert isinstance(barriers, BarrierEvidence)
    n = effective(case.points, DAY_MS)
    for code, actual in ((1.0, barriers.stop_first), (2.0, barriers.target_first)):
        first = case.points.column("first_barrier").tolist()
        share = first.count(code) / len(first)
        assert actual.value == pytest.approx(share)
        assert interval(actual) == pytest.approx(wilson(share, n, Z90))
        base_rate = case.window.column("first_barrier").tolist()
        assert actual.base_rate == pytest.approx(base_rate.count(code) / len(base_rate))


def test_episodes_that_do_not_know_their_barrier_have_no_part_in_its_share() -> None:
    window = past(range(300))
    values = window.values.copy()
    rows = np.arange(40)
    values[COLUMN_ROW["first_barrier"], ::2] = np.nan
    holed = replace(window, values=values)

    def shares_of(places: np.ndarray) -> BarrierEvidence | None:
        episodes = Neighbourhood(holed, places, np.linspace(0.9, 0.5, len(places)))
        return evidence_of(episodes, holed).barriers

    barriers = shares_of(rows)
    assert barriers is not None
    known = window.column("first_barrier")[rows[1::2]].tolist()
    assert barriers.stop_first.value == known.count(1.0) / len(known)
    assert shares_of(rows[::2]) is None


@given(cases())
def test_evidence_tells_what_it_is_made_from(case: Case) -> None:
    actual = case.evidence
    assert actual.episodes == len(case.points)
    assert actual.base_rate_points == 300
    assert actual.interval_level == INTERVAL_LEVEL == 0.9
    assert actual.similarity_range == (0.5, 0.9)
    assert actual.similarity_mean == pytest.approx(0.7)
    assert actual.verdict in ("informative", "weak", "none")
    assert actual.reason


def test_without_the_volatility_now_nothing_is_rescaled() -> None:
    window = past(range(0, 300, 20))
    episodes = Neighbourhood(window, np.arange(len(window)), np.linspace(0.9, 0.5, len(window)))
    actual = evidence_of(episodes, window, math.nan)
    assert [actual.horizons[name].rescaled for name in ALL] == [None] * 4
    assert math.isfinite(actual.horizons["4h"].mean.low)


def test_only_the_horizons_asked_for_are_told_in_their_order() -> None:
    window = past(range(0, 300, 20))
    episodes = Neighbourhood(window, np.arange(len(window)), np.linspace(0.9, 0.5, len(window)))
    actual = evidence_of(episodes, window, horizons=("24h", "1h"))
    assert set(actual.horizons) == {"1h", "24h"}
    assert actual.barriers is not None


def test_one_neighbour_has_a_mean_of_unknown_spread_and_no_verdict() -> None:
    window = past(range(300))
    episodes = Neighbourhood(window, np.array([7]), np.array([0.8]))
    actual = evidence_of(episodes, window)
    mean = actual.horizons["4h"].mean
    assert mean.value == window.column("outcome_4h")[7]
    assert (mean.low, mean.high) == (None, None)
    assert actual.verdict == "none"


def test_no_evidence_is_a_verdict_with_a_reason_and_no_numbers() -> None:
    actual = no_evidence("nothing there", 12)
    assert (actual.verdict, actual.reason, actual.episodes) == ("none", "nothing there", 0)
    assert (actual.base_rate_points, actual.horizons) == (12, {})
    assert (
        actual.novelty
        is actual.barriers
        is actual.similarity_mean
        is actual.similarity_range
        is None
    )


def test_the_forecast_is_in_units_of_the_volatility_expected_now() -> None:
    window = past(range(3000))
    neighbours = Neighbourhood(window, np.arange(0, 3000, 10), np.full(300, 0.8))
    actual = evidence_of(neighbours, window)
    for row, name in enumerate(ALL):
        horizon = actual.horizons[name]
        assert horizon.forecast is not None
        relative = window.column(f"outcome_{name}") / window.column(f"expected_volatility_{name}")
        weight = WEIGHT_OF_NEIGHBOURS[name]
        mixed = [np.sort(relative)], np.sort(relative[::10])[None], np.array([weight])
        shares = np.arange(1, 301)[None] / 300
        quantiles = mixture_quantiles(*mixed, shares)[0]
        expected_pct = EXPECTED_PCT[row]
        assert horizon.expected_volatility_pct == expected_pct
        assert horizon.forecast.quantiles == pytest.approx((quantiles * expected_pct).tolist())
        mean = weight * relative[::10].mean() + (1 - weight) * relative.mean()
        assert horizon.forecast.mean == pytest.approx(mean * expected_pct)
        p_up = weight * (relative[::10] > 0).mean() + (1 - weight) * (relative > 0).mean()
        assert horizon.forecast.p_up == pytest.approx(p_up)
        assert horizon.forecast.weight_of_neighbours == weight
    assert len(FORECAST_LEVELS) == 99


def test_fewer_neighbours_than_were_judged_leave_the_base_alone() -> None:
    window = past(range(3000))
    neighbours = Neighbourhood(window, np.arange(0, 2985, 15), np.full(199, 0.8))
    for horizon in evidence_of(neighbours, window).horizons.values():
        assert horizon.forecast is not None
        assert horizon.forecast.weight_of_neighbours == 0


def test_without_the_volatility_expected_now_there_is_no_forecast() -> None:
    window = past(range(3000))
    neighbours = Neighbourhood(window, np.arange(0, 3000, 10), np.full(300, 0.8))
    actual = evidence_of(neighbours, window, expected_pct=np.full(4, math.nan))
    for horizon in actual.horizons.values():
        assert horizon.expected_volatility_pct is horizon.forecast is horizon.summary is None
        assert horizon.scale is not None


async def answers(
    symbols: int, queries: int, *, pull: float = 0.0, barriers: tuple[float, ...] | None = None
) -> list[Evidence]:
    """Evidence of queries of random states over 3000 quarter-hours, by symbol.

    Every state of a symbol has its own latent factor; outcomes depend on it as far as `pull`
    says, and not at all at 0.
    """
    times = at(range(3000))
    as_of_ms = int(times[-1]) + DAY_MS
    tables, states = [], []
    for number in range(symbols):
        rng = np.random.default_rng([11, number])
        latent = rng.standard_normal(3000 + queries)
        shared = latent if pull else None
        rows_and_queries = states_at(at(range(3000 + queries)), 100 + number, shared)
        outcomes = outcomes_at(3000, 200 + number, pull * latent[:3000])
        if barriers:
            outcomes[-1] = rng.choice([0.0, 1.0, 2.0], 3000, p=barriers)
        name = f"COIN{number}USDT"
        tables.append(of_symbol(points_of(rows_and_queries.take(np.arange(3000)), outcomes), name))
        states += [
            SnapshotTable(name, M5, t.as_of_ms, t.scalars, t.series)
            for t in (rows_and_queries.take(np.array([3000 + i])) for i in range(queries))
        ]
    config = SearchSpec(lookback_days=90, include_regime_filters=False)
    async with index_of(*tables) as index:
        retriever = Retriever(index, StateSpace(M5))
        return [(await retriever.query(s, as_of_ms, config)).evidence for s in states]


@pytest.mark.parametrize("symbols", [2, pytest.param(6, marks=pytest.mark.soak)])
async def test_where_outcomes_are_chance_hardly_any_verdict_says_otherwise(symbols: int) -> None:
    results = await answers(symbols=symbols, queries=60)
    assert len(results) == symbols * 60
    beyond_1_in_500 = [told for told in results if "fewer than 1 in 500" in told.reason]
    assert len(beyond_1_in_500) <= 0.01 * len(results)
    assert sum(told.verdict != "none" for told in results) <= 0.15 * len(results)


async def test_where_outcomes_follow_from_states_most_verdicts_say_so() -> None:
    results = await answers(symbols=2, queries=25, pull=1.0)
    beyond_1_in_500 = [told for told in results if "fewer than 1 in 500" in told.reason]
    assert len(beyond_1_in_500) >= 0.6 * len(results)
