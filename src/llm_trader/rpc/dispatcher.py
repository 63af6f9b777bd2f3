"""JSON-RPC 2.0 over bytes: one document in, one reply or nothing out. No sockets here.

1. `handle` distinguishes a batch from a single call; the members of a batch wait side by side.
2. The envelope is decoded with `params` and `id` left as raw JSON, so an id returns unchanged.
3. The gate admits or refuses the call (draining, rate, authentication), and gives it its turn.
4. `ParamsDecoder` turns the raw params into the method's struct.
5. The method runs within its deadline, which `timeout_ms` may shorten; its result, or its error,
   becomes the reply.
6. Observers receive a record of the request.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.rpc import envelope
from llm_trader.rpc import errors as rpc_errors
from llm_trader.rpc.admission import Admission, Session
from llm_trader.rpc.errors import PROTOCOL_ERRORS, ErrorObject, ErrorTable
from llm_trader.rpc.keys import Access, Principal
from llm_trader.rpc.observer import RequestObserver, RequestRecord
from llm_trader.rpc.params import (
    MAX_NAME_CHARS,
    NoParams,
    ParamsDecoder,
    closest_name,
    timeout_ms,
)

_PROCESS: Final = secrets.token_hex(3)
_COUNTER: Final = itertools.count(1)
DISCOVER: Final = "rpc.discover"
# Kinds of turns that are no method's.
_BATCH: Final = "a batch"
_OTHER: Final = "no method"
_ENCODER: Final = msgspec.json.Encoder()
# A batch has its members and their replies in memory at once.
_MAX_BATCH: Final = 100
# A ping has some 50 bytes; others have more. It estimates how many calls a batch has.
_CALL_BYTES: Final = 64

Encode = Callable[[Any], bytes]


@dataclass(slots=True)
class RequestContext:
    """The context of one request. Times are `time.monotonic()` seconds; None is no deadline.

    `unknown_fields` lists dotted paths of parameters that the method does not know, each with a
    suggestion if one is close: `current_state.rsi7 (did you mean rsi_7?)`. `stages` is None
    without observers. `principal` is who calls, where keys are asked for.
    """

    # Short and unique across processes, such as `a3f09c-1b`.
    request_id: str = field(default_factory=lambda: f"{_PROCESS}-{next(_COUNTER):x}")
    session: Session = field(default_factory=Session)
    received_s: float = field(default_factory=time.monotonic)
    deadline_s: float | None = None
    request_bytes: int = 0
    batch_position: int | None = None
    unknown_fields: list[str] = field(default_factory=list)
    stages: dict[str, float] | None = None
    staged_s: float = 0.0  # the sum of the stages
    gate: Admission | None = None
    principal: Principal | None = None
    worked_since_s: float = 0.0
    # The client asked for it, so it is no sign of load.
    has_own_deadline: bool = False

    async def pause(self) -> None:
        """A method that computes for long calls it between its steps, so that pings pass.

        Raises `DeadlineExceededError` if there is no time left for the next one.
        """
        await self.rest()
        if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
            raise _past_deadline()

    async def rest(self) -> None:
        """A pause that has no deadline."""
        if self.gate is None:
            return
        paused_s = time.monotonic()
        # Short steps add up until they are a long one.
        if await self.gate.pause(paused_s - self.worked_since_s):
            self.worked_since_s = time.monotonic()
            self._add_stage("queue", self.worked_since_s - paused_s)

    async def next_turn(self, kind: str) -> None:
        """Lets other clients have their turns, also long ones, before a method goes on."""
        if self.gate is not None:
            self.gate.end_turn()
            await self.gate.turn(self.session, kind)
            self.worked_since_s = time.monotonic()

    def bound(self, timeout_ms: int | None) -> None:
        """Shortens the deadline."""
        if timeout_ms is not None:
            own_s = self.received_s + timeout_ms / 1000
            if self.deadline_s is None or own_s < self.deadline_s:
                self.deadline_s, self.has_own_deadline = own_s, True

    def batch_member(self, position: int, size: int) -> RequestContext:
        name, session = f"{self.request_id}.{position}", self.session
        return RequestContext(name, session, self.received_s, self.deadline_s, size, position)

    def end_stage(self, name: str) -> None:
        """Attributes the time since the last stage ended to `name`, which may end repeatedly."""
        if self.stages is not None:
            self._add_stage(name, time.monotonic() - self.received_s - self.staged_s)

    def _add_stage(self, name: str, seconds: float) -> None:
        if self.stages is not None:
            self.stages[name] = self.stages.get(name, 0.0) + seconds
            self.staged_s += seconds


@dataclass(frozen=True, slots=True)
class Method:
    """A method on the wire. The handler takes a `params_type`, or None if that is None.

    Declare `params_type` and the structs in it with `forbid_unknown_fields=True`: unknown fields
    are tolerated anyway, and complete requests are decoded in one step. A `quick` method takes
    microseconds, whatever it is asked; it does not wait for queries. `other_results` are what some
    parameters ask for instead of a `result_type`. `access` is what a client needs where keys are
    asked for.
    """

    name: str
    params_type: type[msgspec.Struct] | None
    handler: Callable[[Any, RequestContext], Awaitable[Any]]
    summary: str
    result_type: Any = Any
    errors: tuple[type[LlmTraderError], ...] = ()
    quick: bool = False
    other_results: tuple[type[msgspec.Struct], ...] = ()
    access: Access = "query"


class Dispatcher:
    """Answers JSON-RPC 2.0 documents with the given methods.

    Raises `ConfigurationError` when two methods share a name.
    """

    def __init__(
        self,
        methods: Iterable[Method],
        *,
        errors: ErrorTable = PROTOCOL_ERRORS,
        observers: Sequence[RequestObserver] = (),
    ) -> None:
        self._methods: dict[str, tuple[Method, ParamsDecoder]] = {}
        for method in methods:
            if method.name in self._methods:
                raise ConfigurationError(f"two methods are named {method.name!r}")
            decoder = ParamsDecoder(method.params_type or NoParams)
            self._methods[method.name] = (method, decoder)
        self._errors = errors
        self._observers = observers
        self._log = structlog.get_logger(__name__).bind()

    async def description(self) -> Any:
        """The result of `rpc.discover`."""
        method, _ = self._find(DISCOVER)
        return await method.handler(None, RequestContext())

    async def handle(
        self, document: bytes, context: RequestContext, gate: Admission
    ) -> bytes | None:
        """The reply as one line of JSON without a line end; None for no reply at all."""
        if not is_batch(document):
            return await self._answer(document, context, gate)
        # Finding the members of a large document is work as well.
        calls = min(1 + len(document) // _CALL_BYTES, _MAX_BATCH)
        try:
            session = context.session
            await gate.turn(session, _BATCH, principal=session.principal, calls=calls)
            # The limit is checked before any member runs, so a refused batch has no side effects.
            members = envelope.batch_members(document, _MAX_BATCH)
        except LlmTraderError as error:
            gate.end_turn()
            return self.refuse(error, context)
        # They start in the next pass, all at once.
        gate.end_turn(members=len(members))
        unsent = context.session.unsent
        try:
            answers = [
                self._answer(member, context.batch_member(position, len(member)), gate)
                for position, member in enumerate(members, 1)
            ]
            spoken = [reply for reply in await asyncio.gather(*answers) if reply is not None]
            return b"[" + b",".join(spoken) + b"]" if spoken else None
        finally:
            unsent.batch_bytes = 0
            gate.budget.update(unsent, gate.clock.now_s())

    def refuse(
        self, error: LlmTraderError, context: RequestContext, raw_id: bytes = envelope.NULL
    ) -> bytes:
        """The reply to a document that is not a call."""
        answer = self.error_object(error)
        reply = envelope.reply(raw_id, answer)
        self.observe(context, None, answer.code, reply)
        return reply

    def error_object(self, error: LlmTraderError) -> ErrorObject:
        return self._errors.error_object(error)

    async def _answer(
        self, document: bytes, context: RequestContext, gate: Admission
    ) -> bytes | None:
        if self._observers:
            context.stages = {}
        decoded = envelope.decode_call(document)
        if decoded is None:
            return await self._explain(document, context, gate)
        call, raw_id = decoded
        context.bound(timeout_ms(bytes(call.params)))
        reply: bytes | None = None
        code: int | None = rpc_errors.SERVER_ERROR  # if the server stops and gives up on the answer
        try:
            outcome = await self._outcome(call, context, gate)
            code = outcome.code if isinstance(outcome, ErrorObject) else None
            reply = envelope.reply(raw_id, outcome) if raw_id else None
            if reply is not None and context.batch_position is not None:
                context.session.unsent.batch_bytes += len(reply)
                gate.budget.update(context.session.unsent, gate.clock.now_s())
        finally:
            self.observe(context, call.method, code, reply, not raw_id)
        return reply

    async def _explain(self, document: bytes, context: RequestContext, gate: Admission) -> bytes:
        """The reply to a document that is not a call, or why it has to wait for one."""
        error: LlmTraderError
        salvaged_id = envelope.NULL
        try:
            await gate.turn(context.session, _OTHER, principal=context.session.principal)
            error, salvaged_id = envelope.explain_refusal(document)
            gate.end_turn()
        except rpc_errors.RateLimitedError as limited:
            error = limited
        return self.refuse(error, context, salvaged_id)

    async def call(
        self,
        method: str,
        params: bytes,
        context: RequestContext,
        gate: Admission,
        encode: Encode,
    ) -> bytes | ErrorObject:
        """The encoded result, or the error, of a call in a document that is not JSON-RPC.

        `encode` works within the turn of the call.
        """
        if self._observers:
            context.stages = {}
        context.bound(timeout_ms(params))
        code: int | None = rpc_errors.SERVER_ERROR
        encoded = b""
        try:
            outcome = await self._outcome(
                envelope.Call("2.0", method, msgspec.Raw(params)), context, gate, encode
            )
            if isinstance(outcome, ErrorObject):
                code = outcome.code
            else:
                code, encoded = None, outcome
                context.session.unsent.batch_bytes += len(encoded)
                gate.budget.update(context.session.unsent, gate.clock.now_s())
            return outcome
        finally:
            self.observe(context, method, code, encoded)

    async def _outcome(
        self,
        call: envelope.Call,
        context: RequestContext,
        gate: Admission,
        encode: Encode = _ENCODER.encode,
    ) -> bytes | ErrorObject:
        """The encoded result, or the error."""
        try:
            session, received_s = context.session, context.received_s
            token = envelope.take_token(call)
            context.principal = gate.principal_of(token, session, received_s)
            await gate.admit(self._access(call.method), session, context.principal, received_s)
            # 12 µs, 0.4 % of a whole query's CPU, by `python -m benchmarks --only server`.
            async with asyncio.timeout_at(context.deadline_s) as deadline:
                await self._turn(call.method, context, gate)
                gate.enter()
                context.end_stage("queue")
                context.gate, context.worked_since_s = gate, time.monotonic()
                try:
                    result = await self._result(call, context)
                    await context.pause()
                    encoded = encode(result)
                    context.end_stage("encode")
                    # Sending a reply of many MB is long as well.
                    await context.rest()
                    return encoded
                finally:
                    gate.leave()
        except TimeoutError as error:
            # A TimeoutError of the method itself is not the deadline of the request.
            if not deadline.expired():
                return self._internal_error(call, context, error)
            begun = context.gate is not None
            late = _past_deadline() if begun else _without_turn(context)
            return self._errors.error_object(late)
        except LlmTraderError as error:
            answer = self._errors.error_object(error)
            # A stop of the server is no fault of it, though it shares the code of faults.
            draining = isinstance(error, rpc_errors.DrainingError)
            if answer.code in self._errors.logged and not draining:
                log = self._log.bind(method=call.method, request_id=context.request_id)
                log.warning("rpc_server_fault", code=answer.code, error=error.message)
            return answer
        except Exception as error:  # noqa: BLE001  a bug in one method must not end the server
            return self._internal_error(call, context, error)

    def _internal_error(
        self, call: envelope.Call, context: RequestContext, error: Exception
    ) -> ErrorObject:
        log = self._log.bind(method=call.method, request_id=context.request_id)
        log.error("rpc_internal_error", exc_info=error)
        # Nothing of the exception itself: its internals are for the log.
        message = f"Internal error: quote request_id {context.request_id} to the operator"
        details = {"request_id": context.request_id}
        return ErrorObject(rpc_errors.INTERNAL_ERROR, message, details)

    def _access(self, name: str) -> Access:
        entry = self._methods.get(name)
        return entry[0].access if entry else "any_key"

    async def _turn(self, name: str, context: RequestContext, gate: Admission) -> None:
        """Waits for the turn of a call; raises the refusal of one that must not wait or start."""
        session, entry = context.session, self._methods.get(name)
        kind, quick = (name, entry[0].quick) if entry else (_OTHER, False)
        if not quick and context.batch_position is not None:
            gate.expect_turn(session)
        await gate.turn(session, kind, principal=context.principal, quick=quick)
        if context.deadline_s is not None and time.monotonic() >= context.deadline_s:
            raise _without_turn(context)
        if context.batch_position is not None:
            gate.expect_room(session)

    async def _result(self, call: envelope.Call, context: RequestContext) -> Any:
        method, decoder = self._find(call.method)
        raw = envelope.raw_params(call)
        try:
            params = decoder.decode(raw, context.unknown_fields)
        except envelope.UNREADABLE as error:
            raise envelope.parse_error(error) from None
        finally:
            context.end_stage("decode")
        try:
            return await method.handler(params if method.params_type else None, context)
        finally:
            context.end_stage("handle")

    def _find(self, name: str) -> tuple[Method, ParamsDecoder]:
        entry = self._methods.get(name)
        if entry is None:
            similar = closest_name(name, self._methods)
            hint = f"did you mean {similar!r}?" if similar else "rpc.discover lists the methods"
            raise rpc_errors.MethodNotFoundError(name[:MAX_NAME_CHARS], hint)
        return entry

    def observe(
        self,
        context: RequestContext,
        method: str | None,
        code: int | None,
        reply: bytes | None,
        notification: bool = False,
    ) -> None:
        """Reports a request; `method` is None for a document that is not a call."""
        if not self._observers:
            return
        record = RequestRecord(
            request_id=context.request_id,
            peer=context.session.peer,
            method=method and method[:MAX_NAME_CHARS],
            code=code,
            stages=context.stages or {},
            duration_s=time.monotonic() - context.received_s,
            request_bytes=context.request_bytes,
            reply_bytes=len(reply or b""),
            notification=notification,
            batch_position=context.batch_position,
            key_id=context.principal.id if context.principal else None,
        )
        for observer in self._observers:
            try:
                observer(record)
            except Exception:  # noqa: BLE001  a faulty observer must not cost the client its reply
                self._log.exception("rpc_observer_failed", request_id=context.request_id)


def is_batch(document: bytes) -> bool:
    return document.lstrip()[:1] == b"["


def _without_turn(context: RequestContext) -> LlmTraderError:
    """Nothing was begun, so it may be sent again."""
    if context.has_own_deadline:
        return _past_deadline()
    return rpc_errors.OverloadedError(
        "overloaded: the call had no turn before its deadline, and was not begun; send it again"
    )


def _past_deadline() -> rpc_errors.DeadlineExceededError:
    return rpc_errors.DeadlineExceededError("deadline exceeded; the work was cancelled")
