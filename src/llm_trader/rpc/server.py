"""The JSON-RPC server over TCP: listens, keeps its connections, and stops without losing work.

Other doors, such as HTTP, open and close with it and share its gate. While it stops, it refuses new
connections and requests as draining, finishes and sends running answers for up to
`drain_timeout_s`, and then closes every connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol, TypeVar

import structlog

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc import envelope
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.connection import Connection
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.errors import PROTOCOL_ERRORS, OverloadedError
from llm_trader.rpc.file_limit import connections_within_file_limit
from llm_trader.rpc.handover import Handover, Movable, MovedNote, move_all
from llm_trader.rpc.keys import KeyRing, Principal
from llm_trader.rpc.listener import Listener
from llm_trader.rpc.slot_sockets import TCP, SlotSockets
from llm_trader.rpc.tls import ServerTls

T = TypeVar("T")

# What closing takes beyond `drain_timeout_s`: clients have a moment to read the last replies.
_CLOSING_S: Final = 1.5


class Door(Protocol):
    """Another transport into the same gate."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Finishes running answers, for up to `drain_timeout_s`; the gate is draining already."""

    def use_slots(self, slots: Sequence[int]) -> None:
        """Accepts what comes to these slots of the sockets that a parent opened."""

    def connections(self) -> Sequence[Movable]: ...

    def adopted(self, key: Principal | None) -> asyncio.BaseProtocol:
        """A connection that another process has opened."""


