"""A small JSON-RPC client over TCP: many calls at once on one connection, matched by id."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from typing import Any, ClassVar, Final, TypeVar, overload

import msgspec

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc.errors import ErrorObject

T = TypeVar("T")

# A reply of the most matches and horizons has under 100 KB; OpenRPC documents may grow.
_MAX_REPLY_BYTES: Final = 64 << 20


class RpcError(LlmTraderError):
    """The server answered with an error: its JSON-RPC code, message and `data`."""

    code: ClassVar[str] = "rpc"

    def __init__(self, error: ErrorObject) -> None:
        super().__init__(error.message, rpc_code=error.code, data=error.data)
        self.rpc_code = error.code
        self.data = error.data


class _Reply(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: ErrorObject | None = None


class RpcClient:
    """`RpcClient.connect` makes one; use it as an async context manager, or call `close`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._waiting: dict[int | str | None, asyncio.Future[_Reply]] = {}
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
        tls: ssl.SSLContext | None = None,
    ) -> RpcClient:
        """Connects, by TLS if a context is given, and authenticates when a token is given.

        Raises `ConfigurationError` when no server is there, `RpcError` when it refuses the token.
        """
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(
                    host, port, limit=_MAX_REPLY_BYTES, ssl=tls
                )
        except ConnectionRefusedError:
            raise ConfigurationError(
                f"nothing listens on {host}:{port}; "
                f"start it with: rag-rpc-server --host {host} --port {port}"
            ) from None
        except TimeoutError:
            raise ConfigurationError(f"no answer from {host}:{port} in {timeout_s:g} s") from None
        except OSError as error:
            raise ConfigurationError(f"cannot connect to {host}:{port}: {error}") from error
        client = cls(reader, writer, timeout_s)
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

    @overload
    async def call(self, method: str, params: Any = None) -> Any: ...

    @overload
    async def call(self, method: str, params: Any, result_type: type[T]) -> T: ...

    async def call(self, method: str, params: Any = None, result_type: Any = Any) -> Any:
        """The result as a `result_type`. `params` is a mapping, a sequence, a Struct or None.

        Raises `RpcError` for an error reply, `ConfigurationError` when the connection is lost, no
        reply comes within the client's `timeout_s`, or the result is not a `result_type`.
        """
        if self._lost is not None:
            raise self._lost
        call_id = next(self._ids)
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": call_id}
        if params is not None:
            request["params"] = params
        reply = self._waiting[call_id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout_s):
                self._writer.write(msgspec.json.encode(request) + b"\n")
                # The receiver finds out about a lost connection and says why in every waiting call.
                with contextlib.suppress(ConnectionError):
                    await self._writer.drain()
                answer: _Reply = await reply
            if answer.error is not None:
                raise RpcError(answer.error)
            return msgspec.json.decode(answer.result, type=result_type)
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                f"{method}: the result is not what this client expects: {error}; "
                "use the client of the server's version"
            ) from error
        except TimeoutError:
            raise ConfigurationError(f"{method}: no reply in {self._timeout_s:g} s") from None
        finally:
            del self._waiting[call_id]

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
        reason: LlmTraderError = ConfigurationError("the server closed the connection")
        try:
            while line := await self._reader.readline():
                reply = msgspec.json.decode(line, type=_Reply)
                waiting = self._waiting.get(reply.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
                elif reply.id is None and reply.error is not None:
                    reason = RpcError(reply.error)  # it refuses the whole connection
        except (OSError, ValueError) as error:
            reason = ConfigurationError(f"the connection failed: {error}")
        self._lost = reason
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(reason)
