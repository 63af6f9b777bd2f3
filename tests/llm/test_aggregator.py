from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import InvalidInputError
from llm_trader.llm.aggregator import Aggregator, AggregatorConfig, aggregate
from llm_trader.llm.decision import Case, Decision, Outlook
from tests.llm.builders import case

SETTINGS = AggregatorConfig()
RISING = Outlook(0.40, 0.0, 0.625, 50, 10.0, 0.7)  # at every threshold at once


@st.composite
def outlooks(draw: st.DrawFn) -> Outlook:
    changes = st.floats(-2, 2).map(lambda change: round(change, 2))
    return Outlook(
        draw(changes),
        draw(changes),
        draw(st.integers(0, 64)) / 64,
        50,
        draw(st.floats(0, 50)),
        draw(st.none() | st.floats(0, 1)),
    )


def mirrored(outlook: Outlook) -> Outlook:
    return msgspec.structs.replace(
        outlook,
        mean_pct=-outlook.mean_pct,
        median_pct=-outlook.median_pct,
        p_up=1 - outlook.p_up,
    )


def test_a_mean_at_the_threshold_with_a_median_of_zero_is_long() -> None:
    decision = aggregate(RISING, SETTINGS)
    assert (decision.action, decision.confidence) == ("LONG", 0.625)
    assert "+40.0 bp" in decision.reasoning


def test_the_mirror_is_short_with_the_share_of_those_that_did_not_rise() -> None:
    decision = aggregate(mirrored(RISING), SETTINGS)
    assert (decision.action, decision.confidence) == ("SHORT", 0.625)
    assert "-40.0 bp" in decision.reasoning


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mean_pct": 0.3999}, "needs 40 bp"),
        ({"median_pct": -0.001}, "a median that agrees"),
        ({"similarity_mean": 0.699}, "0.7 is needed"),
        ({"similarity_mean": None}, "unknown"),
        ({"similarity_mean": float("nan")}, "0.7 is needed"),
        ({"effective_episodes": 9.9}, "10 are needed"),
        ({"effective_episodes": float("nan")}, "10 are needed"),
        ({"mean_pct": float("nan")}, "needs 40 bp"),
        ({"median_pct": float("nan")}, "a median that agrees"),
    ],
)
def test_one_missed_threshold_is_a_hold_that_names_it(changed: dict[str, Any], reason: str) -> None:
    decision = aggregate(msgspec.structs.replace(RISING, **changed), SETTINGS)
    assert (decision.action, decision.hold_reason) == ("HOLD", "model")
    assert reason in decision.reasoning


def test_nothing_known_of_the_horizon_is_a_hold_of_the_model() -> None:
    assert aggregate(None, SETTINGS).hold_reason == "model"


@pytest.mark.parametrize("similarity", [None, float("nan"), -1.0])
def test_where_nothing_is_asked_of_the_likeness_it_is_no_reason_to_hold(
    similarity: float | None,
) -> None:
    unlike = msgspec.structs.replace(RISING, similarity_mean=similarity)
    assert aggregate(unlike, SETTINGS).action == "HOLD"
    assert aggregate(unlike, AggregatorConfig(least_similarity=None)).action == "LONG"


@given(outlooks())
def test_mirrored_outcomes_give_the_mirrored_side(outlook: Outlook) -> None:
    mirror = {"LONG": "SHORT", "SHORT": "LONG", "HOLD": "HOLD"}
    one, other = aggregate(outlook, SETTINGS), aggregate(mirrored(outlook), SETTINGS)
    assert other.action == mirror[one.action]
    assert other.confidence == one.confidence


@given(outlooks(), st.floats(0, 100))
def test_a_higher_threshold_never_makes_a_side_of_a_hold(outlook: Outlook, more: float) -> None:
    stricter = AggregatorConfig(least_mean_bp=SETTINGS.least_mean_bp + more)
    if aggregate(outlook, SETTINGS).action == "HOLD":
        assert aggregate(outlook, stricter).action == "HOLD"


def test_a_mean_of_zero_is_no_side_even_without_a_threshold() -> None:
    still = msgspec.structs.replace(RISING, mean_pct=0.0)
    assert aggregate(still, AggregatorConfig(least_mean_bp=0)).action == "HOLD"


async def test_the_decider_reads_its_own_horizon() -> None:
    assert (await Aggregator().decide(case(RISING))).action == "LONG"
    hourly = Aggregator(AggregatorConfig(horizon="1h"))
    assert (await hourly.decide(case(RISING))).hold_reason == "model"


async def test_a_case_without_retrieval_is_an_error_and_without_neighbours_is_not() -> None:
    bare = case()
    assert (await Aggregator().decide(bare)).hold_reason == "error"
    assert await Aggregator().decide(Case(bare.state, {})) == Decision.hold(
        "model", "no neighbour has a known outcome over 4h"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"horizon": "2h"},
        {"least_mean_bp": -1.0},
        {"least_mean_bp": float("nan")},
        {"least_similarity": 1.5},
        {"least_effective_episodes": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        AggregatorConfig(**wrong)
