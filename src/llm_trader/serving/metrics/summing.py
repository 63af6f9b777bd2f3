"""The metrics of several processes as those of one. No I/O here.

Counters, histograms and loads add up. What all processes read from the same files is the same in
each, so one of them suffices. Scores come from a journal that all processes read, so the one that
has read most of it shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

import msgspec
from prometheus_client.metrics_core import Metric

from llm_trader.serving.metrics import definitions

Rule = Literal["sum", "max", "min", "of_most_scored"]
Labels = tuple[tuple[str, str], ...]

# By name, of gauges; counters and histograms add up.
GAUGE_RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(
        (
            definitions.FRESHNESS.name,
            definitions.GAPS.name,
            definitions.MISSING.name,
            definitions.REFUSED.name,
            definitions.SYMBOLS_LEFT_OUT.name,
            definitions.INDEX_POINTS.name,
            definitions.INDEX_NEWEST.name,
            definitions.INDEX_BYTES.name,
            definitions.CALIBRATION_AGE.name,
            definitions.BUILD.name,
            definitions.WORKERS.name,
            definitions.FORECASTS_WAITING.name,
            definitions.FORECASTS_UNSCORED.name,
            definitions.FORECASTS_SCORED.name,
            definitions.CALIBRATED_SCORED.name,
        ),
        "max",
    ),
    **dict.fromkeys((definitions.STORE_UP.name, definitions.INDEX_UP.name), "min"),
    **dict.fromkeys(
        (
            definitions.CONNECTIONS.name,
            definitions.WAITING.name,
            definitions.IN_FLIGHT.name,
            definitions.RECEIVED.name,
            definitions.UNSENT.name,
            "process_virtual_memory_bytes",
            "process_resident_memory_bytes",
            "process_open_fds",
        ),
        "sum",
    ),
    **dict.fromkeys(
        (definitions.COVERAGE.name, definitions.CRPS.name, definitions.CRPS_SKILL.name),
        "of_most_scored",
    ),
    "process_start_time_seconds": "min",
    "process_max_fds": "min",
}


class Family(msgspec.Struct, array_like=True):
    """A metric with its samples, as plain data. `samples` are (name, labels, value)."""

    name: str
    meaning: str
    kind: str
    samples: list[tuple[str, Labels, float]]


def plain(metrics: Iterable[Metric]) -> list[Family]:
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [(s.name, tuple(s.labels.items()), s.value) for s in metric.samples],
        )
        for metric in metrics
    ]


def as_metrics(families: Iterable[Family]) -> Iterator[Metric]:
    for family in families:
        metric = Metric(family.name, family.meaning, family.kind)
        for name, labels, value in family.samples:
            metric.add_sample(name, dict(labels), value)
        yield metric


def added_up(processes: Sequence[Sequence[Family]]) -> list[Family]:
    """One family of each name, in the order of the first process that has it."""
    merged: dict[str, Family] = {}
    values: dict[tuple[str, str, Labels], list[tuple[float, float]]] = {}
    for families in processes:
        scored = _scored(families)
        for family in families:
            if family.name not in merged:
                merged[family.name] = Family(family.name, family.meaning, family.kind, [])
            for name, labels, value in family.samples:
                weight = scored.get(_number_behind(labels), 0.0)
                values.setdefault((family.name, name, labels), []).append((value, weight))
    for (family_name, name, labels), entries in values.items():
        family = merged[family_name]
        family.samples.append((name, labels, _value(_rule(family), entries)))
    return list(merged.values())


def lasting(families: Iterable[Family]) -> list[Family]:
    """What still counts after a process has ended: all that only ever grows."""
    return [family for family in families if family.kind in ("counter", "histogram")]


def _rule(family: Family) -> Rule:
    return GAUGE_RULES.get(family.name, "sum") if family.kind == "gauge" else "sum"


def _value(rule: Rule, entries: list[tuple[float, float]]) -> float:
    values = [value for value, _ in entries]
    if rule == "max":
        return max(values)
    if rule == "min":
        return min(values)
    if rule == "sum":
        return sum(values)
    return max(entries, key=lambda entry: entry[1])[0]


def _number_behind(labels: Labels) -> tuple[str, str]:
    """The metric and the horizon that say how many forecasts a score is of."""
    row = dict(labels)
    is_calibrated = row.get("band") == "calibrated"
    number = definitions.CALIBRATED_SCORED if is_calibrated else definitions.FORECASTS_SCORED
    return number.name, row.get("horizon", "")


def _scored(families: Sequence[Family]) -> dict[tuple[str, str], float]:
    """The numbers of scored forecasts, by metric and horizon."""
    return {
        (family.name, dict(labels)["horizon"]): value
        for family in families
        if family.name in (definitions.FORECASTS_SCORED.name, definitions.CALIBRATED_SCORED.name)
        for _, labels, value in family.samples
    }
