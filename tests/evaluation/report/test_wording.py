from __future__ import annotations

import re
from itertools import cycle

import pytest
from msgspec.structs import replace

from llm_trader.evaluation.backtest.strategies import RAG
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.results import VERDICT_REFERENCE, Command, Metrics, Skill
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import (
    UNKNOWN,
    made_up_metrics,
    metrics_of_command,
    performance,
    unknown,
)


def with_verdicts(metrics: Metrics, *verdicts: Verdict) -> Metrics:
    """The skills that are judged have these verdicts in turn."""
    judged = [skill for skill in metrics.skills if skill.reference == VERDICT_REFERENCE]
    others = [skill for skill in metrics.skills if skill.reference != VERDICT_REFERENCE]
    bounded = Interval(0.01, 0.005, 0.015)
    decided: list[Skill] = [
        replace(skill, skill=bounded, verdict=verdict)
        for skill, verdict in zip(judged, cycle(verdicts), strict=False)
    ]
    return replace(metrics, skills=others + decided)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("evaluate", "Better: similar past states forecast better than the base rate does"),
        ("compare", "Better: neighbours by “state” forecast better than the base rate does"),
        ("ab", "Better: with evidence earned more than indicators alone"),
    ],
)
def test_the_headline_names_what_the_command_judged(command: Command, expected: str) -> None:
    assert wording.headline(replace(metrics_of_command(command), verdict="better")) == expected


def test_where_the_plans_own_vector_was_not_compared_the_last_one_is_judged() -> None:
    metrics = metrics_of_command("compare")
    others = [skill for skill in metrics.skills if skill.variant != "state"]
    assert "“prototype”" in wording.headline(replace(metrics, skills=others, verdict="worse"))


def test_better_here_and_worse_there_is_not_called_no_evidence() -> None:
    metrics = with_verdicts(metrics_of_command("evaluate"), "better", "worse")
    assert wording.headline(replace(metrics, verdict="no evidence")).startswith(
        "Mixed: better than"
    )
    metrics = with_verdicts(metrics, "better", "no evidence")
    assert wording.headline(replace(metrics, verdict="better")) == (
        "Better: similar past states forecast better than the base rate does"
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("evaluate", "whether similar past states forecast better or worse than the base rate"),
        ("compare", "whether neighbours by “state” forecast better or worse than the base rate"),
        ("ab", "whether with evidence earned more or less than indicators alone"),
    ],
)
def test_without_an_interval_there_is_no_verdict_of_no_evidence(
    command: Command, expected: str
) -> None:
    headline = wording.headline(unknown(metrics_of_command(command)))
    assert headline.startswith(f"Too little data to say {expected}")
    assert wording.headline(metrics_of_command(command)).startswith("No evidence that ")


@pytest.mark.parametrize(
    ("forecasts", "earned", "expected"),
    [
        ("better", "no evidence", "Skill in forecasting did not turn into earnings"),
        ("better", "better", "Skill in forecasting turned into earnings after costs"),
        ("no evidence", "better", "are luck until shown otherwise"),
        ("no evidence", "no evidence", "Neither forecasts nor earnings show anything"),
    ],
)
def test_readings_say_whether_skill_in_forecasting_turned_into_earnings(
    forecasts: Verdict, earned: Verdict, expected: str
) -> None:
    metrics = with_verdicts(made_up_metrics(), forecasts)
    arms = [
        replace(arm, name=RAG, verdict=earned) if arm.name == "with evidence" else arm
        for arm in metrics.arms
    ]
    readings = wording.readings(replace(metrics, arms=arms))
    assert expected in " ".join(readings)
    assert not re.search(r"\b0 (earned|worse|less)", " ".join(readings))


def test_few_trades_are_said_to_show_little() -> None:
    metrics = made_up_metrics()
    arms = [replace(arm, performance=performance(0.1, 3)) for arm in metrics.arms]
    sentence = wording.earnings(metrics.skills, arms, "with evidence")
    assert "So few trades could have shown little." in sentence
    assert "BTCUSDT: with evidence returned +0.10 % in 3 trades" in sentence
    assert "the difference of +0.012 percentage points a day (−0.050 to +0.074)" in sentence


