"""A server with stub methods, and a raw line client: what the socket tests stand on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, NamedTuple

import msgspec

from llm_trader.errors import LlmTraderError
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.client_limits import ClientLimits
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, Method, RequestContext
from llm_trader.rpc.errors import PROTOCOL_ERRORS, ErrorTable
from llm_trader.rpc.http.app import RpcOverHttp, http_application
from llm_trader.rpc.http.server import HttpServer
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.observer import RequestObserver
from llm_trader.rpc.server import RpcServer
from llm_trader.rpc.tls import ServerTls


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    minuend: int
    subtrahend: int


class Three(msgspec.Struct, forbid_unknown_fields=True):
    a: int
    b: int
    c: int


class Update(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    e: int = 0


class Hello(msgspec.Struct, forbid_unknown_fields=True):
    value: int


class State(msgspec.Struct, forbid_unknown_fields=True):
    price: float
    rsi_7: float
    rsi_14: float | None = None


class Config(msgspec.Struct, forbid_unknown_fields=True):
    top_k: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5
    horizons: list[int] = []


class Query(msgspec.Struct, forbid_unknown_fields=True):
    symbol: str
    timestamp: int
    current_state: State
    query_config: Config = msgspec.field(default_factory=Config)


class Seconds(msgspec.Struct, forbid_unknown_fields=True):
    seconds: float


class Size(msgspec.Struct, forbid_unknown_fields=True):
    size: int


async def subtract(params: Pair, context: RequestContext) -> int:
    return params.minuend - params.subtrahend


async def add(params: Three, context: RequestContext) -> int:
    return params.a + params.b + params.c


async def ignore(params: Any, context: RequestContext) -> None:
    return None


async def get_data(params: None, context: RequestContext) -> list[Any]:
    return ["hello", 5]


async def query(params: Query, context: RequestContext) -> dict[str, Any]:
    return {"params": params, "unknown_fields": context.unknown_fields}


async def sleep(params: Seconds, context: RequestContext) -> float:
    await asyncio.sleep(params.seconds)
    return params.seconds


async def fill(params: Size, context: RequestContext) -> str:
    return "x" * params.size


def stub_methods() -> list[Method]:
    return [
        Method("subtract", Pair, subtract, "Minuend less subtrahend.", int),
        Method("sum", Three, add, "The sum of three.", int),
        Method("update", Update, ignore, "Nothing."),
        Method("notify_sum", Three, ignore, "Nothing."),
        Method("notify_hello", Hello, ignore, "Nothing."),
        Method("get_data", None, get_data, "A list.", list[Any]),
        Method("query", Query, query, "Its own parameters.", dict[str, Any]),
        Method("sleep", Seconds, sleep, "Sleeps.", float),
        Method("fill", Size, fill, "A long string.", str),
    ]


def raising(name: str, error: BaseException) -> Method:
    async def fail(params: None, context: RequestContext) -> None:
        raise error

    kinds = (type(error),) if isinstance(error, LlmTraderError) else ()
    return Method(name, None, fail, "Fails.", None, kinds)


class Line:
    """One connection that speaks lines of JSON."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_json(self, *documents: Any) -> None:
        self.send(b"".join(json.dumps(d).encode() + b"\n" for d in documents))

    async def receive(self) -> Any:
        line = await asyncio.wait_for(self.reader.readline(), 5)
        return json.loads(line) if line else None

    async def ask(self, document: Any) -> Any:
        self.send_json(document)
        return await self.receive()

    async def call(self, method: str, params: Any = None, call_id: Any = 1) -> Any:
        request = {"jsonrpc": "2.0", "method": method, "id": call_id}
        return await self.ask(request if params is None else {**request, "params": params})

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@asynccontextmanager
async def serving(
    *extra: Method,
    keys: KeyRing | None = None,
    errors: ErrorTable = PROTOCOL_ERRORS,
    observers: Sequence[RequestObserver] = (),
    limits: ClientLimits | None = None,
    tls: ServerTls | None = None,
    **settings: Any,
) -> AsyncIterator[RpcServer]:
    methods = with_builtin_methods(
        [*stub_methods(), *extra], title="stub", version="1.2.3", errors=errors
    )
    config = RpcConfig(**{"port": 0, "discard_s": 0.05, "drain_timeout_s": 2.0, **settings})
    dispatcher = Dispatcher(methods, errors=errors, observers=observers)
    gate = Admission(config, keys or KeyRing(), limits)
    server = RpcServer(dispatcher, config, gate=gate, tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Doors(NamedTuple):
    """The addresses of a server with both doors."""

    tcp: tuple[str, int]
    http: tuple[str, int]
    server: RpcServer
    gate: Admission


@asynccontextmanager
async def serving_http(
    *extra: Method, keys: KeyRing | None = None, tls: ServerTls | None = None, **limits: Any
) -> AsyncIterator[Doors]:
    methods = with_builtin_methods([*stub_methods(), *extra], title="stub", version="1.2.3")
    config = RpcConfig(**{"port": 0, "discard_s": 0.05, "drain_timeout_s": 2.0, **limits})
    dispatcher, gate = Dispatcher(methods), Admission(config, keys or KeyRing())
    rpc = RpcOverHttp(dispatcher, gate)

    async def live(authenticated: bool) -> tuple[int, Any]:
        return 200, {"live": True}

    pages = [rpc.page("/livez", live, open_to_all=True), rpc.page("/with-a-key", live)]
    routes = [*rpc.routes(), *pages]
    door = HttpServer(http_application(routes, config), config, gate, tls)
    server = RpcServer(dispatcher, config, gate=gate, doors=[door], tls=tls)
    await server.start()
    try:
        yield Doors(server.address, door.address, server, gate)
    finally:
        await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Returns when a condition is met; fails after 10 s."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nothing else would tell
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(server: RpcServer | Doors) -> AsyncIterator[Line]:
    address = server.tcp if isinstance(server, Doors) else server.address
    reader, writer = await asyncio.open_connection(*address, limit=1 << 24)
    line = Line(reader, writer)
    try:
        yield line
    finally:
        await line.close()
