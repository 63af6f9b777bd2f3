"""One client to Qdrant: each call has a deadline and is repeated while the connection is lost."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from llm_trader.errors import VectorIndexError
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.errors import (
    failure_of,
    missing_extra,
    raised_by_client,
    unreadable_ca_file,
)

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

T = TypeVar("T")

# Pauses double from the first to the longest: a restart takes seconds, a lost packet none.
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0
# A shorter try could not bring an answer.
_LEAST_TRY_S: Final = 0.05
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_CHANNEL: Final[dict[str, Any]] = {
    # Channels of equal options would share one connection.
    "grpc.use_local_subchannel_pool": 1,
    # Our own backoff decides when to try again; the channel must be ready to connect by then.
    "grpc.initial_reconnect_backoff_ms": 100,
    # How long one try to connect may take, whatever the name says. At 100 ms a server far away,
    # or on a busy machine, counted as unreachable; at 20 s a lost packet is waited for too long.
    "grpc.min_reconnect_backoff_ms": 5000,
    "grpc.max_reconnect_backoff_ms": 1000,
    # Finds connections that died without being closed.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
}


class Connection(AbstractAsyncContextManager["Connection"]):
    """A client and the way its calls are made. Nothing is sent before the first call."""

    def __init__(self, server: QdrantServer, client: AsyncQdrantClient | None = None) -> None:
        self.server = server
        self.client = client or _client(server)
        # Clients that lost the same server come back at different times.
        self._jitter = random.Random(os.getpid())
        self._closed = False

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Closing twice does nothing."""
        if not self._closed:
            self._closed = True
            await self.client.close()

    async def call(self, action: str, ask: Callable[[AsyncQdrantClient], Awaitable[T]]) -> T:
        """The result of one call, which may be made more than once.

        `action` says in messages what it is for, such as "reading points".

        Raises `VectorIndexError` for what cannot be helped by another try within `retry_s`.
        """
        if self._closed:
            raise VectorIndexError(f"the index at {self.server.address} is closed ({action})")
        clock = asyncio.get_running_loop().time
        until = clock() + self.server.retry_s
        try_s, pause_s, tries = self.server.timeout_s, _FIRST_PAUSE_S, 0
        while True:
            tries += 1
            try:
                async with asyncio.timeout(try_s):
                    return await ask(self.client)
            except Exception as error:
                if not raised_by_client(error):
                    raise
                failure = failure_of(error, self.server, action)
                wait_s = failure.wait_s + self._jitter.uniform(0, pause_s)
                left_s = until - clock() - wait_s
                if not failure.passing or left_s < _LEAST_TRY_S:
                    raise failure.error from error
            if tries == 1:
                log = structlog.get_logger(__name__)
                log.warning("qdrant_call_repeated", what=action, reason=failure.error.message)
            await asyncio.sleep(wait_s)
            try_s, pause_s = min(try_s, left_s), min(2 * pause_s, _LONGEST_PAUSE_S)


def _client(server: QdrantServer) -> AsyncQdrantClient:
    try:
        from qdrant_client import AsyncQdrantClient
    except ImportError as error:
        raise missing_extra() from error
    options = dict(_CHANNEL)
    if server.ca_file is not None:
        try:
            options["root_certificates"] = server.ca_file.read_bytes()
        except OSError as error:
            raise unreadable_ca_file(server, error) from error
    headers = None
    if server.api_key is not None:
        headers = {"api-key": server.api_key}
        if not server.tls and server.host not in _LOOPBACK:
            log = structlog.get_logger(__name__)
            log.warning("qdrant_api_key_in_clear", url=server.shown_url, remedy="use https")
    return AsyncQdrantClient(
        url=server.url,
        grpc_port=server.grpc_port,
        prefer_grpc=True,
        headers=headers,  # as `api_key`, it would warn by the warnings module
        timeout=max(1, round(server.timeout_s + 0.5)),
        grpc_options=options,
        check_compatibility=False,  # that would ask the server now
        pool_size=server.pool_size,
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # of REST, which is not used
    )
