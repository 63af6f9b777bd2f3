"""`POST /mcp`: streamable HTTP without sessions. Every request stands for itself.

A message counts as a request at the gate, and the call of a tool in it as well, as in GraphQL. The
SDK reads the message and writes the reply; what is asked goes through the dispatcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from llm_trader.background import in_background
from llm_trader.errors import LlmTraderError
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.envelope import raw_id
from llm_trader.rpc.errors import InvalidRequestError
from llm_trader.rpc.http.app import DocumentReply
from llm_trader.rpc.http.status import status_of_error
from llm_trader.rpc.keys import Access
from llm_trader.serving.mcp.calls import ToolCalls
from llm_trader.serving.mcp.protocol import CONTEXT_KEY, mcp_server

_MESSAGE: Final = "an MCP message"
_ACCESS: Final[Access] = "query"
# Arguments of tools have some 200 bytes. The SDK reads these in 2 ms, without a turn.
_MAX_BYTES: Final = 1 << 16
_OWN_HEADERS: Final = frozenset({"content-length", "content-type"})


class _Message(msgspec.Struct):
    method: str = ""


class McpEndpoint:
    """Answers requests of `POST /mcp` while it is `running`."""

    def __init__(self, calls: ToolCalls, version: str) -> None:
        self._calls = calls
        # Host and Origin are checked for all paths.
        self._manager = StreamableHTTPSessionManager(
            mcp_server(calls, version), json_response=True, stateless=True
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        started = asyncio.Event()
        # The SDK's manager must end in the task in which it began.
        async with in_background(self._run_manager(started)):
            await started.wait()
            yield

    async def _run_manager(self, started: asyncio.Event) -> None:
        async with self._manager.run():
            started.set()
            await asyncio.Event().wait()

    async def answer(
        self, body: bytes, context: RequestContext, headers: Mapping[str, str]
    ) -> DocumentReply:
        try:
            method = await self._admitted(body, context)
        except LlmTraderError as error:
            reply = self.refuse(error, context, body)
            outcome = self._calls.dispatcher.error_object(error)
            status, more = status_of_error(outcome, draining=self._calls.gate.draining)
            return 400 if status == 200 else status, more, reply
        status, more, reply = await self._by_sdk(body, context, headers)
        if method != "tools/call":  # else the call has a record
            self._calls.dispatcher.observe(context, None, None, reply)
        return status, more, reply or None

    def refuse(self, error: LlmTraderError, context: RequestContext, document: bytes) -> bytes:
        return self._calls.dispatcher.refuse(error, context, raw_id(document))

    async def _admitted(self, body: bytes, context: RequestContext) -> str:
        """The method of a message that is let in; raises the refusal."""
        gate, session = self._calls.gate, context.session
        context.principal = gate.principal_of(None, session, context.received_s)
        await gate.admit(_ACCESS, session, context.principal, context.received_s)
        await gate.turn(session, _MESSAGE, principal=context.principal, quick=True)
        try:
            if len(body) > _MAX_BYTES:
                raise InvalidRequestError(f"a message has at most {_MAX_BYTES} bytes")
            return msgspec.json.decode(body, type=_Message).method
        except (msgspec.MsgspecError, RecursionError):
            return ""  # the SDK says what is wrong with it
        finally:
            gate.end_turn()

    async def _by_sdk(
        self, body: bytes, context: RequestContext, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()],
            CONTEXT_KEY: context,
        }
        exchange = _Exchange(body)
        await self._manager.handle_request(scope, exchange.receive, exchange.send)
        return exchange.status, exchange.headers, exchange.reply


class _Exchange:
    """One request whose body is there already, and its response."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.status = 500
        self.headers: dict[str, str] = {}
        self.reply = b""

    async def receive(self) -> dict[str, Any]:
        body, self._body = self._body, None
        if body is None:  # the work for a client that is gone is cancelled from outside
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
            self.headers = {name: value for name, value in pairs if name not in _OWN_HEADERS}
        else:
            self.reply += message.get("body", b"")
