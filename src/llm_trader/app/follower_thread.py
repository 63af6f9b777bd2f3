"""A follower of the store in a thread: a look at many symbols takes seconds, and streams go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from llm_trader.app.following import StoreFollower

_STOP_WITHIN_S: Final = 5.0


@dataclass(eq=False)
class FollowerThread:
    """`failed` is called in the thread where the follower ends by itself, with the reason."""

    follower: StoreFollower
    failed: Callable[[Exception], None]
    _thread: threading.Thread | None = field(default=None, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)
        self._thread.start()

    async def stop(self) -> bool:
        """Whether it has ended; a batch that takes longer is a transaction that a kill undoes."""
        if self._thread is None:
            return True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # it has ended in this moment
                self._loop.call_soon_threadsafe(self._task.cancel)
        await asyncio.to_thread(self._thread.join, _STOP_WITHIN_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._follow())
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001  reported in the main thread
            self.failed(error)

    async def _follow(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await self.follower.follow()
