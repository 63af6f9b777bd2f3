"""One queue for the work of all clients, so that none can keep the others waiting.

1. A pass of the event loop grants some turns; they begin until a slice of time is used, and the
   others wait for the next pass. So a long turn has a pass to itself. Between two passes the loop
   reads, writes and fires timers: deadlines, cancellation and signals work under any load.
2. The next turn goes to the address, then to the backlog, then to the connection that has used the
   least time: connections with about as many turns waiting are a backlog, and the backlogs of an
   address share alike. So asking one thing at a time is quick beside any number of connections
   that send ahead. Who comes back after a pause starts level with those who are being served.
3. A turn costs the time that it works, and what any call costs. The costs of earlier turns of a
   kind estimate those that wait, so that a connection takes no more than its share of a time limit.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

# A cost moves the estimate of its kind by this share, so that one slow call does not decide.
_ESTIMATE_STEP: Final = 0.1
# A pass costs some 50 µs, so short turns share one, and a ping waits little longer for that.
_SLICE_S: Final = 0.002
# Reading a call, its task and sending its reply. At a tenth, a flood of calls that are answered
# in microseconds takes nearly all of the time.
_HANDLING_S: Final = 1e-4
# After a costly turn the others of its backlog, who did not have it, wait no longer than this.
_MOST_DEBT_S: Final = 0.05
# What is remembered of clients that do not wait; some MB.
_MAX_REMEMBERED: Final = 4096


class _Path(NamedTuple):
    """Where a connection, `host:port`, stands among those who wait."""

    address: str
    backlog: int
    peer: str


class _Turn:
    __slots__ = ("charge", "estimate_s", "granted", "kind", "path", "since_s", "worked_s")

    def __init__(
        self, path: _Path, kind: str, estimate_s: float, charge: Callable[[float], None] | None
    ) -> None:
        self.path = path
        self.charge = charge
        self.kind = kind
        self.estimate_s = estimate_s
        self.worked_s = 0.0
        self.since_s = 0.0
        self.granted: asyncio.Future[None] | None = None


class _Line:
    """The waiting turns of one connection."""

    __slots__ = ("path", "queued_s", "turns")

    def __init__(self, path: _Path) -> None:
        self.path = path
        self.turns: deque[_Turn] = deque()
        self.queued_s = 0.0


class _Shares:
    """Some who wait, and the time that each of them used: start-time fair queueing."""

    def __init__(self, most_debt_s: float) -> None:
        self.waiting: dict[object, None] = {}
        self._most_debt_s = most_debt_s
        self._used_s: dict[object, float] = {}
        self._level_s = 0.0

    def least(self) -> object:
        """Who waits and used the least time; the first of equals."""
        name = min(self.waiting, key=self._used_s.__getitem__)
        self._level_s = max(self._level_s, self._used_s[name])
        return name

    def join(self, name: object) -> None:
        self.waiting[name] = None
        self._used_s[name] = max(self._used_s.get(name, 0.0), self._level_s)

    def charge(self, name: object, cost_s: float) -> None:
        used_s = max(self._used_s.get(name, 0.0), self._level_s) + cost_s
        self._used_s[name] = min(used_s, self._level_s + self._most_debt_s)
        if len(self._used_s) > _MAX_REMEMBERED + len(self.waiting):
            self._used_s = {
                known: used_s
                for known, used_s in self._used_s.items()
                if known in self.waiting or used_s > self._level_s
            }


class FairQueue:
    """Grants turns by the least time used, at most `turns_per_pass` in a pass of the event loop."""

    def __init__(self, turns_per_pass: int) -> None:
        self._turns_per_pass = turns_per_pass
        self._left = turns_per_pass
        self._passing = False
        self._lines: dict[str, _Line] = {}
        # Addresses at (), the backlogs of an address at (address,), connections below both.
        self._shares: dict[tuple[object, ...], _Shares] = {}
        self._begun: list[_Turn] = []
        self._slice_ends_s = 0.0
        self._working: _Turn | None = None
        self._extended: list[asyncio.Future[None]] = []
        self._estimates_s: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """The number of turns that are waited for."""
        return sum(len(line.turns) for line in self._lines.values())

    def within(self, peer: str, limit_s: float) -> bool:
        """Whether what the peer has waiting fits in a time, if all who wait have their shares."""
        line = self._lines.get(peer)
        if line is None:
            return True
        needed_s = line.queued_s
        for depth in range(len(line.path)):
            needed_s *= len(self._shares[line.path[:depth]].waiting)
        return needed_s <= limit_s

    async def turn(
        self,
        peer: str,
        kind: str,
        calls: int = 1,
        charge: Callable[[float], None] | None = None,
    ) -> None:
        """Returns when it is the turn of the peer, `host:port`. Cancelling gives up the turn.

        `calls` is how many will wait after a turn that only begins them. `charge` is called with
        the cost of the turn in seconds once it is over.
        """
        path = _Path(peer.rpartition(":")[0], _backlog(calls), peer)
        turn = _Turn(path, kind, self._estimates_s.get(kind, 0.0), charge)
        if self._left and not self._lines and not self._slice_is_used():
            self._left -= 1
            self._begin(turn)
            return
        self._join(turn)
        try:
            await self._grant(turn)
            while self._slice_is_used():
                self._join(turn, first=True)
                await self._grant(turn)
        except asyncio.CancelledError:
            self._give_up(turn)
            raise
        self._begin(turn)

    async def extend(self) -> None:
        """Goes on with a turn in the next pass; until then nobody has another."""
        turn = self._working
        self.end_work()
        extended = asyncio.get_running_loop().create_future()
        self._extended.append(extended)
        self._wake()
        await extended
        if turn is not None:
            self._work(turn)

    def end_work(self, *, also_calls: int = 0) -> None:
        """What follows is not the work of the turn that works now, but the calls that it made."""
        turn = self._working
        if turn is not None:
            turn.worked_s += time.monotonic() - turn.since_s + also_calls * _HANDLING_S
            self._slice_ends_s -= also_calls * _HANDLING_S
            self._working = None

    async def _grant(self, turn: _Turn) -> None:
        turn.granted = asyncio.get_running_loop().create_future()
        await turn.granted

    # --- Who waits

    def _join(self, turn: _Turn, *, first: bool = False) -> None:
        line = self._lines.get(turn.path.peer)
        if line is None:
            line = self._lines[turn.path.peer] = _Line(turn.path)
            self._enter(line)
        if first:
            line.turns.appendleft(turn)
        else:
            line.turns.append(turn)
        line.queued_s += turn.estimate_s
        # Until its line is empty, a connection stays where its longest one belongs.
        backlog = max(turn.path.backlog, _backlog(len(line.turns)))
        if backlog > line.path.backlog:
            self._exit(line)
            line.path = line.path._replace(backlog=backlog)
            self._enter(line)
        self._wake()

    def _left_line(self, line: _Line, turn: _Turn) -> None:
        line.queued_s -= turn.estimate_s
        if not line.turns:
            del self._lines[line.path.peer]
            self._exit(line)

    def _give_up(self, turn: _Turn) -> None:
        line = self._lines.get(turn.path.peer)
        if line is not None and turn in line.turns:
            line.turns.remove(turn)
            self._left_line(line, turn)

    def _enter(self, line: _Line) -> None:
        for depth in reversed(range(len(line.path))):
            shares = self._shares_at(line.path[:depth])
            if line.path[depth] in shares.waiting:
                return
            shares.join(line.path[depth])

    def _shares_at(self, path: tuple[object, ...]) -> _Shares:
        shares = self._shares.get(path)
        if shares is None:
            shares = _Shares(_MOST_DEBT_S if len(path) == 1 else math.inf)
            self._shares[path] = shares
        return shares

    def _exit(self, line: _Line) -> None:
        for depth in reversed(range(len(line.path))):
            shares = self._shares[line.path[:depth]]
            del shares.waiting[line.path[depth]]
            if shares.waiting:
                return

    def _next(self) -> _Turn:
        path: tuple[object, ...] = ()
        while len(path) < len(_Path._fields):
            path = (*path, self._shares[path].least())
        line = self._lines[str(path[-1])]
        turn = line.turns.popleft()
        turn.path = line.path
        self._left_line(line, turn)
        return turn

    # --- What works

    def _begin(self, turn: _Turn) -> None:
        self.end_work()
        self._work(turn)
        if not self._begun:
            self._slice_ends_s = turn.since_s + _SLICE_S
        self._begun.append(turn)
        self._wake()

    def _work(self, turn: _Turn) -> None:
        turn.since_s = time.monotonic()
        self._working = turn

    def _slice_is_used(self) -> bool:
        return bool(self._begun) and time.monotonic() > self._slice_ends_s

    def _wake(self) -> None:
        if not self._passing:
            self._passing = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """Accounts for the turns of the last pass, and grants the next ones."""
        self._passing = False
        self.end_work()
        extended, self._extended = self._extended, []
        if any(not future.done() for future in extended):
            for future in extended:
                if not future.done():
                    future.set_result(None)
            self._wake()
            return
        # After a long turn another one is likely, and granting more would be in vain.
        self._left = 1 if self._slice_is_used() else self._turns_per_pass
        self._charge()
        while self._left and self._lines:
            turn = self._next()
            if turn.granted is not None and not turn.granted.done():  # else it is cancelled
                self._left -= 1
                turn.granted.set_result(None)
                self._wake()

    def _charge(self) -> None:
        for turn in self._begun:
            known_s = self._estimates_s.get(turn.kind, turn.worked_s)
            step_s = _ESTIMATE_STEP * (turn.worked_s - known_s)
            self._estimates_s[turn.kind] = known_s + step_s
            if turn.charge is not None:
                turn.charge(turn.worked_s + _HANDLING_S)
            if self._lines:
                for depth, name in enumerate(turn.path):
                    shares = self._shares_at(turn.path[:depth])
                    shares.charge(name, turn.worked_s + _HANDLING_S)
        self._begun.clear()
        if not self._lines:  # all are equal again
            self._shares.clear()
        elif len(self._shares) > _MAX_REMEMBERED:
            self._shares = {path: s for path, s in self._shares.items() if s.waiting}


def _backlog(calls: int) -> int:
    """Alike for about as many calls: 1, up to 7, up to 31, up to 127."""
    return calls.bit_length() // 2
