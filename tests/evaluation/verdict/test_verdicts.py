"""A verdict allows for how much was looked at."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.evaluation.results import VERDICT_REFERENCE, Reference, Skill
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL, Verdict
from llm_trader.evaluation.verdict.multiple_testing import holm
from llm_trader.evaluation.verdict.verdicts import (
    adjusted,
    arms_verdict,
    forecast_verdict,
    overall,
)
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import made_up_metrics

ABOVE, BELOW, AROUND = Interval(0.02, 0.01, 0.03), Interval(-2, -3, -1), Interval(0.0, -1, 1)
UNKNOWN = Interval(0.1, None, None)
REFERENCES = get_args(Reference)


def skill(
    p_value: float | None,
    interval: Interval = ABOVE,
    reference: Reference = VERDICT_REFERENCE,
    variant: str = "state",
) -> Skill:
    return Skill(
        variant=variant,
        symbol="BTCUSDT",
        horizon="4h",
        reference=reference,
        queries=100,
        skill=interval,
        potential=None,
        p_value=p_value,
        p_adjusted=None,
        detectable=None,
        verdict="no evidence",
    )


SKILLS = st.lists(
    st.builds(
        skill,
        st.none() | st.floats(0, 1),
        st.sampled_from([ABOVE, BELOW, AROUND, UNKNOWN]),
        st.sampled_from(REFERENCES),
    ),
    max_size=12,
)


@given(SKILLS)
def test_p_values_are_adjusted_by_holm_among_those_of_the_same_reference(
    skills: list[Skill],
) -> None:
    found = adjusted(skills)
    for reference in REFERENCES:
        told = [(i, one.p_value) for i, one in enumerate(skills) if one.reference == reference]
        expected = holm({str(i): p for i, p in told if p is not None})
        for i, p in told:
            assert found[i].p_adjusted == (None if p is None else expected[str(i)])


@given(SKILLS)
def test_a_verdict_needs_both_the_interval_and_the_adjusted_p_value(skills: list[Skill]) -> None:
    for one, before in zip(adjusted(skills), skills, strict=True):
        firm = one.p_adjusted is not None and one.p_adjusted <= SIGNIFICANCE_LEVEL
        assert (one.verdict == "better") == (firm and one.skill is ABOVE)
        assert (one.verdict == "worse") == (firm and one.skill is BELOW)
        unjudged = {"p_adjusted": None, "verdict": "no evidence"}
        assert msgspec.structs.replace(one, **unjudged) == before  # and nothing else is changed


def test_what_is_firm_alone_is_not_among_many() -> None:
    alone, among = adjusted([skill(0.04)]), adjusted([skill(0.04), skill(0.5)])
    assert [one.verdict for one in alone] == ["better"]
    assert [one.verdict for one in among] == ["no evidence"] * 2
    other = adjusted([skill(0.04), skill(0.5, reference="base rate")])
    assert other[0].verdict == "better"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "no evidence"),
        (["no evidence"], "no evidence"),
        (["better", "no evidence"], "better"),
        (["worse", "no evidence", "worse"], "worse"),
        (["better", "worse"], "no evidence"),
    ],
)
def test_it_is_better_where_some_are_better_and_none_is_worse(
    verdicts: list[Verdict], expected: Verdict
) -> None:
    assert overall(verdicts) == expected
    assert overall(reversed(verdicts)) == expected


def test_forecasts_are_judged_by_the_skill_over_the_volatility_model_of_one_variant() -> None:
    better, worse = {"verdict": "better"}, {"verdict": "worse"}
    skills = [
        msgspec.structs.replace(skill(0.0), **better),
        *(
            msgspec.structs.replace(skill(0.0, reference=other), **worse)
            for other in REFERENCES
            if other != "volatility model"
        ),
        msgspec.structs.replace(skill(0.0, variant="random"), **worse),
    ]
    assert forecast_verdict(skills, "state") == "better"
    assert forecast_verdict(skills, "random") == "worse"
    assert forecast_verdict(skills, "text") == "no evidence"


def test_an_arm_is_judged_on_all_symbols_and_the_baseline_not_at_all() -> None:
    arms = made_up_metrics(("A", "B")).arms
    name, baseline = "with evidence", "indicators alone"
    won = [
        msgspec.structs.replace(one, verdict="better") if one.name == name else one for one in arms
    ]
    lost = [
        msgspec.structs.replace(one, verdict="worse") if one.symbol == "B" else one for one in won
    ]
    assert arms_verdict(won, name) == "better"
    assert arms_verdict(lost, name) == "no evidence"
    assert arms_verdict(won, baseline) == "no evidence"
