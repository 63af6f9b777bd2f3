from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.llm.decision import Decision
from llm_trader.llm.record.decisions import Costs, DecisionSummary
from llm_trader.llm.record.statistics import DecisionStatistics, decision_statistics
from llm_trader.timeframe import HOUR_MS
from tests.llm.record.calls import NOON_MS
from tests.llm.record.decisions import LONG, SHORT, summary


def statistics(decisions: list[DecisionSummary], *outcomes_pct: float | None) -> DecisionStatistics:
    known = {
        one.id: outcome
        for one, outcome in zip(decisions, outcomes_pct, strict=False)
        if outcome is not None
    }
    return decision_statistics(decisions, known, "4h")


def test_actions_and_the_three_kinds_of_hold_are_counted_apart() -> None:
    holds = [Decision.hold(kind, "so") for kind in ("model", "error", "error", "guard")]
    decisions = [summary(number, one) for number, one in enumerate([LONG, LONG, SHORT, *holds])]
    (group,) = statistics(decisions).groups
    counts = group.long, group.short, group.hold_model, group.hold_error, group.hold_guard
    assert counts == (2, 1, 1, 2, 1)
    assert group.decisions == 7


def test_models_arms_and_origins_are_groups_of_their_own() -> None:
    decisions = [
        summary(1),
        summary(2, arm="baseline"),
        summary(3, model="gpt"),
        summary(4, origin="evaluate ab"),
        summary(5, provider=None, model=None),
        summary(6),
    ]
    groups = statistics(decisions).groups
    assert sorted(group.decisions for group in groups) == [1, 1, 1, 1, 2]


def test_costs_and_latencies_are_summed_up() -> None:
    costs = Costs(
        cost_usd=0.02, input_tokens=1000, output_tokens=90, cached_input_tokens=400, latency_ms=800
    )
    paid = Costs(cost_usd=0.04, paid_usd=0.04, input_tokens=1000, latency_ms=1200)
    (group,) = statistics([summary(1, costs=costs), summary(2, costs=paid), summary(3)]).groups
    assert group.cost_usd == pytest.approx(0.06)
    assert group.paid_usd == pytest.approx(0.04)
    assert (group.input_tokens, group.output_tokens, group.cached_input_tokens) == (2000, 90, 400)
    # A decision that asked nobody has no latency.
    assert (group.latency_p50_ms, group.latency_p90_ms) == (1000, pytest.approx(1160))


def test_costs_are_summed_up_by_day_and_symbol() -> None:
    costs = Costs(cost_usd=0.02, paid_usd=0.01)
    decisions = [
        summary(1, costs=costs),
        summary(2, costs=costs, created_at_ms=NOON_MS + 13 * HOUR_MS),
        summary(3, costs=costs, symbol="ETHUSDT", created_at_ms=NOON_MS),
        summary(4, costs=costs, created_at_ms=NOON_MS),
    ]
    days = {(one.day, one.symbol): one for one in statistics(decisions).daily_costs}
    counts = sorted(one.decisions for one in days.values())
    assert (len({day for day, _ in days}), counts) == (2, [1, 1, 2])
    (two,) = (one for one in days.values() if one.decisions == 2)
    assert two.symbol == decisions[0].symbol
    assert (two.cost_usd, two.paid_usd) == (pytest.approx(0.04), pytest.approx(0.02))


def test_outcomes_count_in_the_direction_of_the_decision() -> None:
    times = [NOON_MS + hours * HOUR_MS for hours in (0, 4, 8, 12)]
    actions = [LONG, SHORT, LONG, Decision.hold("model", "wait")]
    decisions = [
        summary(number, one, as_of_ms=at)
        for number, (one, at) in enumerate(zip(actions, times, strict=True))
    ]
    (outcome,) = statistics(decisions, 2.0, 1.0, None, 9.0).outcomes
    assert (outcome.followed.decisions, outcome.unknown, outcome.followed.effective) == (2, 1, 2)
    assert outcome.followed.hit_rate.value == 0.5
    assert outcome.followed.mean_pct.value == pytest.approx(0.5)


def test_decisions_whose_horizons_overlap_count_as_one_in_the_intervals() -> None:
    quarter_ms = HOUR_MS // 4
    near = [summary(number, as_of_ms=NOON_MS + number * quarter_ms) for number in range(16)]
    apart = [summary(number, as_of_ms=NOON_MS + number * 4 * HOUR_MS) for number in range(16)]
    outcomes = [1.0, -1.0] * 8
    (crowded,), (spread,) = (statistics(one, *outcomes).outcomes for one in (near, apart))
    assert (crowded.followed.effective, spread.followed.effective) == (1, 16)
    assert crowded.followed.mean_pct.low is None
    wide, narrow = crowded.followed.hit_rate, spread.followed.hit_rate
    assert wide.value == narrow.value == 0.5
    assert wide.low < narrow.low < 0.5 < narrow.high < wide.high
    others = [summary(number, as_of_ms=NOON_MS, symbol=f"S{number}") for number in range(3)]
    assert statistics(others, *outcomes).outcomes[0].followed.effective == 3


def test_a_confidence_is_compared_with_what_followed_it() -> None:
    decisions = [
        summary(
            number,
            Decision("LONG", confidence, "so"),
            as_of_ms=NOON_MS + number * 4 * HOUR_MS,
        )
        for number, confidence in enumerate([0.55, 0.58, 0.95, 1.0, None])
    ]
    bands = statistics(decisions, 1.0, -1.0, 2.0, 3.0, 4.0).bands
    assert [(band.low, band.high) for band in bands] == [(0.5, 0.6), (0.9, 1.0)]
    assert [band.followed.decisions for band in bands] == [2, 2]
    assert [band.followed.hit_rate.value for band in bands] == [0.5, 1.0]
    assert bands[0].followed.confidence == pytest.approx(0.565)


@given(st.integers(0, 10_000))
def test_intervals_of_a_fair_coin_hold_its_chance_about_as_often_as_they_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trials, inside = 60, 0
    decisions = [summary(number, as_of_ms=NOON_MS + number * 4 * HOUR_MS) for number in range(40)]
    for _ in range(trials):
        moves = rng.standard_normal(40).tolist()
        (outcome,) = statistics(decisions, *moves).outcomes
        interval = outcome.followed.mean_pct
        inside += interval.low < 0 < interval.high
    # 54 are expected, with a standard deviation of 2.3.
    assert 54 - 5 * 2.4 < inside <= trials
