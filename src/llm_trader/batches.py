"""Calls that share one transaction: what arrives while one is under way goes into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")


class Batches(Generic[A, R]):
    """`carry_out` gets all arguments that wait, and returns a result for each in that order."""

    def __init__(self, carry_out: Callable[[Sequence[A]], Awaitable[Sequence[R]]]) -> None:
        self._carry_out = carry_out
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def add(self, argument: A) -> R:
        """Raises what the call of its batch raises."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((argument, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                results = await self._carry_out([argument for argument, _ in batch])
            except BaseException as error:
                # Nobody who waits may wait for ever, whatever ended the call.
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
