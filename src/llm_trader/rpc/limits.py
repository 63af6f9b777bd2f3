"""How much the server takes on: the numbers, and the gate that holds calls to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.auth import TokenCheck
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.errors import (
    DrainingError,
    OverloadedError,
    RateLimitedError,
    UnauthorizedError,
)

_OPEN_TO_ALL = frozenset({"rpc.authenticate", "rpc.ping"})
_MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """All numbers must be above zero; `rate_per_s` None is no rate limit.

    `frame_deadline_s` runs from a document's first byte to its last, `idle_timeout_s` while
    neither a document nor an answer is under way.
    """

    max_document_bytes: int = 1 << 20
    max_connections: int = 1000
    max_in_flight: int = 256
    max_in_flight_per_connection: int = 32
    frame_deadline_s: float = 30.0
    idle_timeout_s: float = 600.0
    request_deadline_s: float = 10.0
    write_timeout_s: float = 30.0
    discard_s: float = 1.0
    drain_timeout_s: float = 20.0
    rate_per_s: float | None = None
    rate_burst: int = 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{field.name} must be above zero, not {value}")


class RateLimiter:
    """A token bucket per peer address: `burst` calls at once, `rate_per_s` over time."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, address: str, now_s: float) -> int:
        """Takes one token; 0, or the milliseconds until there is one."""
        level, since_s = self._buckets.get(address, (float(self._burst), now_s))
        level = min(self._burst, level + (now_s - since_s) * self._rate_per_s)
        granted = level >= 1
        self._buckets[address] = (level - granted, now_s)
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


class Admission:
    """The gate of one server: draining, rate, authentication, load, in this order."""

    def __init__(self, limits: ServerLimits, tokens: TokenCheck) -> None:
        self.draining = False
        self._max_in_flight = limits.max_in_flight
        self._in_flight = 0
        self._tokens_required = tokens.required
        rate = limits.rate_per_s
        self._limiter = RateLimiter(rate, limits.rate_burst) if rate is not None else None

    def enter(self, method: str, context: RequestContext) -> None:
        """Raises the refusal; otherwise the call counts as in flight until `leave`."""
        session = context.session
        if self.draining:
            raise DrainingError
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
