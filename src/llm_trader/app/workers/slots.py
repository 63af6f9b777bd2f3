"""Which worker accepts for which slot, and how long to wait before a restart. No processes here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# The first restart is immediate: what killed a worker is mostly over.
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
# A worker that served for so long has no fault that a pause would mend.
STEADY_S: Final = 60.0


def slots_by_worker(slots: int, ready: Sequence[int]) -> dict[int, list[int]]:
    """The slots that each ready worker accepts for: its own, and its share of those without one."""
    chosen = {slot: [slot] for slot in ready}
    orphans = [slot for slot in range(slots) if slot not in chosen]
    for position, orphan in enumerate(orphans):
        if ready:
            chosen[ready[position % len(ready)]].append(orphan)
    return chosen


def wait_before_restart_s(failures: int) -> float:
    """`failures` are the ends in a row, of this slot, before the worker had served steadily."""
    if failures <= 1:
        return 0.0
    return float(min(_FIRST_WAIT_S * 2 ** (failures - 2), _LONGEST_WAIT_S))
