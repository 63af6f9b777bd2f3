"""A JSON-RPC client of one connection: many calls at once, matched by id."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.conversation import (
    Codec,
    ConnectionLostError,
    Conversation,
    Lines,
    NoReplyError,
    Reply,
    RpcError,
    cannot_connect,
    decoded,
)

__all__ = ["RpcClient", "RpcError"]

T = TypeVar("T")

_READ_BYTES: Final = 1 << 18


class RpcClient:
    """`RpcClient.connect` makes one; use it as an async context manager, or call `close`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timeout_s: float,
        codec: Codec,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self._conversation = Conversation(codec)
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._lost: LlmTraderError | None = None
        self._receiver = asyncio.create_task(self._receive())

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        timeout_s: float = 10.0,
        token: str | None = None,
        codec: Callable[[], Codec] = Lines,
        tls: ssl.SSLContext | None = None,
    ) -> RpcClient:
        """Connects, by TLS if a context is given, and authenticates when a token is given.

        Raises `ConfigurationError` when no server is there, `RpcError` when it refuses the token.
        """
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        except OSError as error:  # a timeout is one as well
            raise cannot_connect(host, port, timeout_s, error) from None
        client = cls(reader, writer, timeout_s, codec())
        if token is not None:
            try:
                await client.call("rpc.authenticate", {"token": token})
            except LlmTraderError:
                await client.close()
                raise
        return client

    @property
    def is_lost(self) -> bool:
        """Whether the connection is of no more use."""
        return self._lost is not None

    @property
    def waiting(self) -> int:
        """The number of calls under way."""
        return len(self._replies)

    @overload
    async def call(self, method: str, params: Any = None) -> Any: ...

    @overload
    async def call(self, method: str, params: Any, result_type: type[T]) -> T: ...

    async def call(self, method: str, params: Any = None, result_type: Any = Any) -> Any:
        """The result as a `result_type`. `params` is a mapping, a sequence, a Struct or None.

        Raises `RpcError` for an error reply, `ConfigurationError` when the connection is lost, no
        reply comes within the client's `timeout_s`, or the result is not a `result_type`.
        """
        reply = await self.exchange(method, params, self._timeout_s)
        return decoded(method, reply, result_type)

    async def exchange(self, method: str, params: Any, timeout_s: float) -> Reply:
        """The reply as it came, also an error."""
        if self._lost is not None:
            raise self._lost
        call_id, sent = self._conversation.ask(method, params)
        reply = self._replies[call_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(sent)
                # The receiver finds out about a lost connection and says why in every waiting call.
                with contextlib.suppress(ConnectionError):
                    await self._writer.drain()
                answer: Reply = await reply
                return answer
        except TimeoutError:
            raise NoReplyError(f"{method}: no reply in {timeout_s:g} s") from None
        finally:
            del self._replies[call_id]
            self._conversation.forget(call_id)

    async def close(self) -> None:
        self._receiver.cancel()
        await asyncio.wait([self._receiver])
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> RpcClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _receive(self) -> None:
        reason: LlmTraderError | None = None
        try:
            while data := await self._reader.read(_READ_BYTES):
                for call_id, reply in self._conversation.hear(data):
                    waiting = self._replies.get(call_id)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(reply)
        except (OSError, ValueError) as error:
            reason = ConnectionLostError(f"the connection failed: {error}")
        conversation = self._conversation
        self._lost = reason = conversation.refusal or reason or conversation.closed_by_server()
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(reason)
