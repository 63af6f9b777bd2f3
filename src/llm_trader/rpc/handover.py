"""Passes open connections from a process to its successor, so that their clients notice nothing.

A connection moves when it has nothing half received, half answered or half sent. What the client
sends meanwhile waits in the kernel. TLS and WebSocket have a state that cannot move.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from llm_trader.rpc.admission import Session

_NOTE_BYTES: Final = 4096
# A look at a thousand connections takes a millisecond.
_LOOK_EVERY_S: Final = 0.01


class Movable(Protocol):
    """A connection. `stays` is true if it can never move, whatever it waits for."""

    door: str
    session: Session

    @property
    def stays(self) -> bool: ...

    def can_move(self) -> bool: ...

    def descriptor(self) -> int: ...

    def leave(self) -> None:
        """Another process has it: it closes here, and the client does not notice."""


class MovedNote(msgspec.Struct):
    """What goes with a connection: its door, and the digest of the key of its client."""

    door: str
    key: bytes | None = None


class Handover:
    """A socket pair that the processes of a slot have in common, one after the other."""

    def __init__(self, sending: socket.socket, receiving: socket.socket) -> None:
        self._sending, self._receiving = sending, receiving
        for end in (sending, receiving):
            end.setblocking(False)

    @classmethod
    def new(cls) -> Handover:
        return cls(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    @classmethod
    def inherited(cls, descriptors: Sequence[int]) -> Handover:
        sending, receiving = descriptors
        return cls(socket.socket(fileno=sending), socket.socket(fileno=receiving))

    @property
    def descriptors(self) -> list[int]:
        return [self._sending.fileno(), self._receiving.fileno()]

    def close(self) -> None:
        self._sending.close()
        self._receiving.close()

    def receive_with(self, take: Callable[[socket.socket, MovedNote], None]) -> None:
        """Calls `take` with each connection that a predecessor sends."""
        asyncio.get_running_loop().add_reader(self._receiving.fileno(), self._receive, take)

    def stop_receiving(self) -> None:
        asyncio.get_running_loop().remove_reader(self._receiving.fileno())

    def move(self, connection: Movable) -> bool:
        """Whether it was sent; otherwise it stays where it is."""
        if connection.stays or not connection.can_move():
            return False
        principal = connection.session.principal
        note = MovedNote(connection.door, principal.digest if principal else None)
        passed = array.array("i", [connection.descriptor()])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]
        try:
            self._sending.sendmsg([msgspec.json.encode(note)], rights)
        except OSError:  # the successor is behind with taking them, or gone
            return False
        connection.leave()
        return True

    def _receive(self, take: Callable[[socket.socket, MovedNote], None]) -> None:
        with suppress(BlockingIOError):
            note, descriptors, _, _ = socket.recv_fds(self._receiving, _NOTE_BYTES, 1)
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
                connection = socket.socket(fileno=descriptor)
                connection.setblocking(False)
                take(connection, msgspec.json.decode(note, type=MovedNote))


async def move_all(
    handover: Handover, connections: Callable[[], Iterable[Movable]], timeout_s: float
) -> None:
    """Moves each connection as soon as it can; returns when none is left that could."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while True:
                left = [c for c in connections() if not handover.move(c) and not c.stays]
                if not left:
                    return
                await asyncio.sleep(_LOOK_EVERY_S)
