"""The metrics of several processes as those of one."""

from __future__ import annotations

import numpy as np
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


def _process(
    outcomes: np.ndarray, forecasts: np.ndarray, base_rates: np.ndarray, calibrated: int
) -> list[Family]:
    """What a worker shows that has scored these; the first `calibrated` have a calibrated band."""
    inside = np.abs(outcomes) < 1
    crps, base = np.abs(outcomes - forecasts).mean(), np.abs(outcomes - base_rates).mean()
    families = [
        _gauge(definitions.FORECASTS_SCORED.name, len(outcomes), horizon="1h"),
        _gauge(definitions.CALIBRATED_SCORED.name, calibrated, horizon="1h"),
        _gauge(definitions.CRPS_SKILL.name, 1 - crps / base, horizon="1h"),
    ]
    coverage = _gauge(definitions.COVERAGE.name, inside.mean(), horizon="1h", band="forecast")
    if calibrated:
        own = _gauge(coverage.name, inside[:calibrated].mean(), horizon="1h", band="calibrated")
        coverage.samples += own.samples
    scores = _gauge(definitions.CRPS.name, crps, horizon="1h", forecast="forecast")
    scores.samples += _gauge(scores.name, base, horizon="1h", forecast="base_rate").samples
    return [*families, coverage, scores]


@pytest.mark.parametrize("calibrated", [(5, 3), (5, 0), (0, 0)])
def test_scores_of_workers_are_those_of_one_process_with_all_their_forecasts(
    calibrated: tuple[int, int],
) -> None:
    rng = np.random.default_rng(1)
    outcomes, forecasts, base_rates = rng.normal(size=(3, 40))
    parts = [slice(0, 30), slice(30, 40)]
    workers = [
        _process(outcomes[part], forecasts[part], base_rates[part], count)
        for part, count in zip(parts, calibrated, strict=True)
    ]
    # The same forecasts, those with a calibrated band first.
    order = [*range(calibrated[0]), *range(30, 30 + calibrated[1])]
    order += [row for row in range(40) if row not in order]
    values = (outcomes[order], forecasts[order], base_rates[order])
    alone = _process(*values, sum(calibrated))
    for family, expected in zip(added_up(workers), alone, strict=True):
        assert family.name == expected.name
        assert [labels for _, labels, _ in family.samples] == [
            labels for _, labels, _ in expected.samples
        ]
        for (_, _, value), (_, _, wanted) in zip(family.samples, expected.samples, strict=True):
            assert value == pytest.approx(wanted)


def test_of_an_ended_process_only_what_grows_is_kept() -> None:
    registry = CollectorRegistry()
    Counter("seen", "meaning.", registry=registry).inc()
    Gauge("open", "meaning.", registry=registry).set(4)
    assert [family.name for family in lasting(plain(registry.collect()))] == ["seen"]
