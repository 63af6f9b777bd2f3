"""A plan is what its file says over what lies beneath it, and nothing in it is misread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.plan import (
    DEFAULT_RULES,
    DEFAULT_SWEEP,
    Search,
    StudyPlan,
    parse_plan,
    read_plan,
    sweep_plans,
)
from llm_trader.retrieval import forecast
from llm_trader.timeframe import HORIZONS, parse_end, parse_start

PLANS = Path(__file__).parents[2] / "config" / "evaluation"
FILE = """
symbols = ["BTCUSDT"]
start = "2024-01-01T00:00:00Z"
seed = 3
least_similarity = 0.6

[search]
neighbours = 30

[rules.4h]
weight_of_neighbours = 0.5

[aggregator]
least_mean_bp = 20

[[sweep]]
label = "few"
search = { neighbours = 10 }

[[sweep]]
label = "alone"
weight_of_neighbours = 1.0

[[sweep]]
label = "by the last day"
scale = "last_24h"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "evaluation.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(described: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        parse_plan(described, "the plan")
    return refused.value.message


def test_a_file_is_read_over_the_defaults(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, FILE))
    assert (plan.symbols, plan.start, plan.seed) == (("BTCUSDT",), "2024-01-01T00:00:00Z", 3)
    assert (plan.search.neighbours, plan.search.lookback_days) == (30, 90)
    halved = replace(DEFAULT_RULES["4h"], weight_of_neighbours=0.5)
    assert plan.rules == {**DEFAULT_RULES, "4h": halved}
    assert plan.aggregator.least_mean_bp == 20
    assert (plan.end, plan.reps, plan.decider) == ("now", 1000, "aggregator")


def test_without_a_file_it_is_the_default_plan() -> None:
    assert read_plan(None) == StudyPlan()
    assert StudyPlan().rules == DEFAULT_RULES


def test_the_default_is_the_forecast_that_a_server_gives() -> None:
    plan = StudyPlan()
    assert plan.search.neighbours == forecast.NEIGHBOURS
    assert plan.search.gap_hours == 0
    weights = {name: rule.weight_of_neighbours for name, rule in plan.rules.items()}
    assert weights == forecast.WEIGHT_OF_NEIGHBOURS
    assert {(rule.scale, rule.kernel) for rule in plan.rules.values()} == {("expected", 0.0)}


def test_what_is_given_goes_before_the_file_and_that_before_what_lies_beneath(
    tmp_path: Path,
) -> None:
    beneath = {
        "seed": 1,
        "reps": 300,
        "search": {"neighbours": 20, "lookback_days": 7, "gap_hours": 2.0},
    }
    above = {"seed": 9, "start": None, "search": {"lookback_days": 14, "vector": None}}
    plan = read_plan(written(tmp_path, FILE), beneath, above)
    assert (plan.seed, plan.reps, plan.start) == (9, 300, "2024-01-01T00:00:00Z")
    found = plan.search
    assert (found.neighbours, found.lookback_days, found.gap_hours) == (30, 14, 2.0)
    assert found.vector == "state"


