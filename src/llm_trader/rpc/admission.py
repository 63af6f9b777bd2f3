"""What the server lets in: where it may listen, keys, rate and load.

A call passes `admit` when it arrives, waits in `turn` until the clients before it are served, and
is at work between `enter` and `leave`.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc import errors
from llm_trader.rpc.client_limits import ClientLimits
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.fair_queue import FairQueue
from llm_trader.rpc.file_limit import connections_within_file_limit
from llm_trader.rpc.keys import KEY_BY_CALL, Access, KeyRing, Principal
from llm_trader.rpc.loop_clock import LoopClock
from llm_trader.rpc.reply_budget import ReplyBudget, Unsent
from llm_trader.rpc.token_buckets import TokenBuckets

_log = structlog.get_logger(__name__)

# Wrong keys on one connection before it is closed: a person's typing errors.
_MAX_FAILED_TOKENS: Final = 5
# Wrong keys from one address; beyond them the first one closes the connection.
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


def _client(session: Session, principal: Principal | None) -> str:
    """Whom the limits count for: a key, wherever it is used, or an address."""
    return f"address {session.address}" if principal is None else f"key {principal.id}"


def open_to_strangers(host: str, has_keys: bool) -> bool:
    """Whether other machines could query without a key."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        loopback = False
    return not (has_keys or loopback)


def check_binding(
    host: str, has_keys: bool, allow_unauthenticated_remote: bool, *, encrypted: bool = False
) -> None:
    """Raises `ConfigurationError` if other machines could query without a key; where that is
    allowed, or keys cross the network in the clear, it logs a warning.
    """
    if open_to_strangers(host, False) and has_keys and not encrypted:
        _log.warning(
            "rpc_not_encrypted",
            host=host,
            effect="whoever is on the way can read keys and answers",
            remedy="set serving.tls_certificate, or put a proxy that speaks TLS in front",
        )
    if not open_to_strangers(host, has_keys):
        return
    if allow_unauthenticated_remote:
        _log.warning(
            "rpc_open_to_strangers",
            host=host,
            effect="whoever reaches this address can query the server without a key",
            remedy="ask for a key with --keys-file FILE; llm-trader keys create makes one",
        )
        return
    raise ConfigurationError(
        f"refusing to listen on {host or 'all interfaces'} without authentication: anyone who "
        "reaches this address could query the server. Listen on 127.0.0.1, ask for a key with "
        "--keys-file FILE (llm-trader keys create NAME --keys-file FILE makes one) or "
        "--auth-tokens-env NAME_OF_VARIABLE, or, where the network itself is trusted, add "
        "--allow-unauthenticated-remote"
    )


class Channel(Protocol):
    """A connection on which the server may send notifications."""

    def push(self, document: bytes) -> bool:
        """Sends it; False if the client is gone, or is dropped because it reads too slowly."""


@dataclass(slots=True)
class Session:
    """The state of one connection between its requests. `peer` is `host:port`.

    `key_advice` tells a client that sent no key how to send one. `principal` is whom the
    connection's own key belongs to; `last_principal` is whom the last key of any call belongs to.
    `channel` is None where the server cannot send on its own. The server's own work, `of_server`,
    needs no key and has no limit. Functions in `at_end` are called when the connection has ended.
    """

    peer: str = "local"
    key_advice: str = KEY_BY_CALL
    principal: Principal | None = None
    last_principal: Principal | None = None
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

    @property
    def address(self) -> str:
        return self.peer.rpartition(":")[0]


