from __future__ import annotations

from typing import Any

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from llm_trader.serving.metrics.definitions import Definition
from llm_trader.serving.metrics.registry import Registry

BOUNDS = (0.1, 1.0, 2.5, 10.0)
SPREAD = Definition("spread", "histogram", "Spread.", ("kind",), BOUNDS)
COUNT = Definition("count_total", "counter", "Count.", ("kind",))
numbers = st.one_of(st.sampled_from([0.0, *BOUNDS, 11.0]), st.floats(0, 20))


def samples(registry: Any) -> dict[tuple[str, frozenset[Any]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.tuples(st.sampled_from("ab"), numbers), max_size=30))
def test_it_counts_as_the_prometheus_client_does(seen: list[tuple[str, float]]) -> None:
    own, reference = Registry([SPREAD, COUNT]), CollectorRegistry()
    spread = prometheus_client.Histogram(
        "spread", "Spread.", ["kind"], buckets=BOUNDS, registry=reference
    )
    count = prometheus_client.Counter("count", "Count.", ["kind"], registry=reference)
    for kind, number in seen:
        own.histogram(SPREAD, kind).observe(number)
        own.counter(COUNT, kind).inc()
        spread.labels(kind).observe(number)
        count.labels(kind).inc()
    assert samples(own) == samples(reference)