@pytest.mark.parametrize(
    ("described", "key"),
    [
        ({"serach": {}}, "serach"),
        ({"search": {"neighbors": 3}}, "neighbors"),
        # What earlier plans had.
        ({"search": {"episodes": 3}}, "episodes"),
        ({"search": {"min_gap_hours": 3}}, "min_gap_hours"),
        ({"rules": {"4h": {"rescale": 1}}}, "rescale"),
        ({"rules": {"4h": {"neighbour_share": 1}}}, "neighbour_share"),
        ({"aggregator": {"least_bp": 3}}, "least_bp"),
        ({"trading": {"stop": 1}}, "stop"),
        ({"costs": {"fee": 1}}, "fee"),
    ],
)
def test_a_typo_is_refused_by_its_name(described: dict[str, Any], key: str) -> None:
    told = refusal(described)
    assert told.startswith("the plan cannot be used: ")
    assert f"`{key}`" in told


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"rules": {"2h": {}}}, "rules of 2h: the horizons are 15m, 1h, 4h, 24h"),
        ({"rules": {}}, "rules of none: the horizons are 15m, 1h, 4h, 24h"),
        ({"aggregator": {"horizon": "2h"}}, "horizon '2h' is not one of"),
        ({"step_minutes": 7}, "step_minutes 7 does not divide a day"),
        ({"search": {"neighbours": 1}}, "$.search.neighbours"),
        ({"search": {"neighbours": 1001}}, "$.search.neighbours"),
        ({"search": {"gap_hours": -1}}, "$.search.gap_hours"),
        ({"rules": {"4h": {"weight_of_neighbours": 1.5}}}, "weight_of_neighbours"),
        ({"rules": {"4h": {"scale": "realized"}}}, ".scale"),
        ({"search": {"vector": "colour"}}, "$.search.vector"),
        ({"search": {"feature_weights": {"rsi_8": 1}}}, "there is no feature rsi_8"),
        ({"least_similarity": 1.5}, "$.least_similarity"),
        ({"reps": 10}, "$.reps"),
        ({"decider": "oracle"}, "$.decider"),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_its_place(
    described: dict[str, Any], told: str
) -> None:
    assert told in refusal(described)


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("2024-05-01", "2024-05-01T00:00:00Z"),
        ("2024-05-01T06:30:00", "2024-05-01T06:30:00Z"),
        ("2024-05-01T06:30:00Z", "2024-05-01T06:30:00Z"),
        ("2024-05-01T08:30:00+02:00", "2024-05-01T06:30:00Z"),
        ('"2024-05-01T06:30:00Z"', "2024-05-01T06:30:00Z"),
    ],
)
def test_times_may_stand_without_quotes_and_are_utc_where_nothing_else_is_said(
    tmp_path: Path, toml: str, text: str
) -> None:
    plan = read_plan(written(tmp_path, f"start = {toml}\nend = {toml}"))
    assert plan.start is not None
    assert parse_start(plan.start, 0) == parse_start(text, 0)
    assert parse_end(plan.end, 0) == parse_end(text, 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [("seed = ", "is not TOML"), ("seed = true", "$.seed"), ("end = 06:30:00", "$.end")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as refused:
        read_plan(path)
    assert str(path) in refused.value.message
    assert told in refused.value.message


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "none.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (missing, binary):
        with pytest.raises(ConfigurationError, match=path.name):
            read_plan(path)


def test_each_entry_of_a_sweep_is_the_plan_with_its_own_keys_replaced(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, FILE))
    few, alone, last_day = (sweep_plans(plan)[name] for name in ("few", "alone", "by the last day"))
    assert few == msgspec.structs.replace(
        plan, sweep=(), search=msgspec.structs.replace(plan.search, neighbours=10)
    )
    shared = {
        name: msgspec.structs.replace(rule, weight_of_neighbours=1.0)
        for name, rule in plan.rules.items()
    }
    assert alone == msgspec.structs.replace(plan, sweep=(), rules=shared)
    assert {name: rule.scale for name, rule in last_day.rules.items()} == dict.fromkeys(
        HORIZONS, "last_24h"
    )
    weights = {name: rule.weight_of_neighbours for name, rule in last_day.rules.items()}
    assert weights == {name: rule.weight_of_neighbours for name, rule in plan.rules.items()}


def test_the_default_sweep_tries_as_many_configurations_as_it_has_entries() -> None:
    plan = parse_plan({"sweep": DEFAULT_SWEEP}, "the default")
    variants = sweep_plans(plan)
    assert list(variants) == [entry["label"] for entry in DEFAULT_SWEEP]
    digests = {plan.configuration(), *(of.configuration() for of in variants.values())}
    assert len(digests) == 1 + len(DEFAULT_SWEEP)


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ([{"search": {"neighbours": 5}}], "a label of its own"),
        ([{"label": "a"}, {"label": "a"}], "a label of its own"),
        ([{"label": ""}], "a label of its own"),
        ([{"label": "wide", "search": {"episodes": 5}}], "the sweep's 'wide' cannot be used"),
        ([{"label": "wide", "weight_of_neighbours": 3}], "$.rules"),
        ([{"label": "wide", "scale": "realized"}], "$.rules"),
    ],
)
def test_an_entry_of_a_sweep_that_cannot_be_used_is_refused(
    sweep: list[dict[str, Any]], told: str
) -> None:
    plan = parse_plan({"sweep": sweep}, "the plan")
    with pytest.raises(ConfigurationError) as refused:
        sweep_plans(plan)
    assert told in refused.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"symbols": ("ETHUSDT",)},
        {"start": "30", "end": "2024-05-01T00:00:00Z"},
        {"step_minutes": 60},
        {"reps": 5000},
        {"seed": 9},
        {"sweep": ({"label": "a"},)},
    ],
)
def test_when_and_on_what_it_is_asked_and_chance_make_no_other_configuration(
    changes: dict[str, Any],
) -> None:
    plain, changed = StudyPlan(), msgspec.structs.replace(StudyPlan(), **changes)
    assert changed.configuration() == plain.configuration()
    assert changed.digest() != plain.digest()


@pytest.mark.parametrize(
    "described",
    [
        {"search": {"vector": "random"}},
        {"search": {"embargo_hours": 1.0}},
        {"search": {"feature_weights": {"rsi_7": 2.0}}},
        {"search": {"neighbours": 199}},
        {"search": {"gap_hours": 2.0}},
        {"rules": {"4h": {"weight_of_neighbours": 0.5}}},
        {"rules": {"4h": {"scale": "last_24h"}}},
        {"rules": {"4h": {"kernel": 1.0}}},
        {"least_similarity": 0.5},
        {"aggregator": {"least_similarity": None}},
        {"trading": {"stop_pct": None}},
        {"costs": {"slippage_bps": 2}},
    ],
)
def test_whatever_decides_forecasts_or_decisions_makes_another_configuration(
    described: dict[str, Any],
) -> None:
    assert parse_plan(described, "x").configuration() != StudyPlan().configuration()


def test_a_configuration_does_not_depend_on_the_order_of_keys() -> None:
    one, other = (
        parse_plan({"rules": {name: {} for name in names}}, "x")
        for names in (("1h", "4h"), ("4h", "1h"))
    )
    assert one.configuration() == other.configuration()
    assert one.digest() == other.digest()


def test_a_plan_is_read_back_as_it_was_written() -> None:
    plan = parse_plan({"symbols": ["A"], "sweep": DEFAULT_SWEEP, "least_similarity": 0.1}, "x")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=StudyPlan) == plan


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_plans_can_be_used(path: Path) -> None:
    plan = read_plan(path)
    assert len({of.configuration() for of in sweep_plans(plan).values()}) == len(plan.sweep)


def test_the_plan_of_2023_is_the_default_without_filters_but_for_when_and_what_is_tried() -> None:
    plan = read_plan(PLANS / "binance-2023.toml")
    unfiltered = Search(include_regime_filters=False)
    when = {"symbols": plan.symbols, "start": plan.start, "end": plan.end}
    default = StudyPlan(**when, search=unfiltered, sweep=plan.sweep)
    assert plan == default
