"""What the server lets in: where it may listen, tokens, rate and load.

A call passes `admit` when it arrives, waits in `turn` until the clients before it are served, and
is at work between `enter` and `leave`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from llm_trader.errors import ConfigurationError
from llm_trader.rpc import errors
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.fair_queue import FairQueue
from llm_trader.rpc.loop_clock import LoopClock
from llm_trader.rpc.reply_budget import ReplyBudget, Unsent

_log = structlog.get_logger(__name__)

_OPEN_TO_ALL: Final = frozenset({"rpc.authenticate", "rpc.ping"})
# About 2 MB of addresses. Beyond it, full buckets are dropped, because a new one is full as well.
_MAX_BUCKETS: Final = 10_000
# Wrong tokens on one connection before it is closed: a person's typing errors.
_MAX_FAILED_TOKENS: Final = 5
# Wrong tokens from one address; beyond them the first one closes the connection.
_FAILED_TOKENS_PER_S: Final = 0.2
_FAILED_TOKENS_BURST: Final = 20
_LOGGED_FAILURES_PER_S: Final = 1 / 60
# A query is milliseconds of CPU and has a pass of the event loop to itself; others are shorter.
_WORK_TURNS: Final = 8
# A ping takes some 30 µs.
_QUICK_TURNS: Final = 32
# What any connection may send, however much the others have sent.
_SMALL_BYTES: Final = 1 << 15
# A pass of the event loop costs some 50 µs.
_LONG_STEP_S: Final = 0.004


class TokenCheck:
    """Compares tokens in constant time; keeps only their digests, never the secrets."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._digests = [_digest(token) for token in tokens]
        if _digest("") in self._digests:
            raise ConfigurationError("an empty token would let everyone in; remove it")

    @property
    def required(self) -> bool:
        return bool(self._digests)

    def accepts(self, token: str) -> bool:
        sent = _digest(token)
        # All are compared before any answer, so the time reveals nothing.
        matches = [hmac.compare_digest(sent, digest) for digest in self._digests]
        return any(matches)