def test_kinds_of_neighbours_are_ranked_and_compared_with_forecasts_that_need_none() -> None:
    means = {"none": 0.01, "random": 0.008, "state": 0.03}
    skill = replace(made_up_metrics().skills[0], reference="base rate")
    skills = [
        replace(skill, variant=variant, skill=Interval(mean, mean, mean))
        for variant, mean in means.items()
    ]
    sentence = wording.variant_ranking(skills, "state")
    assert "best first: “state” +3.00 %, “none” +1.00 % and “random” +0.80 %" in sentence
    assert "So “state” is 2.00 percentage points ahead of forecasts without" in sentence
    assert "and 2.20 percentage points ahead of random neighbours" in sentence
    level = [*skills, replace(skills[0], variant="prototype", skill=skills[2].skill)]
    assert "and level with the method of the proto" in wording.variant_ranking(level, "state")
    sentence = wording.variant_ranking(skills, "random")
    assert "So “random” is 0.20 percentage points behind forecasts without" in sentence


@pytest.mark.parametrize(
    ("average", "rescaled", "ending"),
    [
        (
            0.05,
            0.02,
            "When the base rate is rescaled to current volatility as well, +2.00 % remains.",
        ),
        (0.05, -0.0007, "Rescaling the base rate to current volatility removes all of it."),
        (0.05, 0.06, "+5.00 % on average."),
        (-0.01, -0.02, "−1.00 % on average."),
    ],
)
def test_what_remains_of_the_skill_is_said_only_where_rescaling_takes_some(
    average: float, rescaled: float, ending: str
) -> None:
    skill = made_up_metrics().skills[0]
    plain, judged = (
        replace(skill, reference=reference, skill=Interval(mean, mean - 0.001, mean + 0.001))
        for reference, mean in (("base rate", average), (VERDICT_REFERENCE, rescaled))
    )
    assert wording.plain_base_rate([plain], [judged], skill.variant).endswith(ending)
    idle = replace(judged, skill=Interval(rescaled, None, None))
    assert "escal" not in wording.plain_base_rate([plain], [idle], skill.variant)
    unbounded = replace(plain, skill=Interval(average, None, None))
    assert wording.plain_base_rate([unbounded], [judged], skill.variant) == ""


@pytest.mark.parametrize(
    ("size", "whole", "ending"),
    [
        (0.0055, 0.0033, "All of the skill lies in how far prices move, not in which direction."),
        (0.0071, 0.0132, "Most of the skill lies in how far prices move, not in which direction."),
        (0.002, 0.0132, "Less than half of the skill lies in how far prices move, not in which"),
        (-0.001, 0.0132, "None of the skill lies in how far prices move, not in which direction."),
        (0.002, -0.001, "the average skill is +0.20 % instead of −0.10 %."),
    ],
)
def test_the_part_of_the_skill_without_direction_is_never_more_than_all(
    size: float, whole: float, ending: str
) -> None:
    metrics = made_up_metrics(("BTCUSDT",))
    judged = [
        replace(skill, skill=Interval(whole, whole - 0.001, whole + 0.001))
        for skill in metrics.skills
        if skill.reference == VERDICT_REFERENCE
    ]
    undirected = [
        replace(result, skill=Interval(size, size - 0.001, size + 0.001))
        for result in metrics.undirected
    ]
    sentence = wording.random_direction(undirected, judged)
    assert ending in sentence
    assert wording.random_direction([], judged) == ""


@pytest.mark.parametrize(
    ("so_far", "tested", "ending"),
    [
        (1, 1, "There are too few days to test whether it beats the base rate."),
        (4, 3, "There are too few days to test whether the best of them beats the base rate."),
        (4, 0, "Whether the best of them beats the base rate was not tested."),
    ],
)
def test_why_trials_were_not_tested_is_said(so_far: int, tested: int, ending: str) -> None:
    trials = replace(made_up_metrics().trials, so_far=so_far, tested=tested, superior_p_value=None)
    assert wording.trial_summary(trials).endswith(ending)


def test_the_best_of_many_trials_is_weighed_against_chance() -> None:
    trials = made_up_metrics().trials
    sentence = wording.trial_summary(replace(trials, superior_p_value=0.01))
    assert sentence.startswith("12 configurations have been tried so far in this folder, 4 of them")
    assert "Chance hardly explains" in sentence
    assert sentence.endswith("given so many tries (Hansen's test, p-value 0.010).")
    assert "Chance can explain" in wording.trial_summary(trials)


def test_a_failed_control_without_an_interval_had_too_little_data() -> None:
    metrics = made_up_metrics()
    control = replace(metrics.controls[4], wide=UNKNOWN, skill=UNKNOWN, passed=False)
    (reason,) = wording.distrust(replace(metrics, controls=[control]))
    assert "too little data for a result" in reason


def test_a_symbol_that_was_not_probed_is_named() -> None:
    metrics = made_up_metrics()
    probes = [replace(probe, checked=9 * (probe.symbol == "BTCUSDT")) for probe in metrics.probes]
    assert wording.unchecked(replace(metrics, probes=probes)) == [
        "No query was probed for knowledge of the future on ETHUSDT."
    ]
