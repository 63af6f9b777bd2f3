"""The server's conduct towards clients that are many, slow, greedy, rude, or gone."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.server import RpcServer, serve
from tests.rpc.stub import Line, connected, serving, serving_http


def call(method: str, call_id: int, *params: object) -> bytes:
    request = {"jsonrpc": "2.0", "method": method, "params": params, "id": call_id}
    return json.dumps(request).encode() + b"\n"


async def send_for_ever(rude: socket.socket, data: bytes) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(rude, data)
        await asyncio.sleep(0.01)


async def test_after_a_half_close_pending_work_is_answered_before_the_end(line: Line) -> None:
    line.send(call("sleep", 1, 0.1) + call("subtract", 2, 5, 3).rstrip())
    line.writer.write_eof()
    replies = [json.loads(sent) async for sent in line.reader]
    assert {reply["id"]: reply["result"] for reply in replies} == {1: 0.1, 2: 2}


async def test_a_quick_request_overtakes_a_slow_one_sent_before(line: Line) -> None:
    line.send(call("sleep", 1, 0.3))
    await asyncio.sleep(0.05)
    line.send(call("subtract", 2, 5, 3))
    assert [(await line.receive())["id"], (await line.receive())["id"]] == [2, 1]


async def test_a_hundred_pipelined_requests_are_each_answered(line: Line) -> None:
    line.send(b"".join(call("sleep", n, 0.1 if n % 2 == 0 else 0) for n in range(100)))
    ids = [(await line.receive())["id"] for _ in range(100)]
    assert sorted(ids) == list(range(100))
    assert ids != sorted(ids)


async def test_a_connection_gets_no_more_answers_at_once_than_its_share() -> None:
    limits = {"max_in_flight_per_connection": 2, "max_in_flight": 3}
    async with serving(**limits) as server, connected(server) as line:
        line.send(b"".join(call("sleep", n, 0.02) for n in range(10)))
        replies = [await line.receive() for _ in range(10)]
        assert all("result" in reply for reply in replies)


async def test_a_document_byte_by_byte_is_answered(line: Line) -> None:
    for byte in call("subtract", 1, 5, 3):
        line.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await line.receive())["result"] == 2


async def test_a_pretty_printed_document_is_answered(line: Line) -> None:
    request = {"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 5, "subtrahend": 3}}
    line.send(json.dumps({**request, "id": 1}, indent=4).encode() + b"\n")
    assert (await line.receive())["result"] == 2


async def test_a_reply_is_one_line_whatever_it_contains(line: Line) -> None:
    state = {"price": 1, "rsi_7": 2}
    reply = await line.call("query", {"symbol": "a\nb", "timestamp": 1, "current_state": state})
    assert reply["result"]["params"]["symbol"] == "a\nb"


async def test_a_garbage_line_is_a_parse_error_and_the_connection_stays(line: Line) -> None:
    line.send(b"{invalid json}\n")
    reply = await line.receive()
    assert (reply["error"]["code"], reply["id"]) == (-32700, None)
    assert (await line.call("subtract", [5, 3]))["result"] == 2


async def test_a_document_that_never_closes_is_a_parse_error_at_its_deadline() -> None:
    async with serving(frame_timeout_s=0.1) as server, connected(server) as line:
        line.send(b'{"a": [\n')
        assert (await line.receive())["error"]["code"] == -32700
        assert await line.receive() is None


async def test_a_document_without_its_line_end_is_answered_after_a_moment(line: Line) -> None:
    line.send(call("subtract", 1, 5, 3).rstrip())
    assert (await line.receive())["result"] == 2
    assert (await line.call("subtract", [7, 3]))["result"] == 4


@pytest.mark.parametrize(
    "request_line", [b"GET / HTTP/1.1", b"POST /rpc HTTP/1.0", b"PRI * HTTP/2"]
)
async def test_a_client_that_speaks_http_is_told_the_right_port(request_line: bytes) -> None:
    body = call("subtract", 1, 5, 3)
    async with serving_http() as doors, connected(doors) as line:
        line.send(request_line + b"\r\nHost: localhost\r\n\r\n" + body)
        reply = await line.reader.read()
    head, _, sent = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert f"use port {doors.http[1]}: POST /rpc" in json.loads(sent)["error"]["message"]
    assert b"result" not in reply  # a web page could have sent the body


async def test_a_client_that_speaks_http_to_a_server_without_it_is_told_so(line: Line) -> None:
    line.send(b"GET / HTTP/1.1\r\n\r\n")
    assert b"started without HTTP" in await line.reader.read()


async def test_dripping_bytes_do_not_move_a_documents_deadline() -> None:
    async with serving(frame_timeout_s=0.2) as server, connected(server) as line:
        reply = asyncio.create_task(line.receive())
        line.send(b"{")
        while not reply.done():
            line.send(b" ")
            await asyncio.sleep(0.02)
        assert (await reply)["error"]["code"] == -32700


async def test_a_silent_connection_is_closed_after_the_idle_timeout() -> None:
    async with serving(idle_timeout_s=0.1) as server, connected(server) as line:
        assert (await line.call("rpc.ping"))["result"]["pong"] is True
        assert await line.receive() is None


async def test_a_connection_that_waits_for_an_answer_is_not_idle() -> None:
    async with serving(idle_timeout_s=0.05) as server, connected(server) as line:
        assert (await line.call("sleep", [0.25]))["result"] == 0.25


async def test_an_oversize_document_gets_a_reply_that_can_be_read() -> None:
    limits = {"max_frame_kib": 1, "discard_s": 1.0}
    async with serving(**limits) as server, connected(server) as line:
        line.send(b'{"a": "' + b"x" * 3_000_000)
        reply = await line.receive()
        assert (reply["error"]["code"], reply["id"]) == (-32600, None)
        assert reply["error"]["data"] == {"limit_bytes": 1024}
        assert await line.receive() is None


async def test_a_client_that_never_reads_is_cut_off() -> None:
    async with serving(write_timeout_s=0.1) as server:
        with socket.create_connection(server.address) as rude:
            rude.setblocking(False)
            with pytest.raises(ConnectionError):
                await send_for_ever(rude, call("fill", 1, 1_000_000))


async def test_a_client_that_leaves_in_the_middle_harms_nobody(line: Line) -> None:
    reader, writer = await asyncio.open_connection(*line.writer.get_extra_info("peername"))
    writer.write(call("sleep", 1, 0.05) + call("fill", 2, 5_000_000))
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert (await line.call("rpc.ping"))["result"]["pong"] is True
    del reader


async def test_a_connection_too_many_is_told_so_and_closed() -> None:
    async with serving(max_connections=1) as server, connected(server) as first:
        assert (await first.call("rpc.ping"))["result"]["pong"] is True
        async with connected(server) as second:
            assert (await second.receive())["error"]["code"] == -32012
            assert await second.receive() is None
        assert (await first.call("rpc.ping"))["result"]["pong"] is True


async def test_a_place_freed_by_a_leaving_client_is_given_again() -> None:
    async with serving(max_connections=1) as server:
        for _ in range(3):
            async with connected(server) as line:
                assert (await line.call("rpc.ping"))["result"]["pong"] is True
            await asyncio.sleep(0.02)


async def test_calls_beyond_the_load_limit_are_refused_under_their_id() -> None:
    async with serving(max_in_flight=1) as server, connected(server) as busy:
        busy.send(call("sleep", 1, 0.2))
        await asyncio.sleep(0.05)
        async with connected(server) as other:
            refusal = await other.call("subtract", [5, 3], call_id="mine")
            assert (refusal["error"]["code"], refusal["id"]) == (-32012, "mine")
            assert (await busy.receive())["result"] == 0.2
            assert (await other.call("subtract", [5, 3]))["result"] == 2


async def test_a_batch_counts_as_its_members_against_the_load_limit() -> None:
    async with serving(max_in_flight=2) as server, connected(server) as line:
        member = {"jsonrpc": "2.0", "method": "sleep", "params": [0.05]}
        replies = await line.ask([{**member, "id": n} for n in range(3)])
        assert [reply.get("error", {}).get("code") for reply in replies] == [None, None, -32012]


async def test_calls_beyond_the_rate_are_told_when_to_come_back() -> None:
    async with serving(rate_limit_per_s=5.0, rate_burst=2) as server, connected(server) as line:
        replies = [await line.call("rpc.ping") for _ in range(3)]
        assert ["result" in reply for reply in replies] == [True, True, False]
        error = replies[2]["error"]
        assert error["code"] == -32011
        assert 0 < error["data"]["retry_after_ms"] <= 200
        await asyncio.sleep(error["data"]["retry_after_ms"] / 1000 + 0.05)
        assert "result" in await line.call("rpc.ping")


async def test_a_call_past_its_deadline_is_cancelled_and_told_so() -> None:
    async with serving(request_deadline_s=0.05) as server, connected(server) as line:
        assert (await line.call("sleep", [30]))["error"]["code"] == -32013
        assert (await line.call("subtract", [5, 3]))["result"] == 2


async def test_stopping_refuses_new_calls_finishes_those_under_way_and_closes() -> None:
    async with serving() as server, connected(server) as line:
        line.send(call("sleep", 1, 0.2))
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.02)
        refusal = await line.call("subtract", [5, 3], call_id=2)
        assert (refusal["error"]["code"], refusal["id"]) == (-32000, 2)
        assert "draining" in refusal["error"]["message"]
        assert (await line.receive())["result"] == 0.2
        assert await line.receive() is None
        await stopping


async def test_stopping_sends_a_large_reply_to_the_end() -> None:
    async with serving(discard_s=1.0) as server, connected(server) as line:
        line.send(call("fill", 1, 5_000_000))
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(server.stop())
        assert len((await line.receive())["result"]) == 5_000_000
        await line.close()
        await stopping


async def test_stopping_gives_up_on_work_past_the_drain_timeout() -> None:
    async with serving(drain_timeout_s=0.1) as server, connected(server) as line:
        line.send(call("sleep", 1, 30))
        await asyncio.sleep(0.05)
        await server.stop()
        assert await line.receive() is None


async def test_nobody_can_connect_once_the_server_stopped() -> None:
    async with serving() as server:
        address = server.address
        await server.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        with pytest.raises(ConfigurationError):
            _ = server.address


async def test_serve_tells_its_address_and_runs_until_the_event() -> None:
    server, stop, seen = RpcServer(Dispatcher([]), RpcConfig(port=0)), asyncio.Event(), []

    def on_ready(host: str, port: int) -> None:
        seen.append((host, port))
        stop.set()

    await serve(server, stop, on_ready)
    assert seen[0][0] == "127.0.0.1"


async def test_a_taken_port_is_a_configuration_error_with_a_remedy() -> None:
    async with serving() as server:
        second = RpcServer(Dispatcher([]), RpcConfig(port=server.address[1]))
        with pytest.raises(ConfigurationError, match="choose another port"):
            await second.start()


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_in_flight must be above zero"):
        RpcConfig(max_in_flight=0)
