"""Time as clients may be held to: seconds during which the event loop was free to serve them."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_PERIOD_S: Final = 0.1
# Longer steps are stalls of this process, whatever caused them: a load of an index, a busy machine.
_LONGEST_STEP_S: Final = 2 * _PERIOD_S


class LoopClock:
    """Runs between `start` and `stop`, at the pace of the clock on the wall or slower."""

    def __init__(self) -> None:
        self._free_s = 0.0
        self._ticked_s = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._ticked_s = time.monotonic()
        self._tick()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def now_s(self) -> float:
        return self._free_s + min(time.monotonic() - self._ticked_s, _LONGEST_STEP_S)

    def _tick(self) -> None:
        self._free_s, self._ticked_s = self.now_s(), time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(_PERIOD_S, self._tick)
