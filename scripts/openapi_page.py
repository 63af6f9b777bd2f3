"""Makes the OpenAPI document of the HTTP port: its paths, and the statuses of their answers."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

import msgspec

from llm_trader import __version__
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.dispatcher import Method
from llm_trader.rpc.errors import ErrorObject
from llm_trader.rpc.http.status import http_status
from llm_trader.rpc.params import NoParams
from llm_trader.serving.decisions import DECISION_METHODS
from llm_trader.serving.methods import METHODS
from llm_trader.serving.page.methods import PAGE_METHODS
from llm_trader.serving.readiness import Readiness
from llm_trader.serving.subscriptions import SUBSCRIPTION_METHODS
from llm_trader.serving.wire import RAG_ERRORS

Document = dict[str, Any]

_JSON: Final = "application/json"
# Refusals of HTTP itself, before a document is read; see `rpc.http.connection` and `.origin`.
_OF_ANY: Final = (400, 401, 403, 408, 421, 431, 503)
_OF_BODIES: Final = (413, 415, 429, 500, 504)
_MOST_CALLS: Final = 100


def openapi_page(note: str) -> str:
    methods = with_builtin_methods(
        [*METHODS, *DECISION_METHODS, *PAGE_METHODS, *SUBSCRIPTION_METHODS], title="", version=""
    )
    kinds = [method.params_type or NoParams for method in methods]
    _, schemas = msgspec.json.schema_components(
        [*kinds, ErrorObject, Readiness], ref_template="#/components/schemas/{name}"
    )
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "LLM Trader RAG",
            "version": __version__,
            "description": "The HTTP port of rag-rpc-server. Results of methods: /openrpc.json and "
            "the other files of this folder. /ws takes the same documents as text frames of "
            f"WebSocket. {note}",
        },
        "paths": {
            "/rpc": {"post": _rpc()},
            "/livez": {"get": _page("Whether the process answers.", {200: _object("live")}, ())},
            "/readyz": {"get": _page("Whether queries can be answered.", _readiness(), ())},
            "/openrpc.json": {
                "get": _page("The methods, as OpenRPC.", {200: _object("openrpc", "methods")})
            },
            "/page/settings": {
                "get": _page("What the page at / must know first.", {200: _object("version")}, ())
            },
            "/page/readiness": {
                "get": _page("/readyz, always with the status 200.", {200: _object("ready")}, ())
            },
            "/metrics": {"get": _metrics()},
            "/graphql": {"post": _graphql()},
            "/mcp": {"post": _mcp()},
        },
        "security": [{}, {"key": []}],
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                **schemas,
                "Call": {"anyOf": [_call(*pair) for pair in zip(methods, kinds, strict=True)]},
                "Reply": _reply(),
                "Refusal": _refusal(),
            },
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _rpc() -> Document:
    call, reply = _ref("Call"), _ref("Reply")
    calls = {"type": "array", "items": call, "minItems": 1, "maxItems": _MOST_CALLS}
    replies = {"type": "array", "items": reply, "minItems": 1}
    return {
        "summary": "Calls methods: a JSON-RPC 2.0 document, which is one call or a batch.",
        "description": "An error of a method is an answer, with the status 200, and so is a batch "
        "whatever its members are.",
        "requestBody": _body({"anyOf": [call, calls]}),
        "responses": {
            "200": _answer("The reply, or those to a batch.", {"anyOf": [reply, replies]}),
            "204": {"description": "Nothing but notifications."},
            **_refusals(*_OF_ANY, *_OF_BODIES, *map(http_status, RAG_ERRORS.titles)),
        },
    }


def _graphql() -> Document:
    document = {
        "type": "object",
        "required": ["query"],
        "properties": {
            "query": {"type": "string"},
            "operationName": {"type": ["string", "null"]},
            "variables": {"type": ["object", "null"]},
        },
    }
    answer = {"type": "object", "anyOf": [{"required": ["data"]}, {"required": ["errors"]}]}
    statuses = sorted({*_OF_ANY, *_OF_BODIES})
    refusals = {"anyOf": [answer, _ref("Refusal")]}
    return {
        "summary": "Answers a GraphQL document; where serving.graphql is on.",
        "requestBody": _body(document),
        "responses": {
            "200": _answer("The fields, and errors of some.", answer),
            **{str(status): _answer(HTTPStatus(status).phrase, refusals) for status in statuses},
        },
    }


def _mcp() -> Document:
    message = {
        "type": "object",
        "required": ["jsonrpc", "method"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "method": {"type": "string"},
            "id": {"type": ["string", "integer"]},
            "params": {"type": "object"},
        },
    }
    # The SDK writes some refusals of its own, also with an id that is no client's.
    refusals = _object("jsonrpc", "error")
    statuses = sorted({*_OF_ANY, *_OF_BODIES, 404, 406})
    return {
        "summary": "Answers a message of the Model Context Protocol; where serving.mcp is on.",
        "requestBody": _body(message),
        "responses": {
            "200": _answer("The reply.", _object("jsonrpc", "id")),
            "202": {"description": "A notification."},
            **{str(status): _answer(HTTPStatus(status).phrase, refusals) for status in statuses},
        },
    }


def _metrics() -> Document:
    text = {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    page = _page("Metrics for Prometheus; where serving.metrics is on.", {})
    return {**page, "responses": {"200": text, **page["responses"]}}


def _page(
    summary: str, answers: dict[int, Document], refused: tuple[int, ...] = _OF_ANY
) -> Document:
    """A page that is open to all has no refusals of its own but those of HTTP itself."""
    responses = {str(code): _answer(summary, schema) for code, schema in answers.items()}
    refusals = _refusals(*(refused or set(_OF_ANY) - {401, *answers}))
    return {"summary": summary, "responses": {**refusals, **responses}}


def _readiness() -> dict[int, Document]:
    """To a client without a key, where one is asked for, the page gives no reasons."""
    brief: Document = {**_object("ready"), "properties": {"ready": {"type": "boolean"}}}
    shown = [_ref("Readiness"), {**brief, "additionalProperties": False}]
    return {200: {"anyOf": shown}, 503: {"anyOf": [*shown, _ref("Refusal")]}}


def _call(method: Method, kind: type[msgspec.Struct]) -> Document:
    properties = {
        "jsonrpc": {"const": "2.0"},
        "method": {"const": method.name},
        "id": {"type": ["string", "number", "null"]},
        "params": _ref(kind.__name__),
    }
    required = ["jsonrpc", "method", *(["params"] if method.params_type else [])]
    return {"type": "object", "required": required, "properties": properties}


def _reply() -> Document:
    shared = {"jsonrpc": {"const": "2.0"}, "id": {"type": ["string", "number", "null"]}}
    outcomes: list[tuple[str, Document]] = [("result", {}), ("error", _ref("ErrorObject"))]
    return {
        "oneOf": [
            {
                "type": "object",
                "required": ["jsonrpc", "id", name],
                "properties": {**shared, name: schema},
                "additionalProperties": False,
            }
            for name, schema in outcomes
        ]
    }


def _refusal() -> Document:
    return _reply()["oneOf"][1] | {"description": "The error of a document, or of HTTP itself."}


def _refusals(*statuses: int) -> Document:
    found = sorted({status for status in statuses if status >= 400})
    return {str(code): _answer(HTTPStatus(code).phrase, _ref("Refusal")) for code in found}


def _answer(description: str, schema: Document) -> Document:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _body(schema: Document) -> Document:
    return {"required": True, "content": {_JSON: {"schema": schema}}}


def _object(*required: str) -> Document:
    return {"type": "object", "required": list(required)}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}
