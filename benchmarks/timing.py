"""A subject and its floor in turn, so that a throttled core slows both."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple


class Figure(NamedTuple):
    """One line of the report. `reached` is None where there is no target to reach."""

    name: str
    measured: str
    target: str
    reached: bool | None


class Pair(NamedTuple):
    """CPU seconds per call of subject and floor, and the median of their ratios."""

    subject_s: float
    floor_s: float
    ratio: float


def in_turn(
    subject: Callable[[], object], floor: Callable[[], object], rounds: int, calls: int
) -> Pair:
    """Process CPU time of both, a few calls each per round; the median round is quoted."""
    pairs = []
    for _ in range(rounds + 1):
        pairs.append((_cpu_s(subject, calls), _cpu_s(floor, calls)))
    pairs = pairs[1:]  # the first round warms up
    return Pair(
        median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs)
    )


class MachineSpeed:
    """A fixed loop, timed now and then: tells a slow machine from slow code."""

    def __init__(self) -> None:
        self._milliseconds: list[float] = []

    def sample(self) -> None:
        self._milliseconds.append(_cpu_s(lambda: sum(i * i % 7 for i in range(100_000)), 1) * 1000)

    def figure(self) -> Figure:
        slowdown = median(self._milliseconds) / min(self._milliseconds)
        told = f"{min(self._milliseconds):.1f} ms at best, median {slowdown:.2f} x that"
        return Figure("the machine: a fixed loop during the run", told, "", None)


def _cpu_s(work: Callable[[], object], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - started) / calls
