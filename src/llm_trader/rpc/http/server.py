"""Listens for HTTP beside the TCP port, in the same event loop and behind the same gate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import structlog
from uvicorn import Config
from uvicorn.server import ServerState

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.handover import Movable
from llm_trader.rpc.http.connection import HttpConnection
from llm_trader.rpc.http.websocket import WebSocketConnection
from llm_trader.rpc.keys import Principal
from llm_trader.rpc.listener import Listener
from llm_trader.rpc.slot_sockets import HTTP, SlotSockets
from llm_trader.rpc.tls import ServerTls

# What aborted connections take to end.
_ABORT_S: Final = 1.0

_log = structlog.get_logger(__name__)


class HttpServer:
    """Serves an ASGI application. A door of `RpcServer`, which counts connections for both."""

    def __init__(
        self,
        app: Any,
        config: RpcConfig,
        gate: Admission,
        tls: ServerTls | None = None,
        sockets: SlotSockets | None = None,
    ) -> None:
        self._sockets = sockets
        self._tls = tls
        self._limits = config
        self._gate = gate
        self._uvicorn = _uvicorn_config(app, config)
        self._state = ServerState()
        self._connections: set[HttpConnection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._listener: Listener | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on. Raises `ConfigurationError` before `start`."""
        if self._gate.http_address is None:
            raise ConfigurationError("the server does not listen for HTTP")
        return self._gate.http_address

    async def start(self) -> None:
        """Raises `ConfigurationError` if it cannot listen on the address."""
        self._uvicorn.load()
        self._listener = Listener(self._connection, self._gate, self._tls)
        if self._sockets is not None:
            self._gate.http_address = self._sockets.address(HTTP)
            return
        self._gate.http_address = self._listener.start(
            self._limits.host,
            self._limits.port_for_http,
            remedy="choose another port with --http-port, or leave HTTP out with --no-http",
        )
        host, port = self.address
        _log.info("http_listening", host=host, port=port)

    def use_slots(self, slots: Sequence[int]) -> None:
        """Accepts what comes to these slots of the parent's sockets."""
        if self._listener is not None and self._sockets is not None:
            self._listener.use(self._sockets.of(HTTP, slots))

    def connections(self) -> list[Movable]:
        return list(self._connections)

    def adopted(self, key: Principal | None) -> HttpConnection:
        """A connection that another process has opened."""
        return self._connection()

    async def stop(self) -> None:
        """Finishes and sends running answers for up to `drain_timeout_s`, then closes all."""
        if self._listener is None:
            return
        self._listener.close()
        self._listener = self._gate.http_address = None
        for protocol in list(self._state.connections):
            protocol.shutdown()
        await self._all_closed(self._gate.config.drain_timeout_s)
        unfinished = len(self._connections)
        for connection in list(self._connections):
            connection.transport.abort()
        await self._all_closed(_ABORT_S)
        _log.info("http_stopped", unfinished_connections=unfinished)

    async def _all_closed(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._none_open.wait()
                while self._state.tasks:
                    await asyncio.wait(self._state.tasks)

    def _connection(self) -> HttpConnection:
        limits = self._gate.config  # they may have changed since the last connection
        self._uvicorn.ws_max_size = limits.max_frame_kib << 10
        self._uvicorn.timeout_keep_alive = _keep_alive_s(limits)
        return HttpConnection(
            *(self._uvicorn, self._state, self._gate, limits, self._opened, self._closed)
        )

    def _opened(self, connection: HttpConnection) -> None:
        self._connections.add(connection)
        self._none_open.clear()
        refusal = self._gate.connection_opened(connection.session.address)
        if refusal is not None:
            connection.turn_away(refusal)

    def _closed(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._none_open.set()
        self._gate.connection_closed(connection.session.address)


def _keep_alive_s(config: RpcConfig) -> int:
    return max(1, round(config.idle_timeout_s))


def _uvicorn_config(app: Any, config: RpcConfig) -> Config:
    """Everything that uvicorn would do itself is off: listening, signals, logs of requests."""
    return Config(
        app,
        http=HttpConnection,
        ws=WebSocketConnection,
        ws_max_size=config.max_frame_kib << 10,
        # Compressing 10 KB takes as long as a tenth of a query, and its memory stays.
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # The application logs its own errors; what is left are faults of clients.
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_keep_alive_s(config),
    )
