"""Answers GraphQL documents: one turn to read a document, and one for each call in it.

A document counts as a request at the gate, and so does each call. An error has the code and the
data of JSON-RPC in its `extensions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from graphql import GraphQLError

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.dispatcher import Dispatcher, RequestContext
from llm_trader.rpc.errors import ErrorObject, FieldError, InvalidParamsError
from llm_trader.rpc.http.app import DocumentReply
from llm_trader.rpc.http.status import status_of_error
from llm_trader.rpc.keys import Access
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.graphql.answers import MAX_SCHEMA_VALUES, Picker
from llm_trader.serving.graphql.document import DocumentReader, RefusedDocumentError
from llm_trader.serving.graphql.plan import PlannedField, Planner
from llm_trader.serving.graphql.schema import graphql_schema, method_of

# A kind of turn that is no method's.
_DOCUMENT: Final = "a GraphQL document"
# What a document needs, even if it asks about the schema alone; each call needs its method's.
_ACCESS: Final[Access] = "query"
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


class _Call(NamedTuple):
    field: PlannedField
    params: bytes


class _Extensions(msgspec.Struct, omit_defaults=True):
    code: int
    data: Any = None


class _Error(msgspec.Struct, omit_defaults=True):
    """An error of a GraphQL response."""

    message: str
    extensions: _Extensions
    locations: list[dict[str, int]] = []
    path: list[str] = []


class GraphQlEndpoint:
    """Answers requests of `POST /graphql`."""

    def __init__(self, dispatcher: Dispatcher, gate: Admission, config: ServingConfig) -> None:
        self._dispatcher = dispatcher
        self._gate = gate
        self._config = config
        self._schema = graphql_schema()
        self._reader = DocumentReader(self._schema, config)

    async def answer(
        self, body: bytes, context: RequestContext, headers: Mapping[str, str]
    ) -> DocumentReply:
        gate, session = self._gate, context.session
        calls: list[_Call] = []
        try:
            await self._admit(context)
            await gate.turn(session, _DOCUMENT, principal=context.principal)
            try:
                fields = self._planned(body)
                data = self._own(fields)
                calls = [_Call(f, _params(f)) for f in fields if not f.name.startswith("__")]
            finally:
                gate.end_turn(members=len(calls))
        except RefusedDocumentError as refusal:
            return self._refused(refusal.reason, context, refusal.errors)
        except LlmTraderError as error:
            return self._refused(error, context)
        outcomes = await self._outcomes(calls, context)
        status, headers, body = self._reply(data, calls, outcomes)
        if not calls:  # else each of them has a record
            self._dispatcher.observe(context, None, None, body)
        return status, headers, body

    async def _admit(self, context: RequestContext) -> None:
        """Raises the refusal of a client that may not query, whatever its document asks for."""
        gate, session = self._gate, context.session
        context.principal = gate.principal_of(None, session, context.received_s)
        await gate.admit(_ACCESS, session, context.principal, context.received_s)

    def _planned(self, body: bytes) -> list[PlannedField]:
        operation = self._reader.read(body)
        return Planner(self._schema, operation, self._config).fields()

    def _own(self, fields: list[PlannedField]) -> dict[str, Any]:
        """The fields that describe the schema; None for calls."""
        picker = Picker(self._schema, MAX_SCHEMA_VALUES)
        return {f.key: picker.value(None, f) if f.name.startswith("__") else None for f in fields}

    async def _outcomes(
        self, calls: list[_Call], context: RequestContext
    ) -> list[bytes | ErrorObject]:
        contexts = [context]
        if len(calls) > 1:
            contexts = [context.batch_member(i, len(c.params)) for i, c in enumerate(calls, 1)]
        unsent = context.session.unsent
        try:
            return await asyncio.gather(*map(self._outcome, calls, contexts))
        finally:
            unsent.batch_bytes = 0
            self._gate.budget.update(unsent, self._gate.clock.now_s())

    async def _outcome(self, call: _Call, context: RequestContext) -> bytes | ErrorObject:
        def encode(result: Any) -> bytes:
            return _ENCODER.encode(Picker(self._schema).complete(result, call.field))

        method = method_of(call.field.name)
        return await self._dispatcher.call(method, call.params, context, self._gate, encode)

    def _reply(
        self, data: dict[str, Any], calls: list[_Call], outcomes: list[bytes | ErrorObject]
    ) -> tuple[int, dict[str, str], bytes]:
        errors = []
        for (field, _), outcome in zip(calls, outcomes, strict=True):
            if isinstance(outcome, ErrorObject):
                node = GraphQLError(outcome.message, field.node)
                errors.append(_error(outcome, node, [field.key]))
            else:
                data[field.key] = msgspec.Raw(outcome)
        body = _ENCODER.encode({"data": data} | ({"errors": errors} if errors else {}))
        failure = next((o for o in outcomes if isinstance(o, ErrorObject)), None)
        if failure is None or len(errors) < len(data):
            return 200, {}, body
        return *status_of_error(failure, draining=self._gate.draining), body

    def refuse(
        self,
        reason: LlmTraderError,
        context: RequestContext,
        document: bytes,
        errors: Sequence[GraphQLError] = (),
    ) -> bytes:
        """The body of the reply to a document that is not run, and has no id to answer."""
        outcome = self._dispatcher.error_object(reason)
        shown = [_error(outcome, error) for error in errors] or [_error(outcome)]
        body = _ENCODER.encode({"errors": shown})
        self._dispatcher.observe(context, None, outcome.code, body)
        return body

    def _refused(
        self,
        reason: LlmTraderError,
        context: RequestContext,
        errors: Sequence[GraphQLError] = (),
    ) -> DocumentReply:
        body = self.refuse(reason, context, b"", errors)
        outcome = self._dispatcher.error_object(reason)
        status, headers = status_of_error(outcome, draining=self._gate.draining)
        return 400 if status == 200 else status, headers, body


def _params(field: PlannedField) -> bytes:
    _refuse_brief(field)
    try:
        return msgspec.json.encode(field.arguments)
    except (OverflowError, ValueError, RecursionError):
        flaws = [FieldError(field.key, "has a number out of range, or is nested too deeply")]
        raise RefusedDocumentError(InvalidParamsError(flaws)) from None


def _refuse_brief(field: PlannedField) -> None:
    """A brief answer is another type, and a client that selects fields has no use for it."""
    config = field.arguments.get("query_config") or {}
    if config.get("detail") != "brief":
        return
    flaw = "GraphQL has no brief answers; leave detail out, and select the fields that you want"
    error = GraphQLError(f"query_config.detail: {flaw}", field.node)
    reason = InvalidParamsError([FieldError("query_config.detail", flaw)])
    raise RefusedDocumentError(reason, [error])


def _error(
    outcome: ErrorObject, error: GraphQLError | None = None, path: list[str] | None = None
) -> _Error:
    at = () if error is None else error.locations or ()
    locations = [{"line": place.line, "column": place.column} for place in at]
    message = outcome.message if error is None else error.message
    return _Error(message, _Extensions(outcome.code, outcome.data), locations, path or [])
