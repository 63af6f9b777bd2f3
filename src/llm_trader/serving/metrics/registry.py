"""The metrics of one server: those that count, made of their definitions, and what a scrape reads.

The client library's own counters lock and search their buckets in Python, which costs a query 3 %.
Everything here happens on the event loop, so plain numbers do; the library writes them down.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from llm_trader.serving.metrics.definitions import Definition


class Counter:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        self.value += 1


class Histogram:
    """Counts by bucket; the last one has no upper bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class Registry:
    """A registry of its own, so that servers of one process share nothing."""

    def __init__(self, definitions: Iterable[Definition]) -> None:
        self._counters: dict[Definition, dict[tuple[str, ...], Counter]] = {}
        self._histograms: dict[Definition, dict[tuple[str, ...], Histogram]] = {}
        for definition in definitions:
            if definition.kind == "histogram":
                self._histograms[definition] = {}
            else:
                self._counters[definition] = {}

    def counter(self, definition: Definition, *labels: str) -> Counter:
        """The counter of some labels; whoever counts often keeps it."""
        return self._counters[definition].setdefault(labels, Counter())

    def histogram(self, definition: Definition, *labels: str) -> Histogram:
        histogram = Histogram(definition.buckets)
        return self._histograms[definition].setdefault(labels, histogram)

    def collect(self) -> Iterator[Metric]:
        for definition, counters in self._counters.items():
            counted = CounterMetricFamily(
                definition.name, definition.meaning, labels=definition.labels
            )
            for labels, counter in counters.items():
                counted.add_metric(labels, counter.value)
            yield counted
        for definition, histograms in self._histograms.items():
            spread = HistogramMetricFamily(
                definition.name, definition.meaning, labels=definition.labels
            )
            for labels, histogram in histograms.items():
                spread.add_metric(labels, histogram.buckets(), histogram.total)
            yield spread


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
