"""Ways to decide are traded on the same snapshots, and know no more than there was to know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from math import nan
from typing import Any

import msgspec
import numpy as np
import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.evaluation import significance
from llm_trader.evaluation.backtest.performance import daily_returns
from llm_trader.evaluation.backtest.simulator import sides_of, single_results
from llm_trader.evaluation.backtest.strategies import (
    BASELINE,
    RAG,
    RANDOM_NEIGHBOURS,
    STRATEGIES,
    Backtest,
    GivenArm,
    Market,
    compare_arms,
    pair_decisions,
    run_backtest,
)
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Arm
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.llm.aggregator import AggregatorConfig, aggregate
from llm_trader.llm.decision import Decision, Outlook
from llm_trader.retrieval.intervals import Interval
from llm_trader.snapshot.outcome import OUTCOMES
from llm_trader.timeframe import DAY_MS, HOUR_MS
from llm_trader.trading.rules import Costs
from tests.evaluation.small_market import (
    NO_FUNDING,
    RULE,
    SEARCH,
    early_walk,
    made_market,
    made_walk,
    walk_through,
)
from tests.index.builders import START_MS

FREE = Costs(taker_fee_bps=0, slippage_bps=0)
SETTINGS = AggregatorConfig(horizon="4h", least_mean_bp=10, least_similarity=0.3)
PLAN = StudyPlan(
    step_minutes=60,
    search=SEARCH,
    rules={"4h": RULE},
    aggregator=SETTINGS,
    costs=FREE,
    reps=200,
    seed=5,
)
MARKET = Market(made_market().candles, NO_FUNDING)
# Those that ask nothing of the neighbours.
RULES_OF_THUMB = ("rsi-7", "macd-sign", "hold")


def planned(**changes: Any) -> StudyPlan:
    return msgspec.structs.replace(PLAN, **changes)


def arms(walk: WalkForward, plan: StudyPlan = PLAN, of: Market = MARKET) -> dict[str, Backtest]:
    return {name: run_backtest(name, walk, of, plan) for name in STRATEGIES}


@cache
def made_arms() -> dict[str, Backtest]:
    return arms(made_walk())


def compared(traded: Iterable[Backtest], baseline: str) -> dict[str, Arm]:
    found = compare_arms("BTCUSDT", list(traded), baseline, trials=1, plan=PLAN)
    return {of.name: of for of in found}


def actions(traded: Backtest) -> list[str]:
    return [decision.action for decision in traded.decisions]


def with_changed(points: PointTable, rows: np.ndarray, seed: int = 0) -> PointTable:
    """The same with other outcomes in some rows."""
    values = points.values.copy()
    block = np.ix_([COLUMN_ROW[name] for name in OUTCOMES], np.flatnonzero(rows))
    values[block] = 50 * np.random.default_rng(seed).standard_normal(values[block].shape)
    return replace(points, values=values)


def test_every_way_decides_once_on_each_snapshot() -> None:
    walk, found = made_walk(), made_arms()
    assert set(STRATEGIES) == {RAG, BASELINE, RANDOM_NEIGHBOURS, "random", *RULES_OF_THUMB}
    for name, traded in found.items():
        assert traded.name == name
        assert len(traded.decisions) == len(walk.queries)
        assert np.array_equal(traded.simulation.time_ms, walk.queries.timestamp_ms)
        assert traded.simulation.end_ms == found["hold"].simulation.end_ms


def test_where_states_tell_of_what_follows_retrieval_earns_more_than_doing_without() -> None:
    found = made_arms()
    equity = {name: of.simulation.final_equity for name, of in found.items()}
    assert equity[RAG] > 1.5
    assert equity[RAG] > 1.3 * max(equity[BASELINE], equity[RANDOM_NEIGHBOURS])
    sides = actions(found[RAG])
    assert min(sides.count("LONG"), sides.count("SHORT")) > 100
    for baseline in (BASELINE, RANDOM_NEIGHBOURS):
        difference = compared(found.values(), baseline)[RAG].difference
        assert difference is not None
        assert difference.value > 0


def test_the_baseline_follows_what_all_states_of_the_window_were_followed_by() -> None:
    walk, decisions = made_walk(), made_arms()[BASELINE].decisions
    then, now = (of.column("expected_volatility_4h") for of in (walk.points, walk.queries))
    unit, near = walk.points.column("outcome_4h") / then, walk.neighbours
    settings = msgspec.structs.replace(SETTINGS, least_similarity=None)
    for row in range(0, len(decisions), 7):
        outcomes = unit[near.first[row] : near.last[row]] * now[row]
        usual = Outlook(
            mean_pct=float(outcomes.mean()),
            median_pct=float(np.median(outcomes)),
            p_up=float((outcomes > 0).mean()),
            episodes=len(outcomes),
            effective_episodes=len(outcomes) / 16,  # quarter-hours in four hours
            similarity_mean=None,
        )
        expected = aggregate(usual, settings)
        assert decisions[row].action == expected.action
        assert decisions[row].reasoning == expected.reasoning
        assert decisions[row].confidence == pytest.approx(expected.confidence)


def test_random_neighbours_decide_in_the_place_of_the_nearest_whatever_their_likeness() -> None:
    walk = made_walk()
    swapped = walk._replace(neighbours=walk.random)
    anyway = planned(aggregator=msgspec.structs.replace(SETTINGS, least_similarity=None))
    placebo = made_arms()[RANDOM_NEIGHBOURS]
    assert placebo.decisions == run_backtest(RAG, swapped, MARKET, anyway).decisions
    assert actions(placebo) != actions(made_arms()[RAG])
    assert {"LONG", "SHORT"} <= set(actions(placebo))


def test_neighbours_too_unlike_are_followed_by_nobody_but_the_placebo() -> None:
    strict = planned(aggregator=msgspec.structs.replace(SETTINGS, least_similarity=1.0))
    found = arms(made_walk(), strict)
    assert set(actions(found[RAG])) == {"HOLD"} == set(actions(found["random"]))
    for name in (BASELINE, RANDOM_NEIGHBOURS, *RULES_OF_THUMB):
        assert found[name].decisions == made_arms()[name].decisions


def test_costs_are_paid_by_those_who_trade() -> None:
    free, dear = made_arms(), arms(made_walk(), planned(costs=Costs()))
    for name, traded in free.items():
        assert actions(dear[name]) == actions(traded)
        paid = dear[name].simulation.final_equity < traded.simulation.final_equity
        assert paid == bool(traded.simulation.trades)


def test_hold_is_one_trade_over_the_whole_time() -> None:
    (run_backtest,) = made_arms()["hold"].simulation.trades
    candles, stamps = made_market().candles, made_walk().queries.timestamp_ms
    assert run_backtest.entry_ms == stamps[0]
    assert run_backtest.exit_reason == "end"
    entered = candles.open[np.searchsorted(candles.open_time_ms, stamps[0])]
    assert run_backtest.gross_pct == pytest.approx(100 * (candles.close[-1] / entered - 1))


def test_random_sides_are_those_of_retrieval_at_another_time() -> None:
    found, n = made_arms(), len(made_walk().queries)
    of_rag, drawn = actions(found[RAG]), actions(found["random"])
    (by,) = [by for by in range(n) if of_rag[by:] + of_rag[:by] == drawn]
    assert n // 4 <= by <= 3 * n // 4
    again, other = (
        run_backtest("random", made_walk(), MARKET, planned(seed=seed)) for seed in (PLAN.seed, 6)
    )
    assert actions(again) == actions(found["random"])
    assert actions(other) != actions(found["random"])


def test_with_too_few_neighbours_nothing_is_risked() -> None:
    walk, found = early_walk(), arms(early_walk())
    few = ~walk.neighbours.complete
    assert 0 < few.sum() < len(few)
    for name in (RAG, BASELINE, RANDOM_NEIGHBOURS):
        for row in np.flatnonzero(few):
            decision = found[name].decisions[row]
            assert (decision.action, decision.hold_reason) == ("HOLD", "model")
            assert "no neighbour has a known outcome" in decision.reasoning


def test_all_ways_have_an_outlook_on_the_same_snapshots() -> None:
    walk = early_walk()
    few = np.flatnonzero(~walk.neighbours.complete)[-1]
    rows, similarity = walk.random.rows.copy(), walk.random.similarity.copy()
    rows[few], similarity[few] = np.arange(rows.shape[1]), 0.5
    lucky = walk._replace(random=walk.random._replace(rows=rows, similarity=similarity))
    for name in (RAG, BASELINE, RANDOM_NEIGHBOURS):
        decision = run_backtest(name, lucky, MARKET, PLAN).decisions[few]
        assert "no neighbour has a known outcome" in decision.reasoning


@pytest.mark.parametrize("day", [24, 40])
def test_what_is_not_known_yet_decides_nothing(day: int) -> None:
    points, now_ms = made_market().points, START_MS + day * DAY_MS
    changed = with_changed(points, points.resolved_at_ms > now_ms)
    past = made_walk().queries.timestamp_ms <= now_ms
    found, other = made_arms(), arms(walk_through(changed))
    for name in found.keys() - {"random"}:  # whose frequencies are those of the whole time
        sides = [np.array(actions(of[name])) for of in (found, other)]
        assert np.array_equal(sides[0][past], sides[1][past]), name
    assert past.sum() > 24
    assert actions(found[RAG]) != actions(other[RAG])


def test_a_query_s_own_outcome_decides_nothing() -> None:
    walk = made_walk()
    changed = with_changed(walk.queries, np.ones(len(walk.queries), bool))
    found, other = made_arms(), arms(walk._replace(queries=changed))
    for name in found:
        assert found[name].decisions == other[name].decisions


def test_the_past_as_it_was_known_does_decide() -> None:
    points = made_market().points
    early = points.timestamp_ms < START_MS + 20 * DAY_MS
    other = arms(walk_through(with_changed(points, early)))
    for name in (RAG, BASELINE, RANDOM_NEIGHBOURS):
        assert actions(other[name])[:24] != actions(made_arms()[name])[:24]


@pytest.mark.parametrize("baseline", [RAG, BASELINE, "hold"])
def test_differences_are_of_daily_returns_from_the_baseline_which_has_none(baseline: str) -> None:
    traded = made_arms().values()
    found = compared(traded, baseline)
    assert list(found) == list(made_arms())
    assert found[baseline].difference is found[baseline].verdict is None
    returns = {of.name: daily_returns(of.simulation) for of in traded}
    for name in found.keys() - {baseline}:
        one = found[name]
        apart = 100 * (returns[name] - returns[baseline])
        assert one.difference is not None
        assert one.difference.value == pytest.approx(apart.mean())
        assert one.verdict == significance.verdict(one.difference)
        assert one.performance.trades == len(made_arms()[name].simulation.trades)


def test_the_days_after_a_loss_of_everything_are_compared_with_nothing() -> None:
    traded = made_arms()["hold"]
    ruin = len(traded.simulation.time_ms) // 2
    equity = np.where(np.arange(len(traded.simulation.time_ms)) < ruin, 1.0, 0.0)
    lost = replace(
        traded, name="lost", simulation=replace(traded.simulation, equity=equity, final_equity=0.0)
    )
    difference = compared([traded, lost], "hold")["lost"].difference
    assert difference is not None
    returns = daily_returns(traded.simulation)
    days = len(daily_returns(lost.simulation))
    assert 0 < days < len(returns)
    expected = 100 * (daily_returns(lost.simulation) - returns[:days]).mean()
    assert difference.value == pytest.approx(expected)


def test_with_few_days_there_is_a_difference_but_no_verdict() -> None:
    walk = made_walk()
    short = walk_through(walk.points.take(slice(0, 96 * 30)))
    candles = made_market().candles.between(None, int(short.queries.timestamp_ms[-1]) + HOUR_MS)
    few = arms(short, of=replace(MARKET, candles=candles))
    for one in compared(few.values(), "hold").values():
        if one.name == "hold":
            continue
        assert one.difference is not None
        assert one.difference.value is not None
        assert one.difference.low is one.difference.high is None
        assert one.verdict == "no evidence"


def test_an_unknown_field_makes_a_rule_that_needs_it_hold() -> None:
    walk = made_walk()
    values = walk.queries.values.copy()
    values[COLUMN_ROW["rsi_7"], 3] = nan
    found = arms(walk._replace(queries=replace(walk.queries, values=values)))
    assert found["rsi-7"].decisions[3].hold_reason == "guard"
    assert found["macd-sign"].decisions == made_arms()["macd-sign"].decisions


def test_the_more_was_tried_the_lower_is_the_deflated_sharpe_ratio() -> None:
    traded = list(made_arms().values())
    few, many = (
        {of.name: of.performance for of in compare_arms("X", traded, BASELINE, trials=n, plan=PLAN)}
        for n in (2, 200)
    )
    one, other = few[RAG].deflated_sharpe, many[RAG].deflated_sharpe
    assert one is not None
    assert other is not None
    assert other < one
    assert (few[RAG].trials, many[RAG].trials) == (2, 200)


# --- Decisions made elsewhere, as by a language model


def given(decisions: list[Decision], bill: float = 0.0) -> GivenArm:
    times_ms = made_walk().queries.timestamp_ms
    return GivenArm(times_ms, decisions, np.full(len(times_ms), bill))


def test_given_decisions_are_traded_like_those_made_here_and_pay_their_bills() -> None:
    own = made_arms()[RAG]
    free = run_backtest(RAG, made_walk(), MARKET, PLAN, given(own.decisions))
    assert free.simulation.final_equity == own.simulation.final_equity
    dear = run_backtest(RAG, made_walk(), MARKET, PLAN, given(own.decisions, 0.0001))
    assert dear.simulation.final_equity < free.simulation.final_equity - 0.01
    assert daily_returns(dear.simulation).mean() < daily_returns(free.simulation).mean()


def test_decisions_on_other_states_are_refused() -> None:
    times_ms = made_walk().queries.timestamp_ms + HOUR_MS
    shifted = given(made_arms()[RAG].decisions)._replace(time_ms=times_ms)
    with pytest.raises(InvalidInputError, match="are of other states"):
        run_backtest(RAG, made_walk(), MARKET, PLAN, shifted)


def test_arms_are_paired_state_by_state_before_and_after_a_cutoff() -> None:
    own, held = made_arms()[RAG], [Decision.hold("model", "")] * len(made_walk().queries)
    bills = 0.0002, 0.0001
    arms = [
        run_backtest(BASELINE, made_walk(), MARKET, PLAN, given(held, bills[0])),
        run_backtest(RAG, made_walk(), MARKET, PLAN, given(own.decisions, bills[1])),
    ]
    times_ms = made_walk().queries.timestamp_ms
    cutoff_ms = int(times_ms[len(times_ms) // 2])
    paired = pair_decisions("BTCUSDT", arms, BASELINE, MARKET, PLAN, cutoff_ms)
    assert [p.period for p in paired] == ["all", "up to the cutoff", "after the cutoff"]
    every, before, after = paired
    assert {(p.arm, p.baseline) for p in paired} == {(RAG, BASELINE)}
    assert before.states + after.states == every.states == len(times_ms)
    assert before.states == np.count_nonzero(times_ms < cutoff_ms)
    assert every.different == sum(d.action != "HOLD" for d in own.decisions)
    sides = sides_of(own.decisions)
    net_pct = single_results(
        MARKET.candles, MARKET.funding, times_ms, sides, PLAN.costs, PLAN.trading
    )
    expected = net_pct + 100 * (bills[0] - bills[1])
    assert every.difference.value == pytest.approx(expected.mean())
    assert after.difference.value == pytest.approx(expected[times_ms >= cutoff_ms].mean())
    # States do tell of what follows here.
    assert every.difference.above(0)
    [without] = pair_decisions("BTCUSDT", arms, BASELINE, MARKET, PLAN, None)
    assert without == every


def test_results_that_overlap_count_as_fewer() -> None:
    held = [Decision.hold("model", "")] * len(made_walk().queries)
    own = made_arms()[RAG].decisions
    arms = [
        run_backtest(n, made_walk(), MARKET, PLAN, given(d)) for n, d in (("a", held), ("b", own))
    ]
    [paired] = pair_decisions("BTCUSDT", arms, "a", MARKET, PLAN, None)
    independent = significance.mean_interval(
        single_results(
            MARKET.candles,
            MARKET.funding,
            made_walk().queries.timestamp_ms,
            sides_of(own),
            PLAN.costs,
            PLAN.trading,
        ),
        1,
        PLAN.reps,
        PLAN.seed,
    )
    assert width(paired.difference) > 1.3 * width(independent)


def width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low
