"""A clock that several processes share and one of them steers.

A day of a market passes in seconds, but whoever decides should have the seconds that a decision
takes, not hours. So the clock runs fast up to a boundary and slowly while it is decided on.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import time
from pathlib import Path
from typing import Final, Self

from llm_trader.timeframe import SECOND_MS, Millis

# Where it stood, how fast it goes from there on, and the time on the wall of then; and from which
# time on it goes at which other speed, however late whoever steers it comes to say so.
_COURSE: Final = struct.Struct("=qddqd")
_NEVER: Final = 2**62
_SLOTS: Final = 2
# Who sleeps looks so often whether the clock goes at another speed now.
_LOOK_AGAIN_S: Final = 0.02


class SharedClock:
    """A file with two courses and the number of the valid one, so that no reader sees half of one.

    It can take the place of the program's own clock: `sleep` takes simulated seconds.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        self.path = path
        with path.open("r+b" if write else "rb") as file:
            access = mmap.ACCESS_WRITE if write else mmap.ACCESS_READ
            self._map = mmap.mmap(file.fileno(), 1 + _SLOTS * _COURSE.size, access=access)

    @classmethod
    def starting(cls, path: Path, start_ms: Millis) -> Self:
        """It begins as fast as the clock on the wall."""
        course = _COURSE.pack(start_ms, 1.0, time.time(), _NEVER, 1.0)
        path.write_bytes(b"\0" + course * _SLOTS)
        return cls(path, write=True)

    def now_ms(self) -> Millis:
        start_ms, speed, origin_s, until_ms, speed_then = self._course()
        passed_ms = (time.time() - origin_s) * SECOND_MS
        now_ms = start_ms + passed_ms * speed
        if now_ms > until_ms:
            now_ms = until_ms + (passed_ms - (until_ms - start_ms) / speed) * speed_then
        return int(now_ms)

    async def sleep(self, seconds: float) -> None:
        end_ms = self.now_ms() + seconds * SECOND_MS
        # No event of this process tells that another one changed the speed.
        while (left_ms := end_ms - self.now_ms()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left_ms / SECOND_MS / self._course()[1], _LOOK_AGAIN_S))

    def go(self, speed: float, *, until_ms: Millis = _NEVER, speed_then: float = 1.0) -> None:
        """Simulated seconds a second, from now on and up to a time."""
        slot = 1 - self._map[0]
        begin = 1 + slot * _COURSE.size
        course = _COURSE.pack(self.now_ms(), speed, time.time(), until_ms, speed_then)
        self._map[begin : begin + _COURSE.size] = course
        self._map[0] = slot

    def _course(self) -> tuple[int, float, float, int, float]:
        course: tuple[int, float, float, int, float] = _COURSE.unpack_from(
            self._map, 1 + self._map[0] * _COURSE.size
        )
        return course
