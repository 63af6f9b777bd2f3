from __future__ import annotations

import re
from itertools import cycle

import pytest
from msgspec.structs import replace

from llm_trader.evaluation.backtest.strategies import RAG
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.results import (
    VERDICT_REFERENCE,
    Command,
    DecidedArm,
    DeciderStudy,
    Metrics,
    Paired,
    Period,
    Price,
    Skill,
)
from llm_trader.evaluation.significance import Verdict
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import (
    SAME,
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
        (
            "evaluate",
            "Better: similar past states forecast better than a volatility model alone does",
        ),
        (
            "compare",
            "Better: neighbours by “state” forecast better than a volatility model alone does",
        ),
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
        "Better: similar past states forecast better than a volatility model alone does"
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "evaluate",
            "whether similar past states forecast better or worse than a volatility model alone",
        ),
        (
            "compare",
            "whether neighbours by “state” forecast better or worse than a volatility model alone",
        ),
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


def forecasts(verdicts: dict[str, Verdict | None]) -> list[Skill]:
    """Judged forecasts over each horizon; without a verdict there is no interval."""
    skill = replace(made_up_metrics().skills[0], reference=VERDICT_REFERENCE)
    intervals = {"better": Interval(0.02, 0.01, 0.03), "worse": Interval(-0.02, -0.03, -0.01)}
    return [
        replace(
            skill,
            horizon=horizon,
            skill=UNKNOWN if verdict is None else intervals.get(verdict, Interval(0.0, -0.1, 0.1)),
            verdict=verdict or "no evidence",
        )
        for horizon, verdict in verdicts.items()
    ]


ALONE = [replace(skill, skill=SAME) for skill in forecasts({"24h": "no evidence"})]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (
            {"1h": "better"},
            "Forecasts by “state” are better than the volatility model in 1 of 1 case, with a loss "
            "(CRPS) 2.0 % lower: BTCUSDT over 1h. The volatility model forecasts alone for BTCUSDT "
            "over 24h.",
        ),
        (
            {"15m": "better", "1h": "worse", "4h": "no evidence"},
            "Forecasts by “state” are better than the volatility model in 1 of 3 cases, with a "
            "loss (CRPS) 2.0 % lower: BTCUSDT over 15m; worse than the volatility model in 1 of 3 "
            "cases, with a loss (CRPS) 2.0 % higher: BTCUSDT over 1h. There is no evidence either "
            "way for BTCUSDT over 4h. The volatility model forecasts alone for BTCUSDT over 24h.",
        ),
        (
            {"1h": "no evidence", "4h": None},
            "Nothing shows that forecasts by “state” are better or worse than the volatility model "
            "in any of 1 case (skill 0.00 %). The volatility model forecasts alone for BTCUSDT "
            "over 24h. There is too little data for BTCUSDT over 4h.",
        ),
        (
            {"1h": None, "4h": None},
            "There is too little data to judge forecasts by “state”. The volatility model "
            "forecasts alone for BTCUSDT over 24h.",
        ),
        ({}, "Forecasts by “state” are those of the volatility model alone."),
    ],
)
def test_where_the_volatility_model_forecasts_alone_is_said_and_not_called_no_evidence(
    verdicts: dict[str, Verdict | None], expected: str
) -> None:
    judged = forecasts(verdicts)
    assert wording.forecast_summary([*judged, *ALONE], "state") == expected
    # Without such cases all else is said in the same words.
    shorter = expected.replace(" The volatility model forecasts alone for BTCUSDT over 24h.", "")
    if judged:
        assert wording.forecast_summary(judged, "state") == shorter


def test_without_any_forecast_there_is_too_little_data_to_judge() -> None:
    assert wording.forecast_summary([], "state") == (
        "There is too little data to judge forecasts by “state”."
    )


@pytest.mark.parametrize(
    ("average", "over_model", "ending"),
    [
        (0.05, 0.02, "+5.00 % on average; over the volatility model it is +2.00 % on average."),
        (0.05, -0.0007, "+5.00 % on average; over the volatility model it is −0.07 % on average."),
        (-0.01, 0.0, "−1.00 % on average; over the volatility model it is 0.00 % on average."),
    ],
)
def test_the_skill_over_the_plain_base_rate_stands_beside_that_over_the_volatility_model(
    average: float, over_model: float, ending: str
) -> None:
    skill = made_up_metrics().skills[0]
    plain, judged = (
        replace(skill, reference=reference, skill=Interval(mean, mean - 0.001, mean + 0.001))
        for reference, mean in (("base rate", average), (VERDICT_REFERENCE, over_model))
    )
    assert wording.plain_base_rate([plain], [judged], skill.variant).endswith(ending)
    idle = replace(judged, skill=Interval(over_model, None, None))
    alone = wording.plain_base_rate([plain], [idle], skill.variant)
    assert alone.endswith(f"{ending.split(';')[0]}.")
    assert "volatility" not in alone
    unbounded = replace(plain, skill=Interval(average, None, None))
    assert wording.plain_base_rate([unbounded], [judged], skill.variant) == ""


