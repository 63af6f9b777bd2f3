"""JSON-RPC 2.0 over bytes: one document in, one reply or nothing out. No sockets here.

1. `handle` tells a batch from a single call; the members of a batch run side by side.
2. The envelope is decoded with `params` and `id` left as raw JSON, so an id returns as it came.
3. The gate admits or refuses the call (draining, load, rate, authentication).
4. `ParamsDecoder` turns the raw params into the method's struct.
5. The method runs within its deadline; its result, or its error, becomes the reply.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec
import structlog

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc import envelope
from llm_trader.rpc.deadlines import within
from llm_trader.rpc.errors import (
    SERVER_FAULTS,
    DrainingError,
    ErrorObject,
    MethodNotFoundError,
    error_object,
    internal_error,
)
from llm_trader.rpc.params import ParamsDecoder, closest

_PROCESS: Final = secrets.token_hex(3)
_COUNTER: Final = itertools.count(1)


def new_request_id() -> str:
    """Short and unique across processes, such as `a3f09c-1b`."""
    return f"{_PROCESS}-{next(_COUNTER):x}"


@dataclass(slots=True)
class Session:
    """What one connection keeps between its requests. `peer` is `host:port`."""

    peer: str = "local"
    authenticated: bool = False

    @property
    def address(self) -> str:
        return self.peer.rpartition(":")[0]


@dataclass(slots=True)
class RequestContext:
    """Goes with one request. Times are `time.monotonic()` seconds; `deadline_s` None is no limit.

    `unknown_fields` lists dotted paths of parameters that the method does not know, each with a
    suggestion where one is close: `current_state.rsi7 (did you mean rsi_7?)`.
    """

    request_id: str = field(default_factory=new_request_id)
    session: Session = field(default_factory=Session)
    received_s: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None
    unknown_fields: list[str] = field(default_factory=list)

    @property
    def peer(self) -> str:
        return self.session.peer

    def member(self, position: int) -> RequestContext:
        """The context of one member of a batch."""
        name = f"{self.request_id}.{position}"
        return RequestContext(name, self.session, self.received_s, self.deadline_s)


@dataclass(frozen=True, slots=True)
class Method:
    """A method on the wire. The handler gets a `params_type`, or None where that is None.

    Declare `params_type` and the structs in it with `forbid_unknown_fields=True`: unknown fields
    are tolerated all the same, and complete requests are decoded in one step.
    """

    name: str
    params_type: type[msgspec.Struct] | None
    handler: Callable[[Any, RequestContext], Awaitable[Any]]
    summary: str
    result_type: Any = Any
    errors: tuple[type[LlmTraderError], ...] = ()


class Gate(Protocol):
    """Admits calls one by one. `enter` raises to refuse; each entered call leaves exactly once."""

    def enter(self, method: str, context: RequestContext) -> None: ...

    def leave(self) -> None: ...


class OpenGate:
    """Admits every call."""

    def enter(self, method: str, context: RequestContext) -> None: ...

    def leave(self) -> None: ...


class _NoParams(msgspec.Struct, forbid_unknown_fields=True):
    pass


_ENCODER: Final = msgspec.json.Encoder()


class Dispatcher:
    """Answers JSON-RPC 2.0 documents with the given methods.

    Raises `ConfigurationError` when two methods share a name.
    """

    def __init__(self, methods: Iterable[Method], *, max_batch: int = 100) -> None:
        self._methods: dict[str, tuple[Method, ParamsDecoder[Any]]] = {}
        for method in methods:
            if method.name in self._methods:
                raise ConfigurationError(f"two methods are named {method.name!r}")
            decoder = ParamsDecoder(method.params_type or _NoParams)
            self._methods[method.name] = (method, decoder)
        self._max_batch = max_batch
        self._log = structlog.get_logger(__name__).bind()
        # Asked once: gathering a line that is then dropped costs a tenth of the whole answer.
        self._logs_requests: bool = self._log.is_enabled_for(logging.DEBUG)

    @property
    def methods(self) -> Mapping[str, Method]:
        return MappingProxyType({name: method for name, (method, _) in self._methods.items()})

    def handle(
        self, document: bytes, context: RequestContext, gate: Gate | None = None
    ) -> Coroutine[Any, Any, bytes | None]:
        """Await it: the reply as one line of JSON without a line end, None for no reply at all."""
        if envelope.is_batch(document):
            return self._handle_batch(document, context, gate or OpenGate())
        return self._handle_one(document, context, gate or OpenGate())

    async def _handle_batch(
        self, document: bytes, context: RequestContext, gate: Gate
    ) -> bytes | None:
        try:
            members = envelope.batch_members(document, self._max_batch)
        except LlmTraderError as error:
            return envelope.failure(envelope.NULL, error_object(error))
        replies = await asyncio.gather(
            *(
                self._handle_one(member, context.member(position), gate)
                for position, member in enumerate(members, 1)
            )
        )
        spoken = [reply for reply in replies if reply is not None]
        return b"[" + b",".join(spoken) + b"]" if spoken else None

    async def _handle_one(
        self, document: bytes, context: RequestContext, gate: Gate
    ) -> bytes | None:
        decoded = envelope.decode_call(document)
        if decoded is None:
            return envelope.refusal(document)
        call, raw_id = decoded
        outcome = await self._outcome(call, context, gate)
        if self._logs_requests:
            self._log_request(call.method, context, outcome)
        if not raw_id:
            return None
        if isinstance(outcome, ErrorObject):
            return envelope.failure(raw_id, outcome)
        return envelope.success(raw_id, outcome)

    def _log_request(
        self, method: str, context: RequestContext, outcome: bytes | ErrorObject
    ) -> None:
        self._log.debug(
            "rpc_request",
            method=method,
            request_id=context.request_id,
            peer=context.peer,
            error_code=outcome.code if isinstance(outcome, ErrorObject) else None,
            duration_ms=(time.monotonic() - context.received_s) * 1000,
        )

    async def _outcome(
        self, call: envelope.Call, context: RequestContext, gate: Gate
    ) -> bytes | ErrorObject:
        try:
            gate.enter(call.method, context)
            try:
                return _ENCODER.encode(await self._result(call, context))
            finally:
                gate.leave()
        except LlmTraderError as error:
            answer = error_object(error)
            if answer.code in SERVER_FAULTS and not isinstance(error, DrainingError):
                self._log.warning(
                    "rpc_server_fault",
                    method=call.method,
                    request_id=context.request_id,
                    code=answer.code,
                    error=error.message,
                )
            return answer
        except Exception:  # noqa: BLE001  the boundary: a bug in one method must not end the server
            self._log.exception(
                "rpc_internal_error", method=call.method, request_id=context.request_id
            )
            return internal_error(context.request_id)

    async def _result(self, call: envelope.Call, context: RequestContext) -> Any:
        method, decoder = self._find(call.method)
        raw = envelope.raw_params(call)
        try:
            params = decoder.decode(raw, context.unknown_fields)
        except envelope.UNREADABLE as error:
            raise envelope.parse_error(error) from None
        argument = params if method.params_type else None
        if context.deadline_s is None:
            return await method.handler(argument, context)
        return await within(context.deadline_s, method.handler(argument, context))

    def _find(self, name: str) -> tuple[Method, ParamsDecoder[Any]]:
        found = self._methods.get(name)
        if found is None:
            close = closest(name, self._methods)
            hint = f"did you mean {close!r}?" if close else "rpc.discover lists the methods"
            raise MethodNotFoundError(name[:64], hint)
        return found
