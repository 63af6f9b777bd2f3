"""One intake: a connection, and what is on its way to it until it answers or time is up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from llm_trader.clock import Clock
from llm_trader.delivery.boundary import pause_s
from llm_trader.delivery.config import IntakeAddress
from llm_trader.delivery.jobs import METHOD, SnapshotPost
from llm_trader.errors import LlmTraderError
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.timeframe import SECOND_MS

# Answers that another attempt would get as well: the request itself is refused.
_FINAL_CODES: Final = frozenset({-32700, -32600, -32601, -32602, -32010})

_log = structlog.get_logger(__name__)


class DeliveryCounts(msgspec.Struct):
    """Snapshots that an intake took; of those, made without late data; and given up.

    `corrected` ones were posted, and then the exchange corrected a candle that they were made of.
    """

    sent: int = 0
    late: int = 0
    dropped: int = 0
    corrected: int = 0


@dataclass(eq=False)
class Intake:
    """Each post is a task of its own, so a slow one delays no other."""

    address: IntakeAddress
    clock: Clock
    attempt_timeout_s: float
    token: str | None = field(default=None, repr=False)
    counts: DeliveryCounts = field(default_factory=DeliveryCounts)
    _client: RpcClient | None = field(default=None, init=False)
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    @property
    def name(self) -> str:
        return str(self.address)

    def post(self, job: SnapshotPost) -> None:
        """Send it, again and again until the intake takes it, refuses it, or its deadline."""
        task = asyncio.create_task(self._deliver(job))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def settled(self) -> None:
        """Returns when nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Give up what is under way, which counts as dropped."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._disconnect(self._client)

    async def _deliver(self, job: SnapshotPost) -> None:
        taken, reason = False, "the sender stopped"
        try:
            reason = await self._attempts(job)
            taken = not reason
        finally:
            if taken:
                self.counts.sent += 1
                self.counts.late += bool(job.late)
            else:
                self.counts.dropped += 1
                _log.warning(
                    "snapshot_dropped",
                    intake=self.name,
                    symbol=job.snapshot.symbol,
                    snapshot_id=job.snapshot_id,
                    reason=reason,
                )

    async def _attempts(self, job: SnapshotPost) -> str:
        """Why the intake did not take it; empty where it did."""
        attempt, reason = 0, ""
        while (left_s := (job.deadline_ms - self.clock.now_ms()) / SECOND_MS) > 0:
            try:
                async with asyncio.timeout(min(left_s, self.attempt_timeout_s)):
                    await self._attempt(job)
                return ""
            except RpcError as error:
                reason = error.message
                if error.rpc_code in _FINAL_CODES:
                    return reason
            except LlmTraderError as error:
                reason = error.message
            except TimeoutError:
                reason = f"no reply from {self.name}"
            left_s = (job.deadline_ms - self.clock.now_ms()) / SECOND_MS
            await self.clock.sleep(max(min(pause_s(attempt), left_s), 0))
            attempt += 1
        return f"its deadline has passed; {reason}" if reason else "its deadline has passed"

    async def _attempt(self, job: SnapshotPost) -> None:
        client = await self._connected()
        try:
            await client.call(METHOD, job)
        except RpcError:
            raise
        except (LlmTraderError, asyncio.CancelledError):
            # Lost, or silent for too long: others on it are sent again on a new one.
            await self._disconnect(client)
            raise

    async def _connected(self) -> RpcClient:
        async with self._connecting:
            if self._client is not None and self._client.is_lost:
                await self._disconnect(self._client)
            if self._client is None:
                host, port = self.address.host, self.address.port
                self._client = await RpcClient.connect(
                    host, port, timeout_s=self.attempt_timeout_s, token=self.token
                )
            return self._client

    async def _disconnect(self, client: RpcClient | None) -> None:
        if client is not None and client is self._client:
            self._client = None
            await client.close()
