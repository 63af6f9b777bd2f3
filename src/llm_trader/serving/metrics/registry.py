"""The metrics of one server that count, made of their definitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)

from llm_trader.serving.metrics.definitions import Definition

_CREATED: Final = "_created"


class Registry:
    """A registry of its own, so that servers of one process share nothing."""

    def __init__(self, definitions: Iterable[Definition]) -> None:
        self._registry = CollectorRegistry()
        self._metrics = {definition: self._made(definition) for definition in definitions}

    def counter(self, definition: Definition, *labels: str) -> Counter:
        """The counter of some labels; keep it, as the look-up costs more than the counting."""
        return self._child(definition, labels)  # type: ignore[no-any-return]

    def histogram(self, definition: Definition, *labels: str) -> Histogram:
        return self._child(definition, labels)  # type: ignore[no-any-return]

    def collect(self) -> Iterator[Metric]:
        """The families, without the times at which each of their series began."""
        for family in self._registry.collect():
            family.samples = [s for s in family.samples if not s.name.endswith(_CREATED)]
            yield family

    def _child(self, definition: Definition, labels: tuple[str, ...]) -> Any:
        metric = self._metrics[definition]
        return metric.labels(*labels) if labels else metric

    def _made(self, definition: Definition) -> Counter | Histogram | Gauge:
        described = definition.name, definition.meaning, definition.labels
        if definition.kind == "histogram":
            return Histogram(*described, buckets=definition.buckets, registry=self._registry)
        metric = Counter if definition.kind == "counter" else Gauge
        return metric(*described, registry=self._registry)


class Readings:
    """Families of what is read at one scrape."""

    def __init__(self) -> None:
        self._families: dict[Definition, GaugeMetricFamily | CounterMetricFamily] = {}

    def add(self, definition: Definition, value: float, *labels: str) -> None:
        family = self._families.get(definition)
        if family is None:
            kind = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
            family = kind(definition.name, definition.meaning, labels=definition.labels)
            self._families[definition] = family
        family.add_metric(labels, value)

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()
