"""How long work reports its progress to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# Called with a label of the work, the steps or bytes done, and their total.
Progress: TypeAlias = Callable[[str, int, int], None]


def no_progress(label: str, done: int, total: int) -> None:
    """For callers that show no progress."""


def labelled(progress: Progress, activity: str) -> Progress:
    """Adds an activity to the labels, as in "BTCUSDT, reading"."""
    return lambda label, done, total: progress(f"{label}, {activity}", done, total)


class StepCounter:
    """Reports a growing count: call it with the number of further steps that are done."""

    def __init__(self, progress: Progress, label: str, total: int, done: int = 0) -> None:
        self._progress = progress
        self._label = label
        self._total = total
        self._done = done

    def __call__(self, steps: int) -> None:
        self._done += steps
        self._progress(self._label, self._done, self._total)
