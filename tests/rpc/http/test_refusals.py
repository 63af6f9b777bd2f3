"""What each refusal says over HTTP: the status, when to come back, and a JSON-RPC error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from llm_trader.rpc.keys import KeyRing
from tests.rpc.http.raw import Connection, Reply, call, get, http, post
from tests.rpc.stub import connected, raising, serving_http

PING = call("rpc.ping", call_id="mine")
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
BATCH = [call("subtract", [5, 3]), call("no_such"), {"no": "call"}]


class Case(NamedTuple):
    """`id` is what the body answers; `headers` are some of the response's."""

    name: str
    request: bytes
    status: int
    code: int
    id: Any = None
    headers: Mapping[str, str] = MappingProxyType({})


def line(text: str) -> bytes:
    return text.encode() + b"\r\nHost: localhost\r\nContent-Type: application/json\r\n"


CLOSE = {"connection": "close"}
CASES = [
    Case("no JSON", post(b"{nonsense"), 400, -32700),
    Case("no body", post(b""), 400, -32700),
    Case("no call", post({"jsonrpc": "2.0", "id": "mine"}), 400, -32600, "mine"),
    Case("an empty batch", post([]), 400, -32600),
    Case("a long batch", post([PING] * 101), 400, -32600),
    Case("too deep", post(b"[" * 40 + b"]" * 40), 400, -32600),
    Case("no method", post(call("no_such", call_id=7)), 200, -32601, 7),
    Case("wrong parameters", post(call("subtract", ["x"], 7)), 200, -32602, 7),
    Case("a fault of the server", post(call("broken", call_id=7)), 500, -32603, 7),
    Case("too late", post(call("sleep", [30], 7)), 504, -32013, 7),
    Case("another type of body", post(PING, Content_Type="text/plain"), 415, -32600),
    Case("no path", get("/no-such"), 404, -32600),
    Case("a slash too many", post(PING, "/rpc/"), 404, -32600),
    Case("no method of HTTP", get("/rpc"), 405, -32600, None, {"allow": "post"}),
    Case("a page that takes no POST", post(PING, "/livez"), 405, -32600),
    Case("a foreign host", get("/livez", Host="evil.example"), 421, -32600, None, CLOSE),
    Case("no host name", get("/livez", Host="[::1"), 400, -32600, None, CLOSE),
    Case("a foreign origin", get("/livez", Origin="http://evil.example"), 403, -32600, None, CLOSE),
    Case("an unreadable origin", get("/livez", Origin="http://["), 403, -32600, None, CLOSE),
    Case("no HTTP", b"nonsense\r\n\r\n", 400, -32600, None, CLOSE),
    Case("two lengths", line("POST /rpc HTTP/1.1") + b"Content-Length: 2\r\n" * 2, 400, -32600),
    Case(
        "a length beside chunks",
        line("POST /rpc HTTP/1.1")
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        400,
        -32600,
    ),
    Case("a large head", get("/livez", X="y" * 40_000), 431, -32600, None, CLOSE),
    Case(
        "a large body", line("POST /rpc HTTP/1.1") + b"Content-Length: 9999999\r\n\r\n", 413, -32600
    ),
    Case("half a request", line("POST /rpc HTTP/1.1"), 408, -32600, None, CLOSE),
    Case("another protocol", line("CONNECT /livez HTTP/1.1") + b"\r\n", 405, -32600, None, CLOSE),
    Case("a handshake by POST", post(PING, "/livez", **HANDSHAKE), 405, -32600, None, CLOSE),
    Case("no handshake", get("/ws", **HANDSHAKE, **{"X ": "y"}), 400, -32600, None, CLOSE),
    Case("a path in other letters", line("GET /é HTTP/1.1") + b"\r\n", 400, -32600, None, CLOSE),
]


def check(reply: Reply | None, case: Case) -> None:
    assert reply is not None
    assert reply.headers["content-type"] == "application/json"
    body = reply.json
    assert (reply.status, body["error"]["code"], body["id"]) == (case.status, case.code, case.id)
    assert body["jsonrpc"] == "2.0"
    assert set(case.headers.items()) <= set(reply.headers.items())
    assert len(body["error"]["message"]) > 10


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_each_refusal_is_a_status_and_a_json_rpc_error(case: Case) -> None:
    limits = {"frame_timeout_s": 0.3, "request_deadline_s": 0.3}
    async with (
        serving_http(raising("broken", ValueError("secret")), **limits) as doors,
        http(doors.http) as client,
    ):
        reply = await client.ask(case.request)
        check(reply, case)
        if reply.headers.get("connection") == "close":
            assert await client.reply() is None
        else:
            assert (await client.get("/livez")).status == 200


