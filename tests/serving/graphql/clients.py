"""A server with GraphQL on stub methods, clients that ask it, and documents that ask for all."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from graphql import GraphQLObjectType, GraphQLOutputType, get_named_type

from llm_trader.app.server import query_server
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.dispatcher import Dispatcher, Method, RequestContext
from llm_trader.rpc.http.app import JSON, RpcOverHttp, http_application
from llm_trader.rpc.http.server import HttpServer
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.observer import RequestObserver
from llm_trader.rpc.server import RpcServer
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.graphql.endpoint import GraphQlEndpoint
from llm_trader.serving.graphql.schema import graphql_schema
from llm_trader.serving.methods import METHODS
from llm_trader.serving.wire import RAG_ERRORS
from llm_trader.settings.tree import Settings
from tests.cli.corridor import END_MS
from tests.rpc.http.raw import Connection, Reply, http, post
from tests.rpc.stub import Doors

HORIZONS = ("15m", "1h", "4h", "24h")


class Asking:
    """A client that sends GraphQL documents."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def reply(
        self, document: str, variables: Mapping[str, Any] | None = None, **headers: str
    ) -> Reply:
        request = {"query": document, "variables": variables}
        return await self.connection.ask(post(request, path="/graphql", **headers))

    async def data(self, document: str, variables: Mapping[str, Any] | None = None) -> Any:
        reply = await self.reply(document, variables)
        assert reply.status == 200, reply.body
        assert "errors" not in reply.json, reply.body
        return reply.json["data"]

    async def error(self, document: str, variables: Mapping[str, Any] | None = None) -> Any:
        """The first error."""
        return (await self.reply(document, variables)).json["errors"][0]


@asynccontextmanager
async def asking(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Asking]:
    """A client of a server on a real store and a real index."""
    async with query_server(settings, environ or {}, lambda: END_MS) as server:
        await server.start()
        try:
            assert server.http_address is not None
            async with http(server.http_address) as connection:
                yield Asking(connection)
        finally:
            await server.stop()


def sample(kind: Any) -> Any:
    """A value of a type of the wire, complete where it may be null."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Annotated, Union, types.UnionType):
        return sample(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin is list:
        return [sample(arguments[0]) for _ in range(2)]
    if origin is tuple:
        return tuple(map(sample, arguments))
    if origin is dict:
        return {horizon: sample(arguments[1]) for horizon in HORIZONS}
    if issubclass(kind, msgspec.Struct):
        return kind(**{field.name: sample(field.type) for field in msgspec.structs.fields(kind)})
    return kind(3)


@asynccontextmanager
async def stub_server(
    handlers: Mapping[str, Any] | None = None,
    keys: KeyRing | None = None,
    observers: Sequence[RequestObserver] = (),
    **limits: Any,
) -> AsyncIterator[Doors]:
    """Both doors of a server whose methods answer samples, but those in `handlers`."""
    answered = []
    for method in METHODS:

        async def answer(params: Any, context: RequestContext, method: Method = method) -> Any:
            return sample(method.result_type)

        answered.append(replace(method, handler=(handlers or {}).get(method.name, answer)))
    methods = with_builtin_methods(answered, title="stub", version="1", errors=RAG_ERRORS)
    given = {"port": 0, "discard_s": 0.05, "drain_timeout_s": 2.0, "graphql": True, **limits}
    config = ServingConfig(**given)
    dispatcher = Dispatcher(methods, errors=RAG_ERRORS, observers=observers)
    gate = Admission(config, keys or KeyRing())
    rpc = RpcOverHttp(dispatcher, gate)
    endpoint = GraphQlEndpoint(dispatcher, gate, config)
    graphql = rpc.documents("/graphql", endpoint.answer, endpoint.refuse, frozenset({JSON}))
    routes = [*rpc.routes(), graphql]
    door = HttpServer(http_application(routes, config), config, gate)
    server = RpcServer(dispatcher, config, gate=gate, doors=[door])
    await server.start()
    try:
        yield Doors(server.address, door.address, server, gate)
    finally:
        await server.stop()


@asynccontextmanager
async def asking_stubs(**given: Any) -> AsyncIterator[Asking]:
    async with stub_server(**given) as doors, http(doors.http) as connection:
        yield Asking(connection)


def everything(field: str) -> str:
    """The selection of all that a field of the query has."""
    query = graphql_schema().query_type
    assert query is not None
    return _selection(query.fields[field].type)


def _selection(kind: GraphQLOutputType) -> str:
    named = get_named_type(kind)
    if not isinstance(named, GraphQLObjectType):
        return ""
    fields = (name + _selection(field.type) for name, field in named.fields.items())
    return "{" + " ".join(fields) + "}"


def as_on_the_wire(value: Any) -> Any:
    """A GraphQL answer with its entries as objects again."""
    if isinstance(value, dict):
        return {name: as_on_the_wire(item) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    if value and all(isinstance(item, dict) and item.keys() == {"key", "value"} for item in value):
        return {item["key"]: as_on_the_wire(item["value"]) for item in value}
    return [as_on_the_wire(item) for item in value]
