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
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.listener import Listener, connections_within_file_limit
from llm_trader.rpc.tls import ServerTls

T = TypeVar("T")

# What closing takes beyond `drain_timeout_s`: clients have a moment to read the last replies.
_CLOSING_S: Final = 1.5


class Door(Protocol):
    """Another transport into the same gate."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Finishes running answers, for up to `drain_timeout_s`; the gate is draining already."""


class RpcServer:
    """Serves a dispatcher on the config's host and port; port 0 takes a free one, see `address`.

    Without a `gate` it makes its own.
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
    ) -> None:
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
        connection = functools.partial(
            Connection, self._dispatcher, self._gate, self._config, self._opened
        )
        listener = Listener(connection, self._gate, self._tls)
        self._address = await listener.start(host, port, remedy="choose another port or stop it")
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
        host, port = self.address
        self._log.info("rpc_listening", host=host, port=port)

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
            async with asyncio.timeout(self._config.drain_timeout_s):
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
        limit = self._config.max_unauthenticated_connections
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
