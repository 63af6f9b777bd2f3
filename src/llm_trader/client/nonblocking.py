"""The client for asyncio: calls share a few connections, many at once on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from llm_trader.client import calls
from llm_trader.client.calls import Call
from llm_trader.client.course import Course, Exchange, Wait, course
from llm_trader.client.endpoint import Endpoint
from llm_trader.client.errors import typed
from llm_trader.client.face import Face
from llm_trader.errors import LlmTraderError
from llm_trader.rpc.client import RpcClient
from llm_trader.rpc.conversation import Reply

P = ParamSpec("P")
T = TypeVar("T")


def _sent(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    async def send(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client.send(build(*args, **kwargs))

    send.__doc__ = build.__doc__
    return send


class AsyncClient(Face["TaskPool"]):
    """Use it as an async context manager, or call `close`. It connects when it first has to."""

    async def send(self, call: Call[T]) -> T:
        """The typed result of a call; raises the server's error by its type, or why none came."""
        steps: Course[T] = course(call, self._retries, self._timeout_s, time.monotonic)
        try:
            step = next(steps)
            while True:
                try:
                    reply = None
                    if isinstance(step, Wait):
                        await asyncio.sleep(step.seconds)
                    else:
                        reply = await self._exchange(step)
                except LlmTraderError as error:
                    step = steps.throw(typed(error))
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    query_patterns = _sent(calls.query_patterns)
    query_briefly = _sent(calls.query_briefly)
    query_batch = _sent(calls.query_batch)
    get_snapshot = _sent(calls.get_snapshot)
    get_candles = _sent(calls.get_candles)
    get_funding = _sent(calls.get_funding)
    get_open_interest = _sent(calls.get_open_interest)
    compare_states = _sent(calls.compare_states)
    series_report = _sent(calls.series_report)
    cohort_open = _sent(calls.cohort_open)
    cohort_refine = _sent(calls.cohort_refine)
    cohort_rank = _sent(calls.cohort_rank)
    list_decisions = _sent(calls.list_decisions)
    get_decision = _sent(calls.get_decision)
    paper_account = _sent(calls.paper_account)
    list_evaluations = _sent(calls.list_evaluations)
    forecast_quality = _sent(calls.forecast_quality)
    stats = _sent(calls.stats)
    ping = _sent(calls.ping)
    discover = _sent(calls.discover)
    reload_settings = _sent(calls.reload_settings)

    async def close(self) -> None:
        await self._pool.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _exchange(self, step: Exchange) -> Reply:
        until_s = time.monotonic() + step.timeout_s
        connection = await self._pool.connection(step.timeout_s)
        left_s = max(until_s - time.monotonic(), 0.001)
        return await connection.exchange(step.method, step.params, left_s)

    def _pool_of(self, endpoint: Endpoint, connections: int) -> TaskPool:
        return TaskPool(endpoint, connections)


class TaskPool:
    """Connections that many calls share at once; another one is opened while all have some."""

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        self._endpoint = endpoint
        self._max_connections = connections
        self._open: list[RpcClient] = []
        self._connecting = asyncio.Lock()

    async def close(self) -> None:
        closing, self._open = self._open, []
        for connection in closing:
            await connection.close()

    async def connection(self, timeout_s: float) -> RpcClient:
        """The one with the fewest calls under way; another one while all have some."""
        chosen = self._least_busy()
        if chosen is not None:
            return chosen
        async with self._connecting:
            chosen = self._least_busy()  # another call has connected meanwhile
            if chosen is not None:
                return chosen
            await self._drop_lost()
            endpoint = self._endpoint
            connection = await RpcClient.connect(
                endpoint.host,
                endpoint.port,
                timeout_s=timeout_s,
                token=endpoint.token_of_connection,
                codec=endpoint.codec,
                tls=endpoint.tls,
            )
            self._open.append(connection)
            return connection

    def _least_busy(self) -> RpcClient | None:
        usable = [connection for connection in self._open if not connection.is_lost]
        least = min(usable, key=lambda connection: connection.waiting, default=None)
        if least is None or (least.waiting and len(usable) < self._max_connections):
            return None
        return least

    async def _drop_lost(self) -> None:
        lost = [connection for connection in self._open if connection.is_lost]
        self._open = [connection for connection in self._open if not connection.is_lost]
        for connection in lost:
            await connection.close()
