"""Which worker accepts for which slot, and how long to wait before a restart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_trader.app.workers.slots import slots_by_worker, wait_before_restart_s


def test_each_worker_accepts_for_its_own_slot() -> None:
    assert slots_by_worker(3, [0, 1, 2]) == {0: [0], 1: [1], 2: [2]}


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_every_slot_has_exactly_one_worker_as_long_as_there_is_one(case) -> None:
    slots, ready = case
    chosen = slots_by_worker(slots, sorted(ready))
    assert set(chosen) == ready
    covered = sorted(slot for own in chosen.values() for slot in own)
    assert covered == (list(range(slots)) if ready else [])


def test_the_first_restart_is_immediate_and_later_ones_wait_longer_up_to_a_bound() -> None:
    waits = [wait_before_restart_s(failures) for failures in range(1, 12)]
    assert waits[:4] == [0.0, 0.5, 1.0, 2.0]
    assert waits == sorted(waits)
    assert max(waits) == 30.0
