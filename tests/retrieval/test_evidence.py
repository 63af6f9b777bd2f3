from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.embedding.state import StateSpace
from llm_trader.index.points import PointTable
from llm_trader.retrieval.answer import BarrierEvidence, Estimate, Evidence, Novelty
from llm_trader.retrieval.evidence import (
    INTERVAL_LEVEL,
    LEAST_EFFECTIVE_EPISODES,
    Comparison,
    Neighbourhood,
    build_evidence,
    decide_verdict,
    no_evidence,
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
    evidence = build_evidence(episodes, BaseRates.of(window), ALL, volatility, None)
    return Case(points, window, evidence, volatility)


def effective(points: PointTable, horizon_ms: int) -> float:
    times = points.timestamp_ms.tolist()
    return len(times) ** 2 / sum(
        max(0.0, 1 - abs(a - b) / horizon_ms) for a in times for b in times
    )


def interval(estimate: Estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


@settings(max_examples=25)
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


@settings(max_examples=25)
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


@settings(max_examples=25)
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


@settings(max_examples=25)
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


@settings(max_examples=25)
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
    actual = build_evidence(episodes, BaseRates.of(window), ALL, math.nan, None)
    assert [actual.horizons[name].rescaled for name in ALL] == [None] * 4
    assert math.isfinite(actual.horizons["4h"].mean.low)


def test_only_the_horizons_asked_for_are_told_in_their_order() -> None:
    window = past(range(0, 300, 20))
    episodes = Neighbourhood(window, np.arange(len(window)), np.linspace(0.9, 0.5, len(window)))
    actual = build_evidence(episodes, BaseRates.of(window), ("24h", "1h"), 2.0, None)
    assert set(actual.horizons) == {"1h", "24h"}
    assert actual.barriers is not None


def test_one_neighbour_has_a_mean_of_unknown_spread_and_no_verdict() -> None:
    window = past(range(300))
    episodes = Neighbourhood(window, np.array([7]), np.array([0.8]))
    actual = build_evidence(episodes, BaseRates.of(window), ALL, 2.0, None)
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


def comparisons(*deviations: float) -> list[Comparison]:
    return [Comparison(f"number {i}", 0.4, 0.5, d) for i, d in enumerate(deviations)]


ORDINARY = Novelty(50.0, 0.8, 128)
STRENGTH = ["none", "weak", "informative"]


def test_far_from_the_base_rate_is_informative_and_names_what_is() -> None:
    verdict, reason = decide_verdict(comparisons(0.5, -9.0, 3.0), 40.0, ORDINARY)
    assert verdict == "informative"
    assert "number 1 is 0.40 against a base rate of 0.50" in reason
    assert "9.0 standard errors" in reason


def test_near_the_base_rate_is_no_evidence() -> None:
    assert decide_verdict(comparisons(0.5, -1.5, 1.0), 40.0, ORDINARY)[0] == "none"


@given(
    st.lists(st.floats(-12, 12), min_size=1, max_size=10),
    st.one_of(st.none(), st.builds(Novelty, st.floats(0, 100), st.floats(-1, 1), st.just(128))),
)
def test_a_verdict_is_one_of_three_words_with_a_reason(
    deviations: list[float], novelty: Novelty | None
) -> None:
    verdict, reason = decide_verdict(comparisons(*deviations), 40.0, novelty)
    assert verdict in STRENGTH
    assert reason


@given(st.lists(st.floats(-12, 12), min_size=1, max_size=10), st.floats(0, 12))
def test_a_verdict_grows_with_the_largest_deviation_whatever_its_sign(
    deviations: list[float], more: float
) -> None:
    verdict, _ = decide_verdict(comparisons(*deviations), 40.0, ORDINARY)
    mirrored, _ = decide_verdict(comparisons(*(-d for d in deviations)), 40.0, ORDINARY)
    stronger, _ = decide_verdict(comparisons(*deviations, more), 40.0, ORDINARY)
    assert verdict == mirrored
    assert STRENGTH.index(stronger) >= STRENGTH.index(verdict)


def test_a_state_unlike_the_past_is_no_evidence_however_far_its_neighbours_lie() -> None:
    verdict, reason = decide_verdict(comparisons(20.0), 40.0, Novelty(99.5, 0.31, 128))
    assert verdict == "none"
    assert "unlike the past" in reason
    assert "0.31" in reason
    assert decide_verdict(comparisons(20.0), 40.0, Novelty(98.0, 0.31, 128))[0] == "informative"
    assert decide_verdict(comparisons(20.0), 40.0, None)[0] == "informative"


@pytest.mark.parametrize("gap_hours", [1, 24])
@pytest.mark.parametrize("count", [2, LEAST_EFFECTIVE_EPISODES - 1])
def test_few_episodes_are_no_evidence_however_far_from_the_base_rate(
    count: int, gap_hours: int
) -> None:
    window = past(range(2500))
    values = window.values.copy()
    values[-7:-3] = values[-7:-3] * 0.01 - 50
    values[-1] = 0.0
    low = PointTable(window.symbol, window.timestamp_ms, values, window.vectors, window.run)
    points = low.take(np.arange(count) * gap_hours * 4)
    episodes = Neighbourhood(points, np.arange(len(points)), np.linspace(0.9, 0.8, count))
    actual = build_evidence(episodes, BaseRates.of(window), ALL, 2.0, None)
    assert actual.verdict == "none"
    assert "effective episodes" in actual.reason
    many = Neighbourhood(low, np.arange(40) * 60, np.linspace(0.9, 0.8, 40))
    assert build_evidence(many, BaseRates.of(window), ALL, 2.0, None).verdict == "informative"


async def verdicts(
    symbols: int, queries: int, *, pull: float = 0.0, barriers: tuple[float, ...] | None = None
) -> list[str]:
    """Verdicts of queries of random states over 3000 quarter-hours, by symbol.

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
        return [(await retriever.query(s, as_of_ms, config)).evidence.verdict for s in states]


async def test_where_outcomes_are_chance_hardly_any_verdict_says_otherwise() -> None:
    results = await verdicts(symbols=6, queries=60)
    assert len(results) == 360
    assert results.count("informative") <= 0.03 * len(results)
    assert results.count("informative") + results.count("weak") <= 0.15 * len(results)


async def test_where_outcomes_follow_from_states_most_verdicts_say_so() -> None:
    results = await verdicts(symbols=2, queries=50, pull=1.0)
    assert results.count("informative") >= 0.6 * len(results)