class Admission:
    """The gate of one server."""

    def __init__(
        self, config: RpcConfig, keys: KeyRing, limits: ClientLimits | None = None
    ) -> None:
        self.draining = False
        self.config = config
        self.clock = LoopClock()
        self.budget = ReplyBudget(config)
        self.keys = keys
        self.received_bytes = 0
        # Of all doors, those that are turned away included.
        self.connections = 0
        self._connections_from: Counter[str] = Counter()
        self._waiting_for_room: list[Callable[[], None]] = []
        self.max_connections = config.max_connections
        # Called with each connection that has answered; it may move to another process.
        self.at_rest: Callable[[Any], object] = lambda connection: None
        # Where the server speaks HTTP, if it does.
        self.http_address: tuple[str, int] | None = None
        self._in_flight = 0
        self._limits = limits or ClientLimits(config)
        self._failures = TokenBuckets(_FAILED_TOKENS_PER_S, _FAILED_TOKENS_BURST)
        self._failure_log = TokenBuckets(_LOGGED_FAILURES_PER_S, 1)
        self._unlogged_failures = 0
        self._work = FairQueue(_WORK_TURNS)
        self._quick = FairQueue(_QUICK_TURNS)

    def configure(self, config: RpcConfig) -> None:
        """Changes the limits of a running server: of new connections, and of all requests."""
        self.max_connections = connections_within_file_limit(
            config.max_connections, open_now=self.connections
        )
        self.config = config
        self.budget.configure(config)
        self._limits.configure(config)

    @property
    def in_flight(self) -> int:
        """The number of calls at work."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """The number of calls that wait for their turn."""
        return self._work.waiting + self._quick.waiting

    def identify(self, token: str, session: Session, now_s: float) -> Principal:
        """Whom a token belongs to. Raises `UnauthorizedError`; too many wrong tokens bar the
        connection, and one line a minute for each address is logged.
        """
        if session.barred:
            raise self._refused("too many wrong keys: connect again", session, now_s)
        principal = self.keys.find(token)
        if principal is None:
            self._token_failed(session, now_s)
            reason = "the server does not know this key, or it has expired or was revoked"
            raise self._refused(reason, session, now_s)
        session.last_principal = principal
        return principal

    def _refused(self, reason: str, session: Session, now_s: float) -> errors.UnauthorizedError:
        """A refusal of a key; it says when to connect again if it ends the connection."""
        details = {}
        if session.barred:
            details["retry_after_ms"] = self._failures.retry_after_ms(session.address, now_s)
        return errors.UnauthorizedError(f"unauthorized; {reason}", **details)

    def principal_of(self, token: str | None, session: Session, now_s: float) -> Principal | None:
        """Who calls: the owner of the call's own token, else of the connection's.

        None where no key is asked for, or none was sent. Raises `UnauthorizedError`.
        """
        if not self.keys.required:
            return None
        if token is not None:
            return self.identify(token, session, now_s)
        return session.principal and self.keys.current(session.principal)

    def is_known(self, session: Session) -> bool:
        """Whether a connection may stay: it sent a valid key, or none is asked for."""
        last = session.last_principal
        return not self.keys.required or (last is not None and self.keys.current(last) is not None)

    async def admit(
        self, access: Access, session: Session, principal: Principal | None, received_s: float
    ) -> None:
        """Checks draining, rate and scope, in this order; raises the refusal."""
        if self.draining:
            raise errors.DrainingError
        if session.of_server:
            return
        # Before authentication, so that guessing keys is limited as well. Open methods do not wait
        # for Redis: what comes behind `rpc.authenticate` in one packet needs its outcome.
        client = _client(session, principal)
        await self._limits.take(client, received_s, share=access != "open")
        if access == "open" or not self.keys.required:
            return
        if principal is None:
            raise errors.UnauthorizedError(f"unauthorized; {session.key_advice}")
        if not principal.may(access):
            has = ", ".join(sorted(principal.scopes)) or "none"
            raise errors.UnauthorizedError(
                f"unauthorized; this method needs a key with the scope {access}, "
                f"and the key {principal.name!r} has: {has}",
                missing_scope=access,
            )

    def _token_failed(self, session: Session, now_s: float) -> None:
        address = session.address
        session.failed_tokens += 1
        self._unlogged_failures += 1
        if self._failures.take(address, now_s) or session.failed_tokens >= _MAX_FAILED_TOKENS:
            session.barred = True
        if not self._failure_log.take(address, now_s):
            failures, self._unlogged_failures = self._unlogged_failures, 0
            _log.warning("rpc_authentication_failed", address=address, wrong_tokens=failures)

    def connection_opened(self, address: str) -> LlmTraderError | None:
        """Counts a connection until `connection_closed`; returns why to turn it away, if so."""
        is_full = self.connections >= self.max_connections
        self.connections += 1
        self._connections_from[address] += 1
        if self.draining:
            return errors.DrainingError()
        if is_full:
            return errors.OverloadedError(
                f"overloaded: {self.max_connections} connections are open; connect again later"
            )
        if not self.has_room_for(address, 0):
            return errors.OverloadedError(
                f"overloaded: {self.config.max_connections_per_address} connections of this "
                "address are open; close some of them"
            )
        return None

    def has_room_for(self, address: str, more: int) -> bool:
        """Whether so many more connections of an address may be open."""
        return self._connections_from[address] + more <= self.config.max_connections_per_address

    def connection_closed(self, address: str) -> None:
        self.connections -= 1
        self._connections_from[address] -= 1
        if not self._connections_from[address]:
            del self._connections_from[address]
        waiting, self._waiting_for_room = self._waiting_for_room, []
        for resume in waiting:
            resume()

    def when_room(self, resume: Callable[[], None]) -> None:
        """Calls it when a connection has closed."""
        self._waiting_for_room.append(resume)

    def expect_memory(self, received_bytes: int) -> None:
        """Raises `OverloadedError` if a connection must not hold so much of what it sent."""
        max_bytes = self.config.max_received_mib << 20
        if received_bytes > _SMALL_BYTES and self.received_bytes > max_bytes:
            raise errors.OverloadedError(
                f"overloaded: {self.received_bytes >> 20} MiB of requests wait; connect again and "
                "send smaller ones"
            )

    async def turn(
        self,
        session: Session,
        kind: str,
        *,
        principal: Principal | None = None,
        quick: bool = False,
        calls: int = 1,
    ) -> None:
        """Waits until the client has read its replies and it is its turn.

        Raises `RateLimitedError` if the client's working time was used up meanwhile.
        """
        queue, writable = self._quick if quick else self._work, session.unsent.writable
        client = _client(session, principal)
        is_limited = not session.of_server
        charge = self._limits.charge_to(client, time.monotonic) if is_limited else None
        while True:
            await writable.wait()
            await queue.turn(session.peer, kind, calls, charge)
            if writable.is_set():
                break
        try:
            if is_limited:
                self._limits.expect_work(client, time.monotonic())
        except errors.RateLimitedError:
            self.end_turn()
            raise

    async def pause(self, worked_s: float) -> bool:
        """Lets pings and timers pass in the middle of a long turn; whether they did."""
        if worked_s <= _LONG_STEP_S:
            return False
        await self._work.extend()
        return True

    def has_share(self, session: Session) -> bool:
        """Whether what waits on a connection has its turn by the deadline, even if the server
        becomes half as fast meanwhile.
        """
        return self._work.within(session.peer, self.config.request_deadline_s / 2)

    def expect_turn(self, session: Session) -> None:
        """Raises `OverloadedError` if more waits on a connection than can have its turn in time."""
        if not self._work.within(session.peer, self.config.request_deadline_s):
            raise errors.OverloadedError(
                "overloaded: the calls of this batch already take the connection's share of the "
                f"next {self.config.request_deadline_s:g} s; send this call again in another batch"
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
        if self._in_flight >= self.config.max_in_flight:
            raise errors.OverloadedError(
                f"overloaded: {self._in_flight} calls are at work already; send this one again"
            )
        self._in_flight += 1

    def leave(self) -> None:
        self._in_flight -= 1
        self.end_turn()

    def end_turn(self, *, members: int = 0) -> None:
        """What follows is not work of the call whose turn it is, but its members if any."""
        self._work.end_work(also_calls=members)
        self._quick.end_work()
