"""A result is believed unless a control failed or a probe found a leak; gaps are listed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from llm_trader.evaluation.results import Metrics
from llm_trader.evaluation.verdict.verdicts import assess_trust
from llm_trader.retrieval.intervals import Interval
from tests.evaluation.report.metrics import made_up_metrics

METRICS = made_up_metrics()


def first_changed(name: str, **changes: Any) -> Metrics:
    first, *others = getattr(METRICS, name)
    rows: dict[str, Any] = {name: [replace(first, **changes), *others]}
    return replace(METRICS, **rows)


def test_nothing_speaks_against_a_result_whose_checks_passed() -> None:
    trust = assess_trust(METRICS)
    assert not trust.lost
    assert not any([*trust])


@pytest.mark.parametrize(
    ("name", "changes"),
    [("controls", {"passed": False}), ("probes", {"problem": "it knew the future"})],
)
def test_trust_is_lost_with_one_failed_control_or_one_leak(
    name: str, changes: dict[str, Any]
) -> None:
    trust = assess_trust(first_changed(name, **changes))
    assert trust.lost
    assert len(trust.failed_controls) + len(trust.leaks) == 1


def test_what_had_too_little_data_to_fail_is_listed_and_costs_no_trust() -> None:
    unknown = Interval(0.0, None, None)
    trust = assess_trust(first_changed("controls", wide=unknown, passed=True))
    assert trust.idle_controls == [replace(METRICS.controls[0], wide=unknown, passed=True)]
    assert not trust.lost
    trust = assess_trust(first_changed("probes", checked=0))
    assert [probe.symbol for probe in trust.idle_probes] == ["BTCUSDT"]
    assert not trust.lost


def test_what_was_not_run_is_listed() -> None:
    negative = [control for control in METRICS.controls if control.kind == "negative"]
    probes = [probe for probe in METRICS.probes if probe.symbol == "BTCUSDT"]
    trust = assess_trust(replace(METRICS, controls=negative, probes=probes))
    assert trust.missing_kinds == ["positive"]
    assert trust.unprobed_symbols == ["ETHUSDT"]
    assert not trust.lost
