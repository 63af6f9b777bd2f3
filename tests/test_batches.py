"""What arrives while a call is under way shares the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from llm_trader.batches import Batches
from llm_trader.errors import StoreError


async def test_arguments_that_arrive_during_a_call_share_the_next_one() -> None:
    calls: list[list[int]] = []

    async def double(numbers: Sequence[int]) -> list[int]:
        calls.append(list(numbers))
        await asyncio.sleep(0.01)
        return [2 * number for number in numbers]

    batches: Batches[int, int] = Batches(double)
    first = asyncio.create_task(batches.add(1))
    while not calls:  # noqa: ASYNC110
        await asyncio.sleep(0)
    others = await asyncio.gather(*map(batches.add, range(2, 6)))
    assert (await first, others) == (2, [4, 6, 8, 10])
    assert calls == [[1], [2, 3, 4, 5]]


async def test_a_failure_is_that_of_its_own_batch() -> None:
    async def refuse_zero(numbers: Sequence[int]) -> Sequence[int]:
        if 0 in numbers:
            raise StoreError("no zero")
        return numbers

    batches: Batches[int, int] = Batches(refuse_zero)
    results = await asyncio.gather(batches.add(0), batches.add(1), return_exceptions=True)
    assert [str(result) for result in results] == ["no zero", "no zero"]
    assert await batches.add(2) == 2


async def test_a_caller_that_gives_up_does_not_stop_the_others() -> None:
    async def echo(numbers: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0.01)
        return numbers

    batches: Batches[int, int] = Batches(echo)
    impatient, patient = (asyncio.create_task(batches.add(n)) for n in (1, 2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == 2
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_nobody_waits_for_a_call_that_was_cancelled() -> None:
    begun = asyncio.Event()

    async def never(numbers: Sequence[int]) -> Sequence[int]:
        begun.set()
        await asyncio.Event().wait()
        return numbers

    batches: Batches[int, int] = Batches(never)
    waiting = asyncio.create_task(batches.add(1))
    await begun.wait()
    (worker,) = asyncio.all_tasks() - {waiting, asyncio.current_task()}
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
