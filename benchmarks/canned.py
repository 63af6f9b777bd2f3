"""Servers that answer without retrieving. `python -m benchmarks.canned floor|rpc`, the reply's
result on standard input; prints the port.

`floor` writes the canned bytes; `rpc` is the project's RPC layer, decoding and checking the
parameters of `rag.query_patterns` and encoding a canned answer.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

from benchmarks.load import floor_server
from llm_trader.logs import configure_logging
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, Method, RequestContext
from llm_trader.rpc.server import RpcServer, run, serve, stop_on_signals
from llm_trader.serving.wire import QueryPatternsParams, QueryPatternsResult


async def _rpc_server(raw_result: bytes) -> None:
    result = msgspec.json.decode(raw_result, type=QueryPatternsResult)

    async def answer(params: Any, context: RequestContext) -> QueryPatternsResult:
        return result

    method = Method("rag.query_patterns", QueryPatternsParams, answer, "", QueryPatternsResult)
    stop = asyncio.Event()
    stop_on_signals(stop)
    server = RpcServer(Dispatcher([method]), RpcConfig(port=0))
    await serve(server, stop, lambda host, port: print(port, flush=True))


if __name__ == "__main__":
    configure_logging("warn")
    result = sys.stdin.buffer.read()
    if sys.argv[1] == "floor":
        run(floor_server(b'{"jsonrpc":"2.0","result":' + result + b',"id":1}\n'))
    else:
        run(_rpc_server(result))
