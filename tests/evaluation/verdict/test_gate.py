"""A gate stops what got worse and what cannot be trusted, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from llm_trader.errors import ConfigurationError
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import SCHEMA_VERSION, VERDICT_REFERENCE, Metrics, Skill
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.verdict.gate import (
    GateReport,
    compare_with_baseline,
    plan_of_same_queries,
    read_metrics,
)
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import made_up_metrics

METRICS = made_up_metrics()
TOLERANCE = 0.002


def judged(now: Metrics, then: Metrics = METRICS, tolerance: float = TOLERANCE) -> GateReport:
    return compare_with_baseline(then, now, tolerance)


def with_skill(change: Callable[[Skill], Skill], metrics: Metrics = METRICS) -> Metrics:
    """The first skill against the volatility model is another."""
    row = next(i for i, one in enumerate(metrics.skills) if one.reference == VERDICT_REFERENCE)
    skills = list(metrics.skills)
    skills[row] = change(skills[row])
    return replace(metrics, skills=skills)


def less_by(lost: float) -> Metrics:
    def change(one: Skill) -> Skill:
        value = one.skill.value - lost
        return replace(one, skill=Interval(value, value - 0.01, value + 0.01))

    return with_skill(change)


def test_the_same_again_passes_without_a_note() -> None:
    report = judged(METRICS)
    assert report == GateReport(passed=True, problems=[], notes=[], changes=report.changes)
    assert len(report.changes) == 8  # two symbols, four horizons
    assert all(one.before == one.now and not one.regressed for one in report.changes)


@pytest.mark.parametrize("lost", [-0.5, 0.0, 0.0019])
def test_what_was_lost_within_the_tolerance_passes(lost: float) -> None:
    report = judged(less_by(lost))
    assert report.passed
    first = report.changes[0]
    assert first.before is not None
    assert first.now == pytest.approx(first.before - lost)


def test_more_than_the_tolerance_stops_and_says_where() -> None:
    report = judged(less_by(0.0021))
    assert not report.passed
    (problem,) = report.problems
    assert problem.startswith("BTCUSDT 15m: skill fell from ")
    assert [one.regressed for one in report.changes] == [True] + 7 * [False]
    assert judged(less_by(0.0021), tolerance=0.01).passed


def test_a_skill_against_another_reference_is_no_regression() -> None:
    skills = [
        one
        if one.reference == VERDICT_REFERENCE
        else replace(one, skill=Interval(-1.0, -2.0, -0.5))
        for one in METRICS.skills
    ]
    assert judged(replace(METRICS, skills=skills)).passed


@pytest.mark.parametrize(
    ("before", "now", "passed"),
    [
        ("better", "no evidence", False),
        ("better", "worse", False),
        ("no evidence", "worse", False),
        ("worse", "no evidence", True),
        ("no evidence", "better", True),
        ("worse", "worse", True),
    ],
)
def test_a_verdict_may_rise_but_not_fall(before: Verdict, now: Verdict, passed: bool) -> None:
    then, here = (
        with_skill(lambda one, verdict=verdict: replace(one, verdict=verdict))  # type: ignore[misc]
        for verdict in (before, now)
    )
    report = judged(here, then)
    assert report.passed == passed
    if not passed:
        assert report.problems == [f"BTCUSDT 15m: the verdict was “{before}” and is “{now}”"]


def test_a_control_that_failed_stops_though_no_number_got_worse() -> None:
    failed = [replace(one, passed=False) for one in METRICS.controls[-1:]]
    report = judged(replace(METRICS, controls=[*METRICS.controls[:-1], *failed]))
    assert report.problems == ["the positive control “planted pattern” failed on BTCUSDT 4h"]
    # That it failed in the baseline is no excuse.
    worse = replace(METRICS, controls=[*METRICS.controls[:-1], *failed])
    assert not judged(worse, worse).passed


def test_a_leak_stops() -> None:
    leak = replace(METRICS.probes[0], problem="something was known too early")
    report = judged(replace(METRICS, probes=[leak, *METRICS.probes[1:]]))
    (problem,) = report.problems
    assert problem.endswith("on BTCUSDT: something was known too early")


@pytest.mark.parametrize("missing", ["controls", "probes"])
def test_without_controls_or_probes_nothing_passes(missing: str) -> None:
    nothing: dict[str, Any] = {missing: []}
    assert judged(replace(METRICS, **nothing)).problems == [
        "no controls or no leak probes were run"
    ]


def test_probes_that_checked_nothing_do_not_pass() -> None:
    idle = [replace(one, checked=0) for one in METRICS.probes]
    assert judged(replace(METRICS, probes=idle)).problems == [
        f"the leak probe “future canary” on {symbol} found nothing to check"
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]


def test_a_comparison_that_is_missing_stops() -> None:
    kept = [one for one in METRICS.skills if one.symbol != "ETHUSDT"]
    report = judged(replace(METRICS, skills=kept))
    assert len(report.problems) == 4
    assert "ETHUSDT 15m was measured then and is not now" in report.problems
    assert all(one.now is None for one in report.changes if one.symbol == "ETHUSDT")
    # What is new is welcome.
    assert judged(METRICS, replace(METRICS, skills=kept)).passed


def test_a_skill_that_is_not_known_any_more_stops_and_one_that_never_was_does_not() -> None:
    unknown = with_skill(lambda one: replace(one, skill=Interval(None, None, None)))
    assert judged(unknown).problems == ["BTCUSDT 15m was measured then and is not now"]
    assert judged(unknown, unknown).passed


@pytest.mark.parametrize("what", ["feature_version", "state_space_id", "data_digest"])
def test_other_data_or_features_are_noted_but_do_not_stop(what: str) -> None:
    changes: dict[str, Any] = {what: "another"}
    report = judged(replace(METRICS, origin=replace(METRICS.origin, **changes)))
    assert report.passed
    (note,) = report.notes
    assert note.startswith(f"{what} was {getattr(METRICS.origin, what)} and is another")


def test_what_is_asked_again_is_the_same_time_and_symbols_without_a_sweep() -> None:
    plan = StudyPlan(start="30", end="now", sweep=({"label": "a"},), seed=4, reps=300)
    asked = plan_of_same_queries(replace(METRICS, origin=replace(METRICS.origin, plan=plan)))
    assert asked == replace(
        plan,
        symbols=("BTCUSDT", "ETHUSDT"),
        start=METRICS.origin.start,
        end=METRICS.origin.end,
        sweep=(),
    )


# --- Files


def written(folder: Path, **changes: Any) -> Path:
    plain = json.loads(msgspec.json.encode(METRICS))
    path = folder / "metrics.json"
    path.write_text(json.dumps(plain | changes))
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    stored = msgspec.json.encode(METRICS)
    assert msgspec.json.encode(read_metrics(written(tmp_path))) == stored
    # A later version may say more.
    assert msgspec.json.encode(read_metrics(written(tmp_path, more=1))) == stored


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": SCHEMA_VERSION + 1},
        {"schema_version": SCHEMA_VERSION - 1},
        {"command": "compare"},
        {"command": "ab"},
        {"skills": [{}]},
        {"origin": {}},
        {"controls": None},
    ],
)
def test_another_result_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=r"metrics\.json"):
        read_metrics(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"schema_version": 1'])
def test_a_file_that_is_no_result_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"other\.json is not the metrics\.json"):
        read_metrics(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*none\.json: No such file"):
        read_metrics(tmp_path / "none.json")