@pytest.mark.parametrize(
    ("size", "whole", "expected"),
    [
        (0.0055, 0.0033, "is +0.55 % instead of +0.33 %: what is left then is about how far"),
        (0.0071, 0.0132, "is +0.71 % instead of +1.32 %: what is left then is about how far"),
        (-0.001, 0.0132, "is −0.10 % instead of +1.32 %: what is left then is about how far"),
        (0.002, -0.001, "is +0.20 % instead of −0.10 %: what is left then is about how far"),
    ],
)
def test_the_skill_without_direction_stands_beside_the_whole_with_no_share_made_of_them(
    size: float, whole: float, expected: str
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
    assert f"the average skill over the volatility model {expected}" in sentence
    assert not re.search("All|Most|half|None", sentence)
    assert wording.random_direction([], judged) == ""
    idle = [replace(result, skill=UNKNOWN) for result in judged]
    assert wording.random_direction(undirected, idle) == ""


@pytest.mark.parametrize(
    ("so_far", "tested", "ending"),
    [
        (1, 1, "There are too few days to test whether it beats the volatility model."),
        (
            4,
            3,
            "There are too few days to test whether the best of them beats the volatility model.",
        ),
        (4, 0, "Whether the best of them beats the volatility model was not tested."),
    ],
)
def test_why_trials_were_not_tested_is_said(so_far: int, tested: int, ending: str) -> None:
    trials = replace(made_up_metrics().trials, so_far=so_far, tested=tested, superior_p_value=None)
    assert wording.trial_summary(trials).endswith(ending)


def test_the_best_of_many_trials_is_weighed_against_chance() -> None:
    trials = made_up_metrics().trials
    sentence = wording.trial_summary(replace(trials, superior_p_value=0.01))
    assert sentence.startswith("12 configurations have been tried so far in this folder, 4 of them")
    assert "Chance hardly explains how well the best of those did beside the volatility" in sentence
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


# --- A language model's decisions


def paired(period: Period, value: float | None = 0.02, arm: str = "rag") -> Paired:
    interval = UNKNOWN if value is None else Interval(value, value - 0.01, value + 0.01)
    return Paired(
        symbol="BTCUSDT",
        arm=arm,
        baseline="baseline",
        period=period,
        states=500,
        different=120,
        difference=interval,
    )


def decided(*pairs: Paired, cutoff: str | None = "2025-06-30", errors: int = 0) -> Metrics:
    price = Price(
        decisions=500,
        total_usd=1.5,
        new_usd=0.0,
        input_tokens=1,
        output_tokens=1,
        per_decision_usd=0.003,
    )
    arm = DecidedArm(
        symbol="BTCUSDT",
        arm="rag",
        states=500,
        actions={"LONG": 500 - errors, "HOLD": errors},
        holds={"error": errors} if errors else {},
        price=price,
        bill_pct=0.015,
    )
    study = DeciderStudy(
        provider="anthropic",
        model="some-model",
        knowledge_cutoff=cutoff,
        template_version="prompt-1",
        arms=[arm],
    )
    return replace(metrics_of_command("ab"), decider=study, paired=list(pairs))


def test_what_a_models_decisions_earned_is_told_before_and_after_its_knowledge_cutoff() -> None:
    metrics = decided(
        paired("all"),
        paired("up to the cutoff", 0.05),
        paired("after the cutoff", -0.01),
        paired("all", arm="rag masked"),
        paired("all", arm="baseline masked"),
    )
    every, before, after, masked, price = wording.decider_readings(metrics, "rag")
    assert every == (
        "BTCUSDT: on 500 states, rag decided otherwise than baseline 120 times; all costs paid, "
        "its decisions earned 0.020 percentage points more each (+0.010 to +0.030)."
    )
    assert before.startswith("BTCUSDT up to the cutoff: on 500 states")
    assert "earned 0.010 percentage points less each (−0.020 to 0.000)" in after
    assert "rag masked decided otherwise" in masked
    assert price == (
        "BTCUSDT, rag: 500 decisions for $1.50, $0.003 each and 0.015 % of the account."
    )
    assert price in wording.readings(metrics)


def test_a_model_that_may_remember_is_said_to() -> None:
    unknown = wording.decider_readings(decided(paired("all"), cutoff=None), "rag")
    assert "No knowledge cutoff of some-model is known" in unknown[1]
    within = decided(paired("all"), replace(paired("after the cutoff", None), states=0))
    assert (
        "All states lie before the knowledge cutoff of some-model, 2025-06-30"
        in (wording.decider_readings(within, "rag")[2])
    )


def test_failed_decisions_and_too_few_states_are_told() -> None:
    few, *_, price = wording.decider_readings(decided(paired("all", None), errors=3), "rag")
    assert few == "BTCUSDT: 500 states are too few to compare decisions one by one."
    assert price.endswith("of the account; 3 decisions failed and held.")
