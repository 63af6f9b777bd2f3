"""How long work reports its progress to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

# Called with a label of the work, the steps or bytes done, and their total.
Progress: TypeAlias = Callable[[str, int, int], None]


def no_progress(label: str, done: int, total: int) -> None:
    """For callers that show no progress."""


def labelled(progress: Progress, activity: str) -> Progress:
    """Adds an activity to the labels, as in "BTCUSDT, reading"."""
    return lambda label, done, total: progress(f"{label}, {activity}", done, total)


@dataclass(slots=True)
class StepCounter:
    """Reports a growing count: call it with the number of further steps that are done."""

    progress: Progress
    label: str
    total: int
    done: int = 0

    def __call__(self, steps: int) -> None:
        self.done += steps
        self.progress(self.label, self.done, self.total)
