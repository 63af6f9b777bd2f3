"""One queue for the work of all clients, so that none can keep the others waiting.

1. A pass of the event loop grants some turns; they begin until a slice of time is used, and the
   others wait for the next pass. So a long turn has a pass to itself. Between two passes the loop
   reads, writes and fires timers: deadlines, cancellation and signals work under any load.
2. The next turn goes to the address, and of its connections to the one, that has used the least
   time. Who comes back after a pause starts level with those who are being served. Time counts
   more for a connection that has more turns waiting, so asking one thing at a time is quick.
3. The time until the next turn begins is the cost of a turn. The costs of earlier turns of a kind
   estimate those that wait, so that a connection takes no more than its share of a time limit.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final, Generic, TypeVar

# A cost moves the estimate of its kind by this share, so that one slow call does not decide.
_ESTIMATE_STEP: Final = 0.1
# A pass costs some 50 µs, so short turns share one, and a ping waits little longer for that.
_SLICE_S: Final = 0.002
# Even a turn that takes no time counts, so that turns rotate.
_LEAST_COST_S: Final = 1e-5
# At 4, one question at a time takes 20 x its lone time beside some 60 flooding connections.
_MOST_WEIGHT: Final = 4
# Clients that are remembered for the time they used; about 1 MB of them.
_MAX_IDLE: Final = 4096

Line = TypeVar("Line")


class _Turn:
    __slots__ = ("estimate_s", "granted", "kind", "peer", "weight")

    def __init__(self, peer: str, kind: str, estimate_s: float) -> None:
        self.peer = peer
        self.kind = kind
        self.estimate_s = estimate_s
        self.weight = 1
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Shares(Generic[Line]):
    """What waits, by client, and the time that each client used: start-time fair queueing."""

    def __init__(self) -> None:
        self.waiting: dict[str, Line] = {}
        self._used_s: dict[str, float] = {}
        self._level_s = 0.0

    def least(self) -> str:
        """The waiting client that used the least time; the first of equals."""
        name = min(self.waiting, key=self._used_s.__getitem__)
        self._level_s = max(self._level_s, self._used_s[name])
        return name

    def join(self, name: str, line: Line) -> None:
        self.waiting[name] = line
        self._used_s[name] = max(self._used_s.get(name, 0.0), self._level_s)

    def charge(self, name: str, cost_s: float) -> None:
        self._used_s[name] = max(self._used_s.get(name, 0.0), self._level_s) + cost_s
        if len(self._used_s) > _MAX_IDLE + len(self.waiting):
            self._used_s = {
                known: used_s
                for known, used_s in self._used_s.items()
                if known in self.waiting or used_s > self._level_s
            }


class _Connections:
    """The waiting turns of one address, by connection."""

    def __init__(self) -> None:
        self.shares: _Shares[deque[_Turn]] = _Shares()
        self.queued_s: dict[str, float] = {}


class FairQueue:
    """Grants turns by the least time used, at most `turns_per_pass` in a pass of the event loop."""

    def __init__(self, turns_per_pass: int) -> None:
        self._turns_per_pass = turns_per_pass
        self._left = turns_per_pass
        self._passing = False
        self._addresses: _Shares[_Connections] = _Shares()
        self._connections: dict[str, _Connections] = {}
        self._lines = 0
        # Peer, kind, weight and beginning of the turns of this pass.
        self._begun: list[tuple[str, str, int, float]] = []
        self._extended: list[asyncio.Future[None]] = []
        self._estimates_s: dict[str, float] = {}

    def within(self, peer: str, limit_s: float) -> bool:
        """Whether what the peer has waiting fits in a time, if all who wait have equal shares."""
        connections = self._connections.get(_address_of(peer))
        queued_s = connections.queued_s.get(peer, 0.0) if connections else 0.0
        return queued_s * self._lines <= limit_s

    async def turn(self, peer: str, kind: str) -> None:
        """Returns when it is the turn of the peer, `host:port`. Cancelling gives up the turn."""
        if self._left and not self._lines and not self._slice_is_used():
            self._left -= 1
            self._begin(peer, kind, 1)
            return
        turn = _Turn(peer, kind, self._estimates_s.get(kind, 0.0))
        self._join(turn)
        try:
            await turn.granted
            while self._slice_is_used():
                turn.granted = asyncio.get_running_loop().create_future()
                self._join(turn, first=True)
                await turn.granted
        finally:
            if turn.granted.cancelled():
                self._give_up(turn)
        self._begin(peer, kind, turn.weight)

    async def extend(self) -> None:
        """Goes on with a turn in the next pass; until then nobody has another."""
        extended = asyncio.get_running_loop().create_future()
        self._extended.append(extended)
        self._wake()
        await extended

    def _join(self, turn: _Turn, *, first: bool = False) -> None:
        address = _address_of(turn.peer)
        connections = self._connections.setdefault(address, _Connections())
        if address not in self._addresses.waiting:
            self._addresses.join(address, connections)
        shares = connections.shares
        if turn.peer not in shares.waiting:
            shares.join(turn.peer, deque())
            self._lines += 1
        line = shares.waiting[turn.peer]
        if first:
            line.appendleft(turn)
        else:
            line.append(turn)
        queued_s = connections.queued_s.get(turn.peer, 0.0)
        connections.queued_s[turn.peer] = queued_s + turn.estimate_s
        self._wake()

    def _leave(self, turn: _Turn) -> None:
        """After a turn left its line: an empty line, and an address without lines, wait no more."""
        address = _address_of(turn.peer)
        connections = self._connections[address]
        connections.queued_s[turn.peer] -= turn.estimate_s
        if not connections.shares.waiting[turn.peer]:
            del connections.shares.waiting[turn.peer], connections.queued_s[turn.peer]
            self._lines -= 1
        if not connections.shares.waiting:
            del self._addresses.waiting[address]

    def _give_up(self, turn: _Turn) -> None:
        connections = self._connections.get(_address_of(turn.peer))
        line = connections.shares.waiting.get(turn.peer) if connections else None
        if line is not None and turn in line:
            line.remove(turn)
            self._leave(turn)

    def _begin(self, peer: str, kind: str, weight: int) -> None:
        self._begun.append((peer, kind, weight, time.monotonic()))
        self._wake()

    def _slice_is_used(self) -> bool:
        return bool(self._begun) and time.monotonic() - self._begun[0][3] > _SLICE_S

    def _wake(self) -> None:
        if not self._passing:
            self._passing = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """Accounts for the turns of the last pass, and grants the next ones."""
        self._passing = False
        if any(not extended.done() for extended in self._extended):
            for extended in self._extended:
                if not extended.done():
                    extended.set_result(None)
            self._extended.clear()
            self._wake()
            return
        self._extended.clear()
        # After a long turn another one is likely, and granting more would be in vain.
        self._left = 1 if self._slice_is_used() else self._turns_per_pass
        idle = not self._begun
        self._charge()
        while self._left and self._lines:
            turn = self._next()
            if not turn.granted.done():  # else cancelled in this very pass
                self._left -= 1
                turn.granted.set_result(None)
                idle = False
        if not idle:
            self._wake()
        elif not self._lines:  # all are equal again
            self._connections.clear()
            self._addresses = _Shares()

    def _next(self) -> _Turn:
        shares = self._addresses.waiting[self._addresses.least()].shares
        line = shares.waiting[shares.least()]
        turn = line.popleft()
        turn.weight = min(len(line) + 1, _MOST_WEIGHT)
        self._leave(turn)
        return turn

    def _charge(self) -> None:
        now_s = time.monotonic()
        for peer, kind, weight, begun_s in reversed(self._begun):
            cost_s, now_s = now_s - begun_s, begun_s
            known_s = self._estimates_s.get(kind, cost_s)
            self._estimates_s[kind] = known_s + _ESTIMATE_STEP * (cost_s - known_s)
            address = _address_of(peer)
            self._addresses.charge(address, max(cost_s, _LEAST_COST_S))
            connections = self._connections.setdefault(address, _Connections())
            connections.shares.charge(peer, max(cost_s, _LEAST_COST_S) * weight)
        self._begun.clear()
        if len(self._connections) > _MAX_IDLE + len(self._addresses.waiting):
            self._connections = dict(self._addresses.waiting)


def _address_of(peer: str) -> str:
    return peer.rpartition(":")[0]
