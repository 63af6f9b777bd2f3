"""The metrics of several processes as those of one."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from llm_trader.serving.metrics import definitions
from llm_trader.serving.metrics.summing import (
    GAUGE_RULES,
    Family,
    added_up,
    as_metrics,
    lasting,
    plain,
)


def test_every_gauge_has_a_rule_and_no_other_metric_has() -> None:
    gauges = {d.name for d in definitions.DEFINITIONS if d.kind == "gauge"}
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    gauges |= {family.name for family in registry.collect() if family.type == "gauge"}
    assert set(GAUGE_RULES) == gauges


def _gauge(name: str, value: float, **labels: str) -> Family:
    return Family(name, "meaning.", "gauge", [(name, tuple(labels.items()), value)])


def _only_value(families: list[Family]) -> float:
    ((family,),) = (families,)
    ((_, _, value),) = family.samples
    return value


def test_counters_and_histograms_add_up_sample_by_sample() -> None:
    processes = []
    for seconds in ([0.1, 3.0], [0.1]):
        registry = CollectorRegistry()
        counter = Counter("seen", "meaning.", ["method"], registry=registry)
        histogram = Histogram("took", "meaning.", buckets=(1.0,), registry=registry)
        for second in seconds:
            counter.labels("ping").inc()
            histogram.observe(second)
        processes.append(plain(registry.collect()))
    merged = {family.name: family for family in as_metrics(added_up(processes))}
    counts = {s.name: s.value for s in merged["seen"].samples if s.name == "seen_total"}
    assert counts == {"seen_total": 3}
    took = {(s.name, s.labels.get("le")): s.value for s in merged["took"].samples}
    assert took["took_bucket", "1.0"] == 2
    assert took["took_bucket", "+Inf"] == took["took_count", None] == 3
    assert took["took_sum", None] == pytest.approx(3.2)


def test_loads_add_up_and_what_all_read_from_the_same_files_counts_once() -> None:
    load, points = definitions.CONNECTIONS.name, definitions.INDEX_POINTS.name
    assert _only_value(added_up([[_gauge(load, 2)], [_gauge(load, 3)]])) == 5
    both = [[_gauge(points, 7, symbol="BTC")], [_gauge(points, 7, symbol="BTC")]]
    assert _only_value(added_up(both)) == 7


def test_one_process_without_the_store_is_seen() -> None:
    name = definitions.STORE_UP.name
    assert _only_value(added_up([[_gauge(name, 1)], [_gauge(name, 0)]])) == 0


def _scores(scored: int, coverage: float, crps: float) -> list[Family]:
    """What a worker shows that has scored so many forecasts."""
    return [
        _gauge(definitions.FORECASTS_SCORED.name, scored, horizon="1h"),
        _gauge(definitions.COVERAGE.name, coverage, horizon="1h", band="forecast"),
        _gauge(definitions.CRPS.name, crps, horizon="1h", forecast="forecast"),
        _gauge(definitions.CRPS_SKILL.name, 1 - crps, horizon="1h"),
    ]


def test_scores_are_those_of_the_worker_that_has_read_most_of_the_journal() -> None:
    complete, behind = _scores(40, 0.8, 0.3), _scores(30, 0.9, 0.2)
    for workers in ([complete, behind], [behind, complete], [complete, complete]):
        assert [family.samples for family in added_up(workers)] == [
            family.samples for family in complete
        ]


def test_of_an_ended_process_only_what_grows_is_kept() -> None:
    registry = CollectorRegistry()
    Counter("seen", "meaning.", registry=registry).inc()
    Gauge("open", "meaning.", registry=registry).set(4)
    assert [family.name for family in lasting(plain(registry.collect()))] == ["seen"]
