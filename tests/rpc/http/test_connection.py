"""What uvicorn does not limit: slow, large, rude and greedy clients of the HTTP port."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from tests.rpc.http.raw import Connection, call, get, http, post
from tests.rpc.stub import connected, serving_http, until

HEAD = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def drip(client: Connection, data: bytes) -> None:
    """A byte at a time, until the server hangs up."""
    try:
        for byte in data:
            client.send(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0.02)
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    "slow",
    [
        HEAD + b"X-Padding: " + b"x" * 1000,
        HEAD + b"Content-Length: 1000\r\n\r\n" + b" " * 1000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 200,
        b"\r\n" * 500,
    ],
    ids=["headers", "body", "chunks", "blank lines"],
)
async def test_dripping_bytes_do_not_move_a_requests_deadline(slow: bytes) -> None:
    async with serving_http(frame_timeout_s=0.3) as doors, http(doors.http) as client:
        dripping = asyncio.create_task(drip(client, slow))
        reply = await client.reply()
        assert reply is not None
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert "within 0.3 s" in reply.json["error"]["message"]
        assert await client.reply() is None
        dripping.cancel()


async def test_the_deadline_of_a_second_request_is_its_own() -> None:
    async with serving_http(frame_timeout_s=0.3) as doors, http(doors.http) as client:
        for _ in range(3):
            await asyncio.sleep(0.2)
            assert (await client.get("/livez")).status == 200
        client.send(get("/livez") + HEAD)
        statuses = [reply.status for _ in range(2) if (reply := await client.reply())]
        assert statuses == [200, 408]


async def test_a_request_that_waits_for_its_answer_is_not_slow() -> None:
    async with serving_http(frame_timeout_s=0.1) as doors, http(doors.http) as client:
        client.send(post(call("sleep", [0.4])) + post(call("sleep", [0.4])))
        replies = [await client.reply() for _ in range(2)]
        assert [reply.json["result"] for reply in replies if reply] == [0.4, 0.4]


async def test_a_silent_connection_is_closed_after_the_idle_timeout() -> None:
    async with serving_http(idle_timeout_s=0.1) as doors, http(doors.http) as client:
        assert await client.reply() is None


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.soak)])
async def test_slow_clients_on_each_door_leave_honest_ones_unharmed(count: int) -> None:
    async with serving_http(max_connections=2 * count + 4) as doors:
        slow = [await asyncio.open_connection(*doors.http) for _ in range(count)]
        slow += [await asyncio.open_connection(*doors.tcp) for _ in range(count)]
        for _, writer in slow[:count]:
            writer.write(HEAD + b"X-Padding: ")
        for _, writer in slow[count:]:
            writer.write(b'{"jsonrpc": "2.0", "method": [')
        async with (
            asyncio.TaskGroup() as others,
            http(doors.http) as client,
            connected(doors) as line,
        ):
            dripping = others.create_task(drip_on_all([writer for _, writer in slow]))
            for number in range(50):
                assert (await client.call("subtract", [number, 1])).json["result"] == number - 1
                assert (await line.call("subtract", [number, 1]))["result"] == number - 1
            assert not dripping.done()
            dripping.cancel()
        for _, writer in slow:
            writer.transport.abort()
        await until(lambda: doors.gate.connections == 0)
        assert doors.gate.received_bytes == 0


async def drip_on_all(writers: list[asyncio.StreamWriter]) -> None:
    while True:
        for writer in writers:
            writer.write(b"x")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_gets_a_reply_that_can_be_read(declared: bool) -> None:
    async with serving_http(max_frame_kib=1, discard_s=1.0) as doors, http(doors.http) as client:
        if declared:
            client.send(HEAD + b"Content-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
        else:
            chunk = b"800\r\n" + b"x" * 0x800 + b"\r\n"
            client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 1000)
        reply = await client.reply()
        assert reply is not None
        assert reply.status == 413
        assert "at most 1024 bytes" in reply.json["error"]["message"]
        assert await client.reply() is None
        await until(lambda: doors.gate.received_bytes == 0)


async def test_a_large_body_within_the_limit_is_answered() -> None:
    async with serving_http() as doors, http(doors.http) as client:
        state = {"price": 1, "rsi_7": 2}
        params = {"symbol": "x" * 900_000, "timestamp": 1, "current_state": state}
        reply = await client.call("query", params)
        assert reply.json["result"]["params"]["symbol"] == params["symbol"]
        await until(lambda: doors.gate.received_bytes == 0)


async def test_headers_without_end_are_refused() -> None:
    async with serving_http() as doors, http(doors.http) as client:
        client.send(HEAD + b"X-Padding: y\r\n" * 4000)
        reply = await client.reply()
        assert reply is not None
        assert reply.status == 431


async def test_garbage_is_answered_and_the_connection_closed() -> None:
    async with serving_http() as doors, http(doors.http) as client:
        reply = await client.ask(b'{"jsonrpc":"2.0","method":"rpc.ping","id":1}\n')
        assert reply.status == 400
        assert await client.reply() is None


async def test_a_refusal_comes_after_the_answers_of_earlier_requests() -> None:
    async with serving_http() as doors, http(doors.http) as client:
        client.send(post(call("sleep", [0.2])) + b"garbage\r\n\r\n" + get("/livez"))
        statuses = [reply.status for _ in range(2) if (reply := await client.reply())]
        assert statuses == [200, 400]
        assert await client.reply() is None


async def test_a_client_that_never_reads_is_cut_off() -> None:
    async with serving_http(write_timeout_s=0.2) as doors:
        with socket.create_connection(doors.http) as rude:
            rude.setblocking(False)
            request = post(call("fill", [1_000_000]))

            async def send_for_ever() -> None:
                while True:
                    await asyncio.get_running_loop().sock_sendall(rude, request)
                    await asyncio.sleep(0.01)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(send_for_ever(), 20)
        await until(lambda: doors.gate.connections == 0)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_resets_at_any_moment_leave_no_error_in_the_log(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    requests = [HEAD, post(call("sleep", [0.02])), post(call("fill", [3_000_000])), b"garbage\r\n"]

    async def reset(address: tuple[str, int], request: bytes, after_s: float) -> None:
        rude = socket.create_connection(address)
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rude.sendall(request)
        await asyncio.sleep(after_s)
        rude.close()

    async def main() -> None:
        async with serving_http() as doors:
            for after_s in (0, 0.002, 0.02):
                for request in requests:
                    await asyncio.gather(*(reset(doors.http, request * 3, after_s) for _ in "123"))
            await until(lambda: doors.gate.connections == 0)
            async with http(doors.http) as client:
                assert (await client.get("/livez")).status == 200

    with caplog.at_level(logging.INFO), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_memory_of_what_waits_for_an_answer_is_counted_for_both_doors() -> None:
    async with serving_http(max_received_mib=1) as doors:
        clients = [await asyncio.open_connection(*doors.http) for _ in range(4)]
        half = HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 900_000
        for _, writer in clients:
            writer.write(half)
            await writer.drain()
        replies = [await asyncio.wait_for(reader.readline(), 5) for reader, _ in clients[1:3]]
        assert any(reply.startswith(b"HTTP/1.1 503") for reply in replies)
        for _, writer in clients:
            writer.transport.abort()
        await until(lambda: doors.gate.received_bytes == 0)