def open_to_strangers(host: str, has_tokens: bool) -> bool:
    """Whether other machines could query without a token."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        loopback = False
    return not (has_tokens or loopback)


def check_binding(host: str, has_tokens: bool, allow_unauthenticated_remote: bool) -> None:
    """Raises `ConfigurationError` if other machines could query without a token; where that is
    allowed, it logs a warning.
    """
    if not open_to_strangers(host, has_tokens):
        return
    if allow_unauthenticated_remote:
        _log.warning(
            "rpc_open_to_strangers",
            host=host,
            effect="whoever reaches this address can query the server without a token",
            remedy="ask for a token with --auth-tokens-env NAME_OF_VARIABLE",
        )
        return
    raise ConfigurationError(
        f"refusing to listen on {host or 'all interfaces'} without authentication: anyone who "
        "reaches this address could query the server. Listen on 127.0.0.1, ask for a token with "
        "--auth-tokens-env NAME_OF_VARIABLE, or, where the network itself is trusted, add "
        "--allow-unauthenticated-remote"
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class Channel(Protocol):
    """A connection on which the server may send notifications."""

    def push(self, document: bytes) -> bool:
        """Sends it; False if the client is gone, or is dropped because it reads too slowly."""


@dataclass(slots=True)
class Session:
    """The state of one connection between its requests. `peer` is `host:port`.

    `channel` is None where the server cannot send on its own. The server's own work, `of_server`,
    has no rate limit. Functions in `at_end` are called
    when the connection has ended.
    """

    peer: str = "local"
    authenticated: bool = False
    failed_tokens: int = 0
    barred: bool = False
    unsent: Unsent = field(default_factory=Unsent)
    channel: Channel | None = None
    of_server: bool = False
    at_end: list[Callable[[], None]] = field(default_factory=list)

    def end(self) -> None:
        for forget in self.at_end:
            forget()
        self.at_end.clear()


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
            full_after_s = self._burst / self._rate_per_s
            self._buckets = {
                peer: (level, since_s)
                for peer, (level, since_s) in self._buckets.items()
                if now_s - since_s < full_after_s
            }
        return 0 if granted else math.ceil((1 - level) / self._rate_per_s * 1000)


class Admission:
    """The gate of one server."""

    def __init__(self, config: RpcConfig, tokens: TokenCheck) -> None:
        self.draining = False
        self.clock = LoopClock()
        self.budget = ReplyBudget(config)
        self.tokens_required = tokens.required
        self.received_bytes = 0
        # Of all doors, those that are turned away included.
        self.connections = 0
        self._waiting_for_room: list[Callable[[], None]] = []
        self.max_connections = config.max_connections
        # Where the server speaks HTTP, if it does.
        self.http_address: tuple[str, int] | None = None
        self._max_received_bytes = config.max_received_mib << 20
        self._max_in_flight = config.max_in_flight
        self._in_flight = 0
        self._deadline_s = config.request_deadline_s
        rate = config.rate_limit_per_s
        self._limiter = RateLimiter(rate, config.rate_burst) if rate else None
        self._failures = RateLimiter(_FAILED_TOKENS_PER_S, _FAILED_TOKENS_BURST)
        self._failure_log = RateLimiter(_LOGGED_FAILURES_PER_S, 1)
        self._unlogged_failures = 0
        self._work = FairQueue(_WORK_TURNS)
        self._quick = FairQueue(_QUICK_TURNS)

    def admit(self, method: str, session: Session, received_s: float) -> None:
        """Checks draining, rate and authentication, in this order; raises the refusal."""
        if self.draining:
            raise errors.DrainingError
        # Before authentication, so that guessing tokens is limited as well.
        if self._limiter is not None and not session.of_server:
            address = session.peer.rpartition(":")[0]
            retry_after_ms = self._limiter.take(address, received_s)
            if retry_after_ms:
                raise errors.RateLimitedError(retry_after_ms)
        if self.tokens_required and not session.authenticated and method not in _OPEN_TO_ALL:
            raise errors.UnauthorizedError(
                'unauthorized; call rpc.authenticate with {"token": "…"} first on this connection'
            )

    def token_failed(self, session: Session, now_s: float) -> None:
        """Logs a wrong token, one line a minute for each address; too many bar the connection."""
        address = session.peer.rpartition(":")[0]
        session.failed_tokens += 1
        self._unlogged_failures += 1
        if self._failures.take(address, now_s) or session.failed_tokens >= _MAX_FAILED_TOKENS:
            session.barred = True
        if not self._failure_log.take(address, now_s):
            failures, self._unlogged_failures = self._unlogged_failures, 0
            _log.warning("rpc_authentication_failed", address=address, wrong_tokens=failures)

    @property
    def has_room(self) -> bool:
        """Whether one more connection may be open."""
        return self.connections < self.max_connections

    def connection_opened(self) -> None:
        self.connections += 1

    def connection_closed(self) -> None:
        self.connections -= 1
        waiting, self._waiting_for_room = self._waiting_for_room, []
        for resume in waiting:
            resume()

    def when_room(self, resume: Callable[[], None]) -> None:
        """Calls it when a connection has closed."""
        self._waiting_for_room.append(resume)

    def expect_memory(self, received_bytes: int) -> None:
        """Raises `OverloadedError` if a connection must not hold so much of what it sent."""
        if received_bytes > _SMALL_BYTES and self.received_bytes > self._max_received_bytes:
            raise errors.OverloadedError(
                f"overloaded: {self.received_bytes >> 20} MiB of requests wait; connect again and "
                "send smaller ones"
            )

    async def turn(
        self, session: Session, kind: str, *, quick: bool = False, calls: int = 1
    ) -> None:
        """Waits until the client has read its replies and it is its turn."""
        queue, writable = self._quick if quick else self._work, session.unsent.writable
        while True:
            await writable.wait()
            await queue.turn(session.peer, kind, calls)
            if writable.is_set():
                return

    async def pause(self, worked_s: float) -> None:
        """Lets pings and timers pass in the middle of a long turn."""
        if worked_s > _LONG_STEP_S:
            await self._work.extend()

    def has_share(self, session: Session) -> bool:
        """Whether what waits on a connection has its turn by the deadline, even if the server
        becomes half as fast meanwhile.
        """
        return self._work.within(session.peer, self._deadline_s / 2)

    def expect_turn(self, session: Session) -> None:
        """Raises `OverloadedError` if more waits on a connection than can have its turn in time."""
        if not self._work.within(session.peer, self._deadline_s):
            raise errors.OverloadedError(
                "overloaded: the calls of this batch already take the connection's share of the "
                f"next {self._deadline_s:g} s; send this call again in another batch"
            )

    def expect_room(self, session: Session) -> None:
        """Raises `OverloadedError` if the replies to a batch take too much memory."""
        if not self.budget.allows_more(session.unsent):
            raise errors.OverloadedError(
                f"overloaded: the replies of this batch take {session.unsent.batch_bytes >> 10} "
                "KiB; send this call again in another batch"
            )

    def enter(self) -> None:
        """Raises `OverloadedError`; otherwise the call counts as at work until `leave`."""
        if self._in_flight >= self._max_in_flight:
            raise errors.OverloadedError(
                f"overloaded: {self._in_flight} calls in flight; send again"
            )
        self._in_flight += 1

    def leave(self) -> None:
        self._in_flight -= 1
        self.end_turn()

    def end_turn(self, *, members: int = 0) -> None:
        """What follows is not work of the call whose turn it is, but its members if any."""
        self._work.end_work(also_calls=members)
        self._quick.end_work()