class RpcServer:
    """Serves a dispatcher on the config's host and port; port 0 takes a free one, see `address`.

    Without a `gate` it makes its own. With the `sockets` of a parent it accepts nothing until
    `use_slots`.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        config: RpcConfig,
        keys: KeyRing | None = None,
        *,
        gate: Admission | None = None,
        doors: Sequence[Door] = (),
        tls: ServerTls | None = None,
        sockets: SlotSockets | None = None,
    ) -> None:
        self._sockets = sockets
        self._dispatcher = dispatcher
        self._config = config
        self._gate = gate or Admission(config, keys or KeyRing())
        self._doors = doors
        self._tls = tls
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._listener: Listener | None = None
        self._address: tuple[str, int] | None = None
        self._log = structlog.get_logger(__name__).bind()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on. Raises `ConfigurationError` before `start`."""
        if self._address is None:
            raise ConfigurationError("the server is not listening")
        return self._address

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of the door of HTTP; None without one."""
        return self._gate.http_address

    async def start(self) -> None:
        """Raises `ConfigurationError` if the server cannot listen on the address."""
        host, port = self._config.host, self._config.port
        self._gate.max_connections = connections_within_file_limit(self._config.max_connections)
        listener = Listener(self._connection, self._gate, self._tls)
        if self._sockets is None:
            self._address = listener.start(host, port, remedy="choose another port or stop it")
        else:
            self._address = self._sockets.address(TCP)
        self._listener = listener
        self._gate.clock.start()
        opened: list[Door] = []
        try:
            for door in self._doors:
                await door.start()
                opened.append(door)
        except BaseException:
            for door in opened:
                await door.stop()
            listener.close()
            self._gate.clock.stop()
            self._listener = self._address = None
            raise
        if self._sockets is None:
            host, port = self.address
            self._log.info("rpc_listening", host=host, port=port)

    def use_slots(self, slots: Sequence[int]) -> None:
        """Accepts what comes to these slots of the parent's sockets."""
        if self._listener is not None and self._sockets is not None:
            self._listener.use(self._sockets.of(TCP, slots))
            for door in self._doors:
                door.use_slots(slots)

    def adopt_from(self, handover: Handover) -> None:
        """From now on takes the connections that a predecessor sends."""
        loop, adopting = asyncio.get_running_loop(), set[asyncio.Task[Any]]()

        def take(connection: socket.socket, note: MovedNote) -> None:
            key = None if note.key is None else self._gate.keys.by_digest(note.key)
            door = self if note.door == TCP else self._doors[0]
            make = functools.partial(door.adopted, key)
            task = loop.create_task(loop.connect_accepted_socket(make, connection))
            adopting.add(task)
            task.add_done_callback(adopting.discard)

        handover.receive_with(take)

    async def hand_over(self, handover: Handover) -> None:
        """Accepts nothing more, and passes on what is open, within `drain_timeout_s`.

        What cannot move stays until `stop`.
        """
        handover.stop_receiving()
        self.use_slots([])
        # A client that asks again at once is at rest for a moment only.
        self._gate.at_rest = handover.move
        await move_all(handover, self._all_connections, self._gate.config.drain_timeout_s)

    def connections(self) -> Sequence[Movable]:
        return list(self._connections.values())

    def adopted(self, key: Principal | None) -> Connection:
        """A connection that another process has opened."""
        connection = self._connection()
        connection.session.principal = connection.session.last_principal = key
        return connection

    def _all_connections(self) -> list[Movable]:
        return [c for door in (self, *self._doors) for c in door.connections()]

    async def stop(self) -> None:
        """Drains as described above, and returns when every connection of all doors is closed."""
        if self._listener is None:
            return
        self._listener.close()
        self._gate.draining = True
        await asyncio.gather(self._close_connections(), *(door.stop() for door in self._doors))
        self._gate.clock.stop()
        self._listener = self._address = None

    async def _close_connections(self) -> None:
        # A connection that ends meanwhile leaves the dictionary of the open ones.
        connections = dict(self._connections)
        self._log.info("rpc_draining", connections=len(connections))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._gate.config.drain_timeout_s):
                for connection in connections.values():
                    await connection.settled()
        unfinished = sum(connection.pending for connection in connections.values())
        for task, connection in connections.items():
            if connection.pending:
                task.cancel()
            else:
                connection.end_input()
        if self._connections:
            await asyncio.wait(self._connections, timeout=_CLOSING_S)
        # Those that have not read their last replies by now.
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        self._log.info("rpc_stopped", unfinished_answers=unfinished)

    def _connection(self) -> Connection:
        # The limits may have changed since the last one.
        return Connection(self._dispatcher, self._gate, self._gate.config, self._opened)

    def _opened(self, connection: Connection) -> None:
        refusal = self._gate.connection_opened(connection.session.address)
        if refusal is not None:
            self._turn_away(connection, refusal)
        elif self._gate.keys.required:
            self._bound_unauthenticated()
        task = asyncio.create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._forget)

    def _bound_unauthenticated(self) -> None:
        """Turns away the oldest connection without a key if there are too many of them."""
        limit = self._gate.config.max_unauthenticated_connections
        strangers = [c for c in self._connections.values() if c.unauthenticated]
        if len(strangers) >= limit:
            load = f"overloaded: {limit} connections have sent no key; connect again and send it"
            self._turn_away(strangers[0], OverloadedError(load))

    def _turn_away(self, connection: Connection, refusal: LlmTraderError) -> None:
        self._log.debug("rpc_connection_refused", peer=connection.session.peer, reason=refusal.code)
        error = PROTOCOL_ERRORS.error_object(refusal)
        connection.turn_away(envelope.reply(envelope.NULL, error))

    def _forget(self, task: asyncio.Task[None]) -> None:
        address = self._connections.pop(task).session.address
        self._gate.connection_closed(address)
        if not task.cancelled() and (error := task.exception()):
            self._log.error("rpc_connection_failed", exc_info=error)


async def serve(
    server: RpcServer, stop_event: asyncio.Event, on_ready: Callable[[str, int], None] | None = None
) -> None:
    """Runs the server until `stop_event` is set; calls `on_ready` with the host and port."""
    await server.start()
    try:
        if on_ready is not None:
            on_ready(*server.address)
        await stop_event.wait()
    finally:
        await server.stop()


def stop_on_signals(stop_event: asyncio.Event) -> None:
    """SIGTERM and SIGINT set the event; a second one ends the process immediately."""
    loop = asyncio.get_running_loop()

    def stop(signum: signal.Signals) -> None:
        stop_event.set()
        loop.remove_signal_handler(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop, signum)


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, on uvloop if it is installed (the extra `fast`)."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)
