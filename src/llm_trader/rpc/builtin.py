"""The methods every server has: `rpc.ping`, `rpc.authenticate`, `rpc.discover` (OpenRPC)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from llm_trader.rpc.dispatcher import DISCOVER, Method, RequestContext
from llm_trader.rpc.errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    PROTOCOL_ERRORS,
    ErrorTable,
    UnauthorizedError,
)
from llm_trader.rpc.keys import SCOPES, Scope

OPENRPC_VERSION: Final = "1.3.2"

Document = dict[str, Any]


class Pong(msgspec.Struct, frozen=True):
    pong: Annotated[bool, Meta(description="Always true.")]
    version: Annotated[str, Meta(description="Version of the server.")]


class AuthenticateParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str

    # A traceback or a log line may show the parameters, but never the token.
    def __repr__(self) -> str:
        return "AuthenticateParams(token=…)"


class Authenticated(msgspec.Struct, frozen=True):
    authenticated: Annotated[bool, Meta(description="Always true; a wrong token is an error.")]
    key: Annotated[str | None, Meta(description="Name of the key; null where none is asked for.")]
    scopes: Annotated[list[Scope], Meta(description="What the key may be used for.")]


async def _authenticate(params: AuthenticateParams, context: RequestContext) -> Authenticated:
    gate, session = context.gate, context.session
    if gate is None or not gate.keys.required:
        return Authenticated(True, None, list(SCOPES))
    session.principal = gate.identify(params.token, session, context.received_s)
    return Authenticated(True, session.principal.name, sorted(session.principal.scopes))


_AUTHENTICATE: Final = Method(
    "rpc.authenticate",
    AuthenticateParams,
    _authenticate,
    "Authenticates the connection; the first call where the server asks for a key.",
    Authenticated,
    (UnauthorizedError,),
    quick=True,
    access="open",
)


def _ping_method(version: str) -> Method:
    async def ping(params: None, context: RequestContext) -> Pong:
        return Pong(True, version)

    summary = "Shows that the server answers, and which version it is."
    return Method("rpc.ping", None, ping, summary, Pong, quick=True, access="open")


def _discover_method(description: Callable[[], msgspec.Raw]) -> Method:
    async def discover(params: None, context: RequestContext) -> msgspec.Raw:
        return description()

    summary = "Returns this description (OpenRPC)."
    return Method(DISCOVER, None, discover, summary, Document, access="any_key")


def with_builtin_methods(
    methods: Sequence[Method],
    *,
    title: str,
    version: str,
    errors: ErrorTable = PROTOCOL_ERRORS,
) -> list[Method]:
    """`methods` and the built-in ones; `rpc.discover` describes them all."""
    discover = _discover_method(lambda: document)
    complete = [*methods, _ping_method(version), _AUTHENTICATE, discover]
    # Made before the server starts: it takes 100 ms, for which no client should wait.
    document = msgspec.Raw(msgspec.json.encode(openrpc_document(complete, title, version, errors)))
    return complete


def openrpc_document(
    methods: Sequence[Method], title: str, version: str, errors: ErrorTable
) -> Document:
    """An OpenRPC document whose parameters may be sent by name or by position."""
    types = dict.fromkeys(
        kind
        for method in methods
        for kind in (method.params_type, method.result_type, *method.other_results)
    )
    schemas, structs = _schemas(*types)
    schema_of = dict(zip(types, schemas, strict=True))
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": title, "version": version},
        "methods": [_describe(method, errors, schema_of, structs) for method in methods],
        "components": {
            "schemas": structs,
            "errors": {
                str(code): {"code": code, "message": message}
                for code, message in errors.titles.items()
            },
        },
    }


@cache
def _schemas(*types: Any) -> tuple[tuple[Document, ...], Document]:
    """The schema of each type, and the structs that they refer to by name.

    All at once, because each call walks every struct that its types refer to.
    """
    return msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")


def _describe(
    method: Method, errors: ErrorTable, schema_of: Mapping[Any, Document], structs: Document
) -> Document:
    codes = {INTERNAL_ERROR, *map(errors.code_of, method.errors)}
    params = []
    if method.params_type is not None:
        codes.add(INVALID_PARAMS)
        schema = structs[method.params_type.__name__]
        params = [
            {"name": name, "required": name in schema["required"], "schema": field_schema}
            for name, field_schema in schema["properties"].items()
        ]
    results = [schema_of[kind] for kind in (method.result_type, *method.other_results)]
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": params,
        "result": {
            "name": "result",
            "schema": {"anyOf": results} if len(results) > 1 else results[0],
        },
        "errors": [{"$ref": f"#/components/errors/{code}"} for code in sorted(codes)],
        "x-access": method.access,
    }
