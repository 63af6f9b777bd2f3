"""What a parent and its workers tell each other, and the counts of all workers as those of one.

A worker that is killed takes what it counted since its last report with it; the parent asks for one
every few seconds, and for each scrape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from llm_trader.serving.metrics import definitions
from llm_trader.serving.metrics.summing import Family, added_up, lasting


class WorkerStart(Struct):
    """What a worker needs; `sockets` are the descriptors that it inherited.

    `settings` are a `Settings`, for the worker as plain data.
    """

    slot: int
    settings: Any
    sockets: dict[str, list[list[int]]]
    handover: list[int]

    @property
    def descriptors(self) -> list[int]:
        """All that it inherits."""
        of_sockets = [fds for slots in self.sockets.values() for fds in slots]
        return [descriptor for fds in (*of_sockets, self.handover) for descriptor in fds]


class Counts(Struct, array_like=True, frozen=True):
    answered: int = 0
    refused: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(self.answered + other.answered, self.refused + other.refused)


class Report(Struct):
    """What a worker has counted since it started."""

    counts: Counts = Counts()
    families: list[Family] = []

    def plus(self, other: Report) -> Report:
        families = added_up([self.families, other.families])
        return Report(self.counts.plus(other.counts), families)

    def kept(self) -> Report:
        """What still counts when the worker has ended."""
        return Report(self.counts, lasting(self.families))


def metrics_of_all(
    reports: Sequence[Report], ended: Report, ready: int, restarts: int
) -> list[Family]:
    """`reports` are of the workers that run, `ended` of all others."""
    families = [report.families for report in (*reports, ended)]
    if not any(families):
        return []
    own = [
        _family(definitions.WORKERS, ready),
        _family(definitions.WORKER_RESTARTS, restarts),
    ]
    return [*added_up(families), *own]


def _family(definition: definitions.Definition, value: float) -> Family:
    # The client library adds the ending of a counter to its samples.
    family_name = definition.name.removesuffix("_total")
    return Family(family_name, definition.meaning, definition.kind, [(definition.name, (), value)])
