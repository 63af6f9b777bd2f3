"""One client's work does not keep others waiting; deadlines, caps and stops fire under load."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.fair_queue import FairQueue
from tests.rpc.stub import Line, Seconds, connected, serving


class Desk:
    """A method that computes, as queries do: it holds the event loop. Keeps who was served."""

    def __init__(self) -> None:
        self.served: list[str] = []

    def method(self) -> Method:
        return Method("compute", Seconds, self.compute, "Computes for so long.", int)

    async def compute(self, params: Seconds, context: RequestContext) -> int:
        self.served.append(context.session.peer)
        time.sleep(params.seconds)  # noqa: ASYNC251  holding the loop is the point
        return len(self.served)


def compute(call_id: int, seconds: float = 0.01) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "compute", "params": [seconds], "id": call_id}


def codes(replies: list[dict[str, Any]]) -> Counter[int]:
    return Counter(reply["error"]["code"] if "error" in reply else 0 for reply in replies)


def peer_of(line: Line) -> str:
    return "{}:{}".format(*line.writer.get_extra_info("sockname"))


async def until_served(desk: Desk, count: int) -> None:
    async with asyncio.timeout(5):
        while len(desk.served) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


@asynccontextmanager
async def two_clients(desk: Desk) -> AsyncIterator[tuple[Line, Line]]:
    async with (
        serving(desk.method()) as server,
        connected(server) as one,
        connected(server) as other,
    ):
        yield one, other


async def test_a_ping_does_not_wait_for_the_batches_of_another() -> None:
    desk = Desk()
    async with two_clients(desk) as (greedy, other):
        greedy.send_json(*[[compute(n) for n in range(100)]] * 8)
        await until_served(desk, 3)
        before = len(desk.served)
        assert (await other.call("rpc.ping"))["result"]["pong"] is True
        assert len(desk.served) - before <= 3


async def test_a_query_is_served_among_the_next_whatever_another_has_queued() -> None:
    desk = Desk()
    async with two_clients(desk) as (greedy, other):
        greedy.send_json([compute(n) for n in range(100)])
        await until_served(desk, 3)
        for _ in range(5):
            before = len(desk.served)
            assert "result" in await other.call("compute", [0.01])
            assert peer_of(other) in desk.served[before : before + 4]


async def test_clients_that_all_ask_at_once_take_turns() -> None:
    desk = Desk()
    async with (
        serving(desk.method()) as server,
        connected(server) as first,
        connected(server) as second,
    ):
        for line in (first, second):
            line.send_json([compute(n, 0.002) for n in range(50)])
        replies = [await line.receive() for line in (first, second)]
        assert all(codes(reply) == {0: 50} for reply in replies)
        served = Counter(desk.served[10:50])
        assert min(served[peer_of(first)], served[peer_of(second)]) >= 10


async def test_the_calls_of_a_batch_that_have_no_turn_by_the_deadline_are_not_made() -> None:
    desk = Desk()
    limits = {"request_deadline_s": 0.2}
    async with serving(desk.method(), **limits) as server, connected(server) as line:
        replies = await line.ask([compute(n) for n in range(100)])
        # -32013 is the one that was at work at the deadline.
        assert {0, -32012} <= set(codes(replies)) <= {0, -32012, -32013}
        assert [reply["id"] for reply in replies] == list(range(100))
        # The one at work at the deadline is told of it as well.
        assert codes(replies)[0] <= len(desk.served) <= codes(replies)[0] + 1 < 40


async def test_a_batch_that_is_known_to_take_too_long_is_refused_in_part_at_once() -> None:
    desk = Desk()
    limits = {"request_deadline_s": 0.3}
    async with serving(desk.method(), **limits) as server, connected(server) as line:
        await line.call("compute", [0.01])
        replies = await line.ask([compute(n) for n in range(100)])
        assert codes(replies)[-32012] > 50
        assert codes(replies)[0] >= 10
        assert len(desk.served) < 41


async def test_single_calls_wait_unread_rather_than_miss_their_deadline() -> None:
    desk = Desk()
    # Were all 32 that a connection may have at work taken up at once, ten would come too late.
    limits = {"request_deadline_s": 1.5}
    async with serving(desk.method(), **limits) as server, connected(server) as line:
        await line.call("compute", [0.07])
        line.send_json(*(compute(n, 0.07) for n in range(50)))
        replies = [await line.receive() for _ in range(50)]
        assert codes(replies) == {0: 50}


@pytest.mark.parametrize("between", [b"", b"\n" * 50])
async def test_thousands_of_lines_in_one_read_are_all_answered_and_a_ping_passes(
    between: bytes,
) -> None:
    async with (
        serving() as server,
        connected(server) as greedy,
        connected(server) as other,
    ):
        greedy.send((b"{}\n" + between) * 3000)
        greedy.writer.write_eof()
        refusals = asyncio.create_task(greedy.reader.read())
        assert "result" in await other.call("rpc.ping")
        assert not refusals.done()
        assert (await asyncio.wait_for(refusals, 30)).count(b"-32600") == 3000


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("batches", [1, 4])  # with four, the server does not read meanwhile
async def test_a_client_that_is_gone_is_not_worked_for(reset: bool, batches: int) -> None:
    desk = Desk()
    async with (
        serving(desk.method()) as server,
        connected(server) as gone,
        connected(server) as other,
    ):
        if reset:
            linger = struct.pack("ii", 1, 0)
            sock = gone.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        gone.send_json(*[[compute(n, 0.02) for n in range(100)]] * batches)
        await until_served(desk, 3)
        gone.writer.transport.abort()
        await asyncio.sleep(0.8)
        before = len(desk.served)
        await asyncio.sleep(0.2)
        assert len(desk.served) == before < 60
        assert "result" in await other.call("compute", [0.01])


async def test_a_stop_ends_in_its_bound_while_work_is_queued() -> None:
    desk = Desk()
    async with (
        serving(desk.method(), drain_timeout_s=0.3) as server,
        connected(server) as greedy,
        connected(server) as idle,
    ):
        greedy.send_json(*[[compute(n) for n in range(100)]] * 8)
        await until_served(desk, 3)
        started_s = time.monotonic()
        await server.stop()
        assert time.monotonic() - started_s < 0.3 + 2
        assert len(desk.served) < 100
        assert await idle.receive() is None


async def test_a_stop_ends_in_its_bound_while_a_client_leaves_its_reply_unread() -> None:
    async with serving(drain_timeout_s=0.3) as server, connected(server) as rude:
        rude.reader._transport.pause_reading()  # type: ignore[attr-defined]
        rude.send_json({"jsonrpc": "2.0", "method": "fill", "params": [20_000_000], "id": 1})
        await asyncio.sleep(0.1)
        started_s = time.monotonic()
        await server.stop()
        assert time.monotonic() - started_s < 0.3 + 2


async def test_a_long_call_lets_pings_pass_where_it_pauses() -> None:
    pauses = asyncio.Event()

    async def two_steps(params: None, context: RequestContext) -> int:
        pauses.set()
        for _ in range(20):
            time.sleep(0.02)  # noqa: ASYNC251
            await context.pause()
        return 1

    method = Method("two_steps", None, two_steps, "Pauses.", int)
    async with (
        serving(method) as server,
        connected(server) as slow,
        connected(server) as other,
    ):
        reply = asyncio.create_task(slow.call("two_steps"))
        await pauses.wait()
        assert "result" in await other.call("rpc.ping")
        assert not reply.done()
        assert (await reply)["result"] == 1


async def test_short_steps_without_a_pause_add_up_to_a_long_one() -> None:
    began = asyncio.Event()

    async def many_steps(params: None, context: RequestContext) -> None:
        began.set()
        for _ in range(100):
            time.sleep(0.002)  # noqa: ASYNC251
            await context.pause()

    method = Method("many_steps", None, many_steps, "Pauses.", None)
    async with (
        serving(method) as server,
        connected(server) as slow,
        connected(server) as other,
    ):
        reply = asyncio.create_task(slow.call("many_steps"))
        await began.wait()
        for _ in range(3):
            assert "result" in await other.call("rpc.ping")
        assert not reply.done()
        await reply


async def test_addresses_share_alike_however_many_connections_each_has() -> None:
    queue, served = FairQueue(1), []

    async def work(peer: str) -> None:
        for _ in range(10):
            await queue.turn(peer, "work")
            time.sleep(0.001)  # noqa: ASYNC251
            served.append(peer.rpartition(":")[0])

    peers = [f"10.0.0.1:{port}" for port in range(9)] + ["10.0.0.2:1"]
    await asyncio.gather(*map(work, peers))
    # The single connection has no more than one turn waiting, and still gets every other one.
    assert served[:22].count("10.0.0.2") >= 8


async def test_one_question_at_a_time_is_quick_beside_any_number_that_send_ahead() -> None:
    queue, served = FairQueue(8), []

    async def work(peer: str, times: int) -> None:
        for _ in range(times):
            await queue.turn(peer, "work")
            time.sleep(0.001)  # noqa: ASYNC251
            queue.end_work()
            served.append(peer)

    ahead = [f"10.0.0.1:{port}" for port in range(60) for _ in range(10)]
    flood = [asyncio.create_task(work(peer, 1)) for peer in ahead]
    while len(served) < 20:  # noqa: ASYNC110
        await asyncio.sleep(0)
    before = len(served)
    await work("10.0.0.1:100", 20)
    assert len(served) - before < 20 * 5
    await asyncio.gather(*flood)


async def test_a_costly_turn_of_one_does_not_delay_another_of_its_kind_for_as_long() -> None:
    queue, served = FairQueue(8), []

    async def work(peer: str, seconds: float) -> None:
        await queue.turn(peer, "work")
        time.sleep(seconds)  # noqa: ASYNC251
        queue.end_work()
        served.append(peer)

    flood = [asyncio.create_task(work("10.0.0.1:1", 0.001)) for _ in range(400)]
    await asyncio.sleep(0)
    await work("10.0.0.1:2", 0.3)
    before = len(served)
    await work("10.0.0.1:3", 0.001)
    assert len(served) - before < 100
    await asyncio.gather(*flood)


async def test_a_cancelled_turn_leaves_the_queue() -> None:
    queue = FairQueue(1)
    await queue.turn("10.0.0.1:1", "work")
    waiting = [asyncio.create_task(queue.turn("10.0.0.1:1", "work")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    await asyncio.wait_for(queue.turn("10.0.0.2:1", "work"), 5)


async def test_discovery_is_encoded_once(line: Line) -> None:
    from llm_trader.rpc.builtin import with_builtin_methods

    methods = {m.name: m for m in with_builtin_methods([], title="t", version="1")}
    discover, context = methods["rpc.discover"].handler, RequestContext()
    first, second = [await discover(None, context) for _ in range(2)]
    assert first is second
    assert isinstance(first, msgspec.Raw)
    line.send_json({"jsonrpc": "2.0", "method": "rpc.discover", "id": 1})
    assert json.loads(await line.reader.readline())["result"]["openrpc"]
