"""The time that a client takes to send one request, or one message of WebSocket."""

from __future__ import annotations

import asyncio
import weakref
from typing import Protocol

from llm_trader.rpc.loop_clock import LoopClock


class Receiver(Protocol):
    def is_reading_paused(self) -> bool: ...

    def receipt_takes_too_long(self) -> None: ...


class Receipt:
    """Tells its receiver when what has begun does not end within `timeout_s`.

    While reading is paused the client cannot send, and the time does not count.
    """

    def __init__(self, clock: LoopClock, timeout_s: float, receiver: Receiver) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        # A strong one would keep what a lost connection holds until the garbage collector comes.
        self._receiver = weakref.ref(receiver)
        self._began_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_begun(self) -> bool:
        return self._began_s is not None

    def begin(self) -> None:
        """Does nothing if it has begun already."""
        if self._began_s is None:
            self._began_s = self._clock.now_s()
            self._check_after(self._timeout_s)

    def end(self) -> None:
        self._began_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_after(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._check)

    def _check(self) -> None:
        now_s, receiver = self._clock.now_s(), self._receiver()
        if self._began_s is None or receiver is None:
            return
        if receiver.is_reading_paused():
            self._began_s = now_s
        remaining_s = self._began_s + self._timeout_s - now_s
        if remaining_s > 0:
            self._check_after(remaining_s)
        else:
            receiver.receipt_takes_too_long()