async def test_a_batch_is_no_error_whatever_its_members_are() -> None:
    async with serving_http() as doors, http(doors.http) as client:
        reply = await client.post(BATCH)
        codes = [member.get("error", {}).get("code") for member in reply.json]
        assert (reply.status, codes) == (200, [None, -32601, -32600])


async def test_a_key_that_is_missing_or_wrong_is_asked_for_under_the_id_of_the_call() -> None:
    asks = {"www-authenticate": "bearer"}
    async with serving_http(keys=KeyRing(["right"])) as doors, http(doors.http) as client:
        ask = call("subtract", [5, 3], "mine")
        reply = await client.post(ask)
        check(reply, Case("", b"", 401, -32010, "mine", asks))
        advice = "unauthorized; send the header Authorization: Bearer KEY"
        assert reply.json["error"]["message"] == advice
        for document, answers in ((ask, "mine"), ([ask], None), (b"{nonsense", None)):
            reply = await client.post(document, Authorization="Bearer wrong")
            check(reply, Case("", b"", 401, -32010, answers, asks))


async def test_the_last_wrong_key_says_how_long_to_wait_and_closes() -> None:
    wrong = {"Authorization": "Bearer wrong"}
    async with serving_http(keys=KeyRing(["right"])) as doors:
        for wait_s in ("1", "1", "1", "5"):  # the 20th is the last that the address may send
            async with http(doors.http) as client:
                for number in range(1, 6):
                    reply = await client.post(PING, **wrong)
                    assert (reply.headers.get("connection") == "close") == (number == 5)
                    assert reply.headers.get("retry-after") == (wait_s if number == 5 else None)
                assert await client.reply() is None
        for request in (post(PING, **wrong), get("/with-a-key", **wrong)):
            async with http(doors.http) as client:
                reply = await client.ask(request)
                assert (reply.status, reply.headers["connection"]) == (401, "close")
                assert 4000 < reply.json["error"]["data"]["retry_after_ms"] <= 5000
                assert reply.headers["retry-after"] == "5"


async def test_too_many_calls_of_a_client_are_refused_until_a_time() -> None:
    async with (
        serving_http(rate_limit_per_s=0.25, rate_burst=1) as doors,
        http(doors.http) as client,
    ):
        assert (await client.post(PING)).status == 200
        reply = await client.post(PING)
        check(reply, Case("", b"", 429, -32011, "mine", {"retry-after": "4"}))
        assert 3000 < reply.json["error"]["data"]["retry_after_ms"] <= 4000


async def busy(client: Connection) -> None:
    client.send(post(call("sleep", [0.4])))
    await asyncio.sleep(0.1)


async def test_overload_names_a_time_in_header_and_body_wherever_it_is_found_out() -> None:
    again = {"retry-after": "1"}
    async with serving_http(max_in_flight=1) as doors, http(doors.http) as one:
        await busy(one)
        async with http(doors.http) as client:
            reply = await client.post(call("get_data", call_id="mine"))
            check(reply, Case("", b"", 503, -32012, "mine", again))
            assert reply.json["error"]["data"] == {"retry_after_ms": 1000}
    async with serving_http(max_connections=1) as doors, connected(doors) as line:
        await line.call("rpc.ping")
        async with http(doors.http) as client:
            reply = await client.post(PING)
            check(reply, Case("", b"", 503, -32012, None, again | CLOSE))
            assert reply.json["error"]["data"] == {"retry_after_ms": 1000}


async def test_a_server_that_stops_sends_calls_elsewhere() -> None:
    async with serving_http() as doors, http(doors.http) as client, http(doors.http) as one:
        await busy(one)
        client.send(post(call("sleep", [0.2], "mine"))[:-1])
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(doors.server.stop())
        await asyncio.sleep(0.05)
        client.send(b"}")
        check(
            await client.reply(), Case("", b"", 503, -32000, "mine", {"retry-after": "1"} | CLOSE)
        )
        await stopping


async def test_a_handshake_behind_a_running_call_is_refused_after_its_answer() -> None:
    async with serving_http() as doors, http(doors.http) as client:
        key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        client.send(post(call("sleep", [0.1])) + get("/ws", **HANDSHAKE, **key))
        first, second = await client.reply(), await client.reply()
        assert first is not None
        assert first.json["result"] == 0.1
        check(second, Case("", b"", 400, -32600, None, CLOSE))
        assert await client.reply() is None
