"""The gate that enforces the server's limits."""

from __future__ import annotations

import math
from typing import Final

from llm_trader.rpc.auth import TokenCheck
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Gate, RequestContext
from llm_trader.rpc.errors import (
    DrainingError,
    OverloadedError,
    RateLimitedError,
    UnauthorizedError,
)

_OPEN_TO_ALL: Final = frozenset({"rpc.authenticate", "rpc.ping"})
# About 2 MB of addresses. Beyond it, full buckets are dropped, because a new one is full as well.
_MAX_BUCKETS: Final = 10_000


class RateLimiter:
    """A token bucket per peer address: `burst` calls at once, `rate_per_s` over time."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, address: str, now_s: float) -> int:
        """Takes one token; returns 0, or the milliseconds until the next token."""
        level, since_s = self._buckets.get(address, (float(self._burst), now_s))
        level = min(self._burst, level + (now_s - since_s) * self._rate_per_s)
        granted = level >= 1
        self._buckets[address] = (level - granted, now_s)
        # Addresses come from outside, so what is kept for each of them has a bound.
        if len(self._buckets) > _MAX_BUCKETS:
            self._forget_full_buckets(now_s)
        return 0 if granted else math.ceil((1 - level) / self._rate_per_s * 1000)

    def _forget_full_buckets(self, now_s: float) -> None:
        full_after_s = self._burst / self._rate_per_s
        self._buckets = {
            address: (level, since_s)
            for address, (level, since_s) in self._buckets.items()
            if now_s - since_s < full_after_s
        }


class Admission(Gate):
    """The gate of one server checks draining, rate, authentication and load, in this order."""

    def __init__(self, config: RpcConfig, tokens: TokenCheck) -> None:
        self.draining = False
        self._max_in_flight = config.max_in_flight
        self._in_flight = 0
        self._tokens_required = tokens.required
        rate = config.rate_limit_per_s
        self._limiter = RateLimiter(rate, config.rate_burst) if rate else None

    def enter(self, method: str, context: RequestContext) -> None:
        """Raises the refusal; otherwise the call counts as in flight until `leave`."""
        session = context.session
        if self.draining:
            raise DrainingError
        # Before authentication, so that guessing tokens is limited as well.
        if self._limiter is not None:
            retry_after_ms = self._limiter.take(session.address, context.received_s)
            if retry_after_ms:
                raise RateLimitedError(retry_after_ms)
        if self._tokens_required and not session.authenticated and method not in _OPEN_TO_ALL:
            raise UnauthorizedError(
                'unauthorized; call rpc.authenticate with {"token": "…"} first on this connection'
            )
        if self._in_flight >= self._max_in_flight:
            raise OverloadedError(f"overloaded: {self._in_flight} calls in flight; send again")
        self._in_flight += 1

    def leave(self) -> None:
        self._in_flight -= 1
