"""Listening sockets that several processes have in common.

A parent binds them, for each slot of a process one on each address. The kernel deals new
connections to the slots, and any process may accept for any slot. So no connection is lost or waits
while the process of a slot is replaced.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.listener import address_of, bound_sockets, listen

TCP: Final = "tcp"
HTTP: Final = "http"


class SlotSockets:
    """Open until `close`. `doors` has the sockets by door and slot."""

    def __init__(self, doors: Mapping[str, Sequence[Sequence[socket.socket]]]) -> None:
        self._doors = doors

    @classmethod
    def bound(cls, config: RpcConfig, slots: int) -> SlotSockets:
        """Binds them; they listen after `listen` only. Raises `ConfigurationError`."""
        ports = {TCP: config.port} | ({HTTP: config.port_for_http} if config.http else {})
        remedy = "choose another port or stop it"
        doors: dict[str, list[list[socket.socket]]] = {}
        try:
            for door, port in ports.items():
                if port:
                    # Another server would get a part of the connections, and nobody would notice.
                    for probe in bound_sockets(config.host, port, remedy=remedy):
                        probe.close()
                doors[door] = []
                for _ in range(slots):
                    sockets = bound_sockets(config.host, port, remedy=remedy, shared=True)
                    doors[door].append(sockets)
                    port = address_of(sockets)[1]
        except BaseException:
            cls(doors).close()
            raise
        return cls(doors)

    @classmethod
    def inherited(cls, descriptors: Mapping[str, Sequence[Sequence[int]]]) -> SlotSockets:
        """The sockets of a parent, in a process that it started."""
        return cls(
            {
                door: [[socket.socket(fileno=fd) for fd in slot] for slot in slots]
                for door, slots in descriptors.items()
            }
        )

    @property
    def descriptors(self) -> dict[str, list[list[int]]]:
        return {
            door: [[opened.fileno() for opened in slot] for slot in slots]
            for door, slots in self._doors.items()
        }

    def __contains__(self, door: str) -> bool:
        return door in self._doors

    def of(self, door: str, slots: Iterable[int]) -> list[socket.socket]:
        return [opened for slot in slots for opened in self._doors[door][slot]]

    def address(self, door: str) -> tuple[str, int]:
        return address_of(self._doors[door][0])

    def listen(self) -> None:
        for opened in self._all():
            listen(opened)

    def close(self) -> None:
        for opened in self._all():
            opened.close()

    def _all(self) -> list[socket.socket]:
        return [opened for slots in self._doors.values() for slot in slots for opened in slot]
