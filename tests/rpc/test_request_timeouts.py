"""`timeout_ms` of a request: it ends with -32013, and others have what it held."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.server import RpcServer
from tests.rpc.stub import Line, Seconds, connected, serving

PAST_DEADLINE = -32013


class Busy:
    """A method that computes in steps of 5 ms, and counts its calls and their steps."""

    def __init__(self) -> None:
        self.calls = self.steps = 0
        self.method = Method("busy", Seconds, self._compute, "Computes.", None)

    async def _compute(self, params: Seconds, context: RequestContext) -> None:
        self.calls += 1
        until_s = time.monotonic() + params.seconds
        while time.monotonic() < until_s:
            step_ends_s = time.monotonic() + 0.005
            while time.monotonic() < step_ends_s:
                pass
            self.steps += 1
            await context.pause()


def holds_nothing(server: RpcServer) -> bool:
    gate = server._gate
    return not gate._in_flight and not gate._work._lines and not gate._quick._lines


async def test_a_request_past_its_own_timeout_frees_its_place_among_those_at_work() -> None:
    async with serving(max_in_flight=1) as server, connected(server) as line:
        late = await line.call("sleep", {"seconds": 60.0, "timeout_ms": 50})
        assert late["error"]["code"] == PAST_DEADLINE
        assert (await line.call("sleep", {"seconds": 0.0}))["result"] == 0.0
        assert holds_nothing(server)


async def test_a_request_past_its_timeout_in_the_queue_never_begins() -> None:
    busy = Busy()
    async with serving(busy.method) as server, connected(server) as one, connected(server) as two:
        one.send_json(busy_call(0.4))
        await asyncio.sleep(0.05)
        answer = await two.ask(busy_call(0.4, timeout_ms=50))
        assert answer["error"]["code"] == PAST_DEADLINE
        assert busy.calls == 1
        assert "result" in await one.receive()
        assert holds_nothing(server)


async def test_a_request_that_computes_ends_at_its_next_pause() -> None:
    busy = Busy()
    async with serving(busy.method) as server, connected(server) as line:
        answer = await line.ask(busy_call(60.0, timeout_ms=60))
        assert answer["error"]["code"] == PAST_DEADLINE
        steps = busy.steps
        assert (await line.call("sleep", {"seconds": 0.05}))["result"] == 0.05
        assert busy.steps == steps
        assert holds_nothing(server)


async def test_a_timeout_cannot_lengthen_the_servers_deadline() -> None:
    async with serving(request_deadline_s=0.1) as server, connected(server) as line:
        answer = await line.call("sleep", {"seconds": 60.0, "timeout_ms": 600_000})
        assert answer["error"]["code"] == PAST_DEADLINE


async def test_each_call_of_a_batch_has_its_own_timeout(line: Line) -> None:
    calls = [
        {"jsonrpc": "2.0", "id": i, "method": "sleep", "params": params}
        for i, params in enumerate(({"seconds": 60.0, "timeout_ms": 50}, {"seconds": 0.01}))
    ]
    late, quick = sorted(await line.ask(calls), key=lambda reply: reply["id"])
    assert late["error"]["code"] == PAST_DEADLINE
    assert quick["result"] == 0.01


@pytest.mark.parametrize("timeout_ms", [0, -5, "soon", 1e12])
async def test_a_timeout_that_is_none_is_refused_by_name(line: Line, timeout_ms: Any) -> None:
    answer = await line.call("get_data", {"timeout_ms": timeout_ms})
    assert answer["error"]["code"] == -32602
    assert answer["error"]["data"]["errors"][0]["field"] == "timeout_ms"


def busy_call(seconds: float, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "busy", "params": {"seconds": seconds, **more}}
