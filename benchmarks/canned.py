"""Servers that answer without retrieving. `python -m benchmarks.canned floor|rpc|http|doors`, the
reply's result on standard input; prints the port.

`floor` writes the canned bytes; `rpc` is the project's RPC layer, decoding and checking the
parameters of `rag.query_patterns` and encoding a canned answer; `http` is the same by HTTP. `doors`
is both, and prints both ports.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

from benchmarks.load import floor_server
from llm_trader.logs import configure_logging
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, Method, RequestContext
from llm_trader.rpc.http.app import RpcOverHttp, http_application
from llm_trader.rpc.http.server import HttpServer
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.server import RpcServer, run, serve, stop_on_signals
from llm_trader.serving.wire import QueryPatternsParams, QueryPatternsResult


async def _rpc_server(raw_result: bytes, kind: str) -> None:
    result = msgspec.json.decode(raw_result, type=QueryPatternsResult)

    async def answer(params: Any, context: RequestContext) -> QueryPatternsResult:
        return result

    method = Method("rag.query_patterns", QueryPatternsParams, answer, "", QueryPatternsResult)
    stop = asyncio.Event()
    stop_on_signals(stop)
    config, dispatcher = RpcConfig(port=0), Dispatcher([method])
    gate = Admission(config, KeyRing())
    rpc = RpcOverHttp(dispatcher, gate)
    http = HttpServer(http_application(rpc.routes(), config), config, gate)
    server = RpcServer(dispatcher, config, gate=gate, doors=[http])
    doors = {"rpc": [server], "http": [http], "doors": [server, http]}[kind]
    await serve(
        server, stop, lambda host, port: print(*(door.address[1] for door in doors), flush=True)
    )


if __name__ == "__main__":
    configure_logging("warn")
    result = sys.stdin.buffer.read()
    if sys.argv[1] == "floor":
        run(floor_server(b'{"jsonrpc":"2.0","result":' + result + b',"id":1}\n'))
    else:
        run(_rpc_server(result, sys.argv[1]))
