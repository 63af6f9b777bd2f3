"""Deadlines that cost next to nothing until something waits for long.

`asyncio.timeout` sets and clears a timer each time, about 4 µs: a quarter of what a whole request
may cost here. Most reads and most answers never come near their deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

from llm_trader.rpc.errors import DeadlineExceededError

T = TypeVar("T")


class Begun(Generic[T]):
    """Work whose first step is taken at once, here and now in the current task.

    Work that never waits is `done` with it, and has cost neither a timer nor a task. Other work
    is to be awaited, in the same task, so that what it knows of its task stays true.
    """

    def __init__(self, work: Awaitable[T]) -> None:
        self._steps = work.__await__()
        self.done = False
        try:
            self._waits_for: Any = self._steps.send(None)
        except StopIteration as finished:
            self.done = True
            self.result: T = finished.value

    def __await__(self) -> Generator[Any, Any, T]:
        while not self.done:
            try:
                try:
                    sent = yield self._waits_for
                except BaseException as thrown:  # noqa: BLE001  goes on into the work, as with `yield from`
                    self._waits_for = self._steps.throw(thrown)
                else:
                    self._waits_for = self._steps.send(sent)
            except StopIteration as finished:
                self.done = True
                self.result = finished.value
        return self.result


async def within(deadline_s: float, work: Awaitable[T]) -> T:
    """The result of `work`, cancelled at `deadline_s` (the loop's monotonic time).

    The timer is set only when `work` first waits. Raises `DeadlineExceededError`.
    """
    begun = Begun(work)
    if begun.done:
        return begun.result
    try:
        async with asyncio.timeout_at(deadline_s) as clock:
            return await begun
    except TimeoutError:
        if not clock.expired():
            raise
        raise DeadlineExceededError("deadline exceeded; the work was cancelled") from None


class ReadClock:
    """Cancels a wait for input that takes too long.

    One timer serves all waits of a connection; moving the deadline later is an assignment.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._deadline_s = 0.0
        self._rang = False

    def start(self, deadline_s: float) -> None:
        """Called by the task that is about to wait."""
        self._waiting = asyncio.current_task()
        self._deadline_s = deadline_s
        if self._timer is None or deadline_s < self._timer.when():
            self._set_timer()

    def stop(self) -> None:
        self._waiting = None

    def ring(self) -> None:
        """Ends the wait now, if there is one."""
        if self._waiting is not None and not self._rang:
            self._rang = True
            self._waiting.cancel()

    def rang(self) -> bool:
        """Whether the cancellation just caught was this clock's, and nobody else's as well."""
        rang, self._rang = self._rang, False
        task = asyncio.current_task()
        return rang and task is not None and task.uncancel() == 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._deadline_s, self._timer_ran_out)

    def _timer_ran_out(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._deadline_s:
            self._set_timer()
        else:
            self.ring()
