"""Accepts connections: many in a pass of the event loop, and none while there is no room.

asyncio and uvloop accept in their own ways, and both spin where the process may open no more files.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.tls import ServerTls

# Connections that may wait to be accepted; a burst beyond it sees delays of a second or more.
_BACKLOG: Final = 512
# Newcomers wait for few passes of a busy loop, and a pass takes some milliseconds for them.
_ACCEPTED_PER_PASS: Final = 64
_RETRY_S: Final = 0.5
# Connections that are told why they are turned away and close in a moment.
_TURNED_AWAY: Final = 32
_WARN_AGAIN_S: Final = 60.0
# A handshake takes three trips over the network at most.
_HANDSHAKE_S: Final = 10.0
_SHUTDOWN_S: Final = 1.0
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = structlog.get_logger(__name__)


class Listener:
    """Listens on all addresses of a host; port 0 takes a free one.

    Without room at the gate, accepting pauses until `resume`.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.BaseProtocol],
        gate: Admission,
        tls: ServerTls | None = None,
    ) -> None:
        self._tls = tls
        self._protocol = protocol
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._listening = False
        self._connecting: set[asyncio.Task[object]] = set()
        self._connecting_from: Counter[str] = Counter()
        self._warned_s: float | None = None

    def start(self, host: str, port: int, *, remedy: str) -> tuple[str, int]:
        """The host and port it listens on. Raises `ConfigurationError` if it cannot."""
        self._sockets = bound_sockets(host, port, remedy=remedy)
        try:
            for listening in self._sockets:
                listen(listening)
        except OSError as error:
            self.close()
            raise _cannot_listen(host, port, error, remedy) from error
        self.resume()
        return address_of(self._sockets)

    def use(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts from these, which listen already, and from no others."""
        self._pause()
        self._sockets = list(sockets)
        self.resume()

    def close(self) -> None:
        self._pause()
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()
        if self._tls is not None:  # those whose handshakes are not done
            for task in self._connecting:
                task.cancel()

    def resume(self) -> None:
        if not self._listening and self._sockets:
            self._listening = True
            for listening in self._sockets:
                self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            for listening in self._sockets:
                self._loop.remove_reader(listening.fileno())

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_PER_PASS):
            connecting = len(self._connecting)
            if self._gate.connections + connecting >= self._gate.max_connections + _TURNED_AWAY:
                self._pause()
                self._gate.when_room(self.resume)
                self._warn("no connection has room")
                return
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause()
                self._warn(error.strerror or str(error))
                self._loop.call_later(_RETRY_S, self.resume)
                return
            connection.setblocking(False)
            self._start(connection, str(peer[0]))

    def _start(self, connection: socket.socket, address: str) -> None:
        connecting = self._connecting_from[address]
        # Before a handshake nothing can be said, and each takes a place for seconds.
        if self._tls is not None and not self._gate.has_room_for(address, connecting + 1):
            connection.close()
            return
        self._connecting_from[address] += 1
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(functools.partial(self._started, address))

    def _started(self, address: str, task: asyncio.Task[object]) -> None:
        self._connecting.discard(task)
        self._connecting_from[address] -= 1
        if not self._connecting_from[address]:
            del self._connecting_from[address]

    async def _connect(self, connection: socket.socket) -> None:
        connect, protocol = self._loop.connect_accepted_socket, self._protocol
        try:
            if self._tls is None:
                await connect(protocol, connection)
            else:
                await connect(
                    protocol,
                    connection,
                    ssl=self._tls.context,
                    ssl_handshake_timeout=_HANDSHAKE_S,
                    ssl_shutdown_timeout=_SHUTDOWN_S,
                )
        except OSError:  # the client has gone already, or does not speak TLS as it should
            connection.close()

    def _warn(self, reason: str) -> None:
        now_s = self._loop.time()
        if self._warned_s is None or now_s - self._warned_s >= _WARN_AGAIN_S:
            self._warned_s = now_s
            _log.warning(
                "rpc_accepting_paused",
                reason=reason,
                effect="new connections wait until others end",
                remedy="raise the limit of open files (ulimit -n), or lower max_connections",
            )


def bound_sockets(
    host: str, port: int, *, remedy: str, shared: bool = False
) -> list[socket.socket]:
    """A socket for each address of a host, which does not listen yet; port 0 takes a free one.

    Several processes may bind `shared` ones. Raises `ConfigurationError`.
    """
    sockets: list[socket.socket] = []
    try:
        entries = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, address in dict.fromkeys((entry[0], entry[4]) for entry in entries):
            sockets.append(_bound(family, address, shared=shared))
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise _cannot_listen(host, port, error, remedy) from error
    return sockets


def listen(bound: socket.socket) -> None:
    bound.listen(_BACKLOG)


def address_of(sockets: Sequence[socket.socket]) -> tuple[str, int]:
    host, port = sockets[0].getsockname()[:2]
    return host, port


def _cannot_listen(host: str, port: int, error: OSError, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot listen on {host}:{port}: {error.strerror or error}; "
        f"is another server running there? {remedy}"
    )


def _bound(family: int, address: Sequence[object], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(tuple(address))
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound
