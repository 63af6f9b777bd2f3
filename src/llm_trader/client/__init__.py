"""A client of the query server, in two faces over one core: `Client` for threads, `AsyncClient`.

1. `calls`         each method with its parameters and the type of its result, as data
2. `course`        the deadline and the attempts of a call (`retries`), step by step, without I/O
3. `blocking`, `nonblocking`  the faces, which do the steps; `face` is what both are made with, and
                  `blocking_pool` has the sockets of threads
4. `endpoint`      where a server is, over TCP or HTTP; `errors` its errors as exceptions

Bytes and ids are those of `rpc.conversation`. Importing it loads no arrays.
"""

from llm_trader.client import calls
from llm_trader.client.blocking import Client
from llm_trader.client.calls import Call
from llm_trader.client.nonblocking import AsyncClient
from llm_trader.client.retries import RetryPolicy
from llm_trader.rpc.conversation import ConnectionLostError, NoReplyError, RpcError

__all__ = [
    "AsyncClient",
    "Call",
    "Client",
    "ConnectionLostError",
    "NoReplyError",
    "RetryPolicy",
    "RpcError",
    "calls",
]
