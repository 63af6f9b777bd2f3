"""No web page reaches a server on loopback, whatever name leads there."""

from __future__ import annotations

import pytest

from llm_trader.rpc.http.origin import AllowedCallers
from tests.rpc.http.raw import call, get, http
from tests.rpc.stub import serving_http

CALLERS = AllowedCallers(["Rag.Example", "10.0.0.9"], ["https://desk.example"])


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost", None, None),
        ("LOCALHOST:7880", None, None),
        ("127.0.0.1:7880", None, None),
        ("127.8.8.8", None, None),
        ("[::1]:7880", None, None),
        ("rag.example:443", None, None),
        ("10.0.0.9", None, None),
        ("192.168.7.7:7880", None, None),  # where the client connected to
        ("192.168.7.8", None, 421),
        ("evil.example", None, 421),
        ("localhost.evil.example", None, 421),
        ("127.0.0.1.evil.example", None, 421),
        ("evil.example:7880", "http://evil.example:7880", 421),
        ("localhost:7880", "http://evil.example", 403),
        ("localhost:7880", "http://localhost:3000", 403),
        ("localhost:7880", "null", 403),
        ("localhost:7880", "", 403),
        ("localhost:7880", "http://localhost:7880", None),
        ("localhost:7880", "https://desk.example", None),
        ("localhost:7880", "https://desk.example.evil.example", 403),
        ("", None, 400),
        ("a b", None, 421),
        ("user@localhost", None, 400),
        ("localhost/evil", None, 400),
        ("localhost:port", None, 400),
        ("localhost:99999", None, 400),
    ],
)
def test_host_and_origin_decide(host: str, origin: str | None, status: int | None) -> None:
    origins = [] if origin is None else [origin]
    objection = CALLERS.objection([host], origins, "192.168.7.7")
    assert (objection and objection.status) == status


def test_a_header_that_comes_twice_or_never_is_refused() -> None:
    for hosts, origins in (
        ([], []),
        (["localhost", "localhost"], []),
        (["localhost"], ["https://desk.example"] * 2),
    ):
        objection = CALLERS.objection(hosts, origins, None)
        assert objection is not None
        assert objection.status == 400


async def test_a_foreign_host_is_misdirected_and_a_foreign_origin_forbidden() -> None:
    async with serving_http() as doors:
        for headers, status, remedy in (
            ({"Host": "evil.example"}, 421, "serving.http_allowed_hosts"),
            ({"Origin": "http://evil.example"}, 403, "serving.http_allowed_origins"),
        ):
            async with http(doors.http) as client:
                reply = await client.post(call("subtract", [5, 3]), **headers)
            assert (reply.status, reply.headers["connection"]) == (status, "close")
            assert remedy in reply.json["error"]["message"]


async def test_no_cors_unless_configured() -> None:
    async with serving_http() as doors, http(doors.http) as client:
        reply = await client.get("/livez")
        assert not [name for name in reply.headers if name.startswith("access-control")]
        preflight = get("/rpc", Origin="https://desk.example").replace(b"GET", b"OPTIONS")
        assert (await client.ask(preflight)).status == 403


async def test_a_configured_origin_may_call_from_a_browser() -> None:
    origin = "https://desk.example"
    async with serving_http(http_allowed_origins=(origin,)) as doors, http(doors.http) as client:
        wish = {"Access_Control_Request_Method": "POST"}
        wish["Access_Control_Request_Headers"] = "authorization, content-type"
        preflight = get("/rpc", Origin=origin, **wish).replace(b"GET", b"OPTIONS")
        allowed = await client.ask(preflight)
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, origin)
        reply = await client.post(call("subtract", [5, 3]), Origin=origin)
        assert reply.json["result"] == 2
        assert reply.headers["access-control-allow-origin"] == origin
