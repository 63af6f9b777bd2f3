"""What one client may ask for: requests, and the time that the server works for it.

1. A call that arrives takes one request; a client whose working time is used up is refused.
2. When its turn comes, the working time is looked at again: calls that waited side by side would
   otherwise all begin before the first one is charged.
3. A turn is charged with the time that it took, below zero if need be. So a query over a year
   costs more than one over a week, and nothing has to be estimated.

With Redis, all servers on one Redis share these levels. A server's own levels follow those of
Redis, and are what counts while it is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.errors import RateLimitedError
from llm_trader.rpc.token_buckets import TokenBuckets

# The smallest level at which a client may have another turn; the turn's own cost comes after it.
_SOME_MS: Final = 1e-3
# Charges of so much time go to Redis together.
_REPORT_EVERY_S: Final = 0.05


class Levels(NamedTuple):
    """What a client has left after a call was granted or refused."""

    granted: bool
    requests: float
    work_ms: float


class SharedLevels(Protocol):
    """Levels that servers have in common; None while they cannot be reached."""

    async def take(self, client: str, requests: int, worked_ms: float) -> Levels | None: ...

    def configure(self, config: RpcConfig) -> None: ...


class ClientLimits:
    """The limits of a server. A client is a key, or else an address."""

    def __init__(self, config: RpcConfig, shared: SharedLevels | None = None) -> None:
        self._all_shared = shared
        self.configure(config)
        self._unreported_ms: dict[str, float] = {}
        self._reporting: asyncio.Task[None] | None = None

    def configure(self, config: RpcConfig) -> None:
        """Begins anew with these limits: every client has its whole burst again."""
        rate, work_ms = config.rate_limit_per_s, config.work_limit_ms_per_s
        self._requests = TokenBuckets(rate, config.rate_burst) if rate else None
        self._work = TokenBuckets(work_ms, config.work_burst_ms) if work_ms else None
        self._shared = self._all_shared if rate or work_ms else None
        if self._all_shared is not None:
            self._all_shared.configure(config)

    async def take(self, client: str, now_s: float, *, share: bool = True) -> None:
        """Counts one call. Raises `RateLimitedError`."""
        if share and self._shared is not None and await self._take_shared(client, now_s):
            return
        self.expect_work(client, now_s)
        if self._requests is not None and (wait_ms := self._requests.take(client, now_s)):
            raise RateLimitedError(wait_ms)

    def expect_work(self, client: str, now_s: float) -> None:
        """Raises `RateLimitedError` if the client has no working time left."""
        if self._work is None:
            return
        if wait_ms := self._work.retry_after_ms(client, now_s, _SOME_MS):
            raise RateLimitedError(wait_ms)

    def charge_to(self, client: str, now_s: Callable[[], float]) -> Callable[[float], None] | None:
        """What a turn calls with the seconds that it worked; None without such a limit."""
        work = self._work
        if work is None:
            return None

        def charge(worked_s: float) -> None:
            work.spend(client, worked_s * 1000, now_s())
            if self._shared is not None:
                unreported_ms = self._unreported_ms.get(client, 0.0)
                self._unreported_ms[client] = unreported_ms + worked_s * 1000
                if self._reporting is None:
                    self._reporting = asyncio.get_running_loop().create_task(self._report())

        return charge

    async def aclose(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.wait([self._reporting])

    async def _take_shared(self, client: str, now_s: float) -> bool:
        """Whether Redis granted the call; False if it is away. Raises `RateLimitedError`."""
        levels = await self._exchange(client, 1)
        if levels is None:
            return False
        wait_ms = 0
        if self._requests is not None:
            self._requests.set_level(client, levels.requests, now_s)
            if not levels.granted and levels.requests < 1:
                wait_ms = self._requests.wait_ms(levels.requests, 1)
        if self._work is not None:
            self._work.set_level(client, levels.work_ms, now_s)
            if not levels.granted and levels.work_ms < _SOME_MS:
                wait_ms = max(wait_ms, self._work.wait_ms(levels.work_ms, _SOME_MS))
        if not levels.granted:
            raise RateLimitedError(wait_ms)
        return True

    async def _exchange(self, client: str, requests: int) -> Levels | None:
        """Reports the client's work and asks for requests; the work is kept if Redis is away."""
        if self._shared is None:
            return None
        worked_ms = self._unreported_ms.pop(client, 0.0)
        levels = await self._shared.take(client, requests, worked_ms)
        if levels is None and worked_ms:
            self._unreported_ms[client] = self._unreported_ms.get(client, 0.0) + worked_ms
        return levels

    async def _report(self) -> None:
        """Tells Redis about work, also of clients that send nothing more."""
        try:
            while self._unreported_ms:
                await asyncio.sleep(_REPORT_EVERY_S)
                for client in list(self._unreported_ms):
                    if await self._exchange(client, 0) is None:
                        # It was counted here, and is old when Redis is back.
                        self._unreported_ms.clear()
                        return
        finally:
            self._reporting = None
