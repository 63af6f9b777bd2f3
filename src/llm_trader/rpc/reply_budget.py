"""Bounds the memory of replies that clients do not read, per connection and in all.

A connection whose transport is above its high-water mark is not read from and gets no turns. When
all connections together exceed the budget, the one that has read nothing for the longest time is
closed, until the rest fits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from llm_trader.rpc.config import RpcConfig


def _open_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True, eq=False)
class Unsent:
    """The replies of one connection: members of unfinished batches, and what waits to be read.

    `progress_s` is when the client last read some of it, by the server's clock. `writable` is
    cleared while the transport is above its high-water mark.
    """

    abort: Callable[[], None] = lambda: None
    buffered: Callable[[], int] = lambda: 0
    in_kernel: Callable[[], int] = lambda: 0
    batch_bytes: int = 0
    sending_bytes: int = 0
    unread_bytes: int = 0
    progress_s: float = 0.0
    writable: asyncio.Event = field(default_factory=_open_event)

    def measure(self, now_s: float) -> int:
        """The bytes of both kinds."""
        self.sending_bytes = 0 if self.writable.is_set() else self.buffered()
        # The buffer alone shrinks in steps of megabytes, which a slow client takes long to read.
        unread_bytes = self.sending_bytes + self.in_kernel()
        if unread_bytes != self.unread_bytes:
            self.unread_bytes, self.progress_s = unread_bytes, now_s
        return self.batch_bytes + self.sending_bytes


class ReplyBudget:
    """The unsent replies of all connections of a server."""

    def __init__(self, config: RpcConfig) -> None:
        self.configure(config)
        self._held: dict[Unsent, int] = {}
        self._total_bytes = 0

    def configure(self, config: RpcConfig) -> None:
        self._max_bytes = config.max_unsent_mib << 20
        self._max_batch_bytes = config.max_batch_reply_kib << 10

    @property
    def total_bytes(self) -> int:
        return self._total_bytes

    def update(self, unsent: Unsent, now_s: float) -> None:
        """Call it when replies are made or sent; closes the stalest connection if need be."""
        self._account(unsent, unsent.measure(now_s))
        while self._total_bytes > self._max_bytes:
            for other in list(self._held):
                self._account(other, other.measure(now_s))
            sending = [other for other in self._held if other.sending_bytes]
            if self._total_bytes <= self._max_bytes or not sending:
                return
            stalest = min(sending, key=lambda other: other.progress_s)
            self._account(stalest, 0)
            stalest.abort()

    def allows_more(self, unsent: Unsent) -> bool:
        """Whether one more reply may be added to the unfinished batch of a connection."""
        share = self._max_batch_bytes
        if self._total_bytes > self._max_bytes:
            share = min(share, self._max_bytes // len(self._held))
        return unsent.batch_bytes <= share

    def forget(self, unsent: Unsent) -> None:
        self._account(unsent, 0)

    def _account(self, unsent: Unsent, size: int) -> None:
        self._total_bytes += size - self._held.pop(unsent, 0)
        if size:
            self._held[unsent] = size
