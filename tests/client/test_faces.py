"""Both faces of the client, against real sockets."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from llm_trader.client import NoReplyError, RetryPolicy, RpcError
from llm_trader.client.calls import other, ping
from llm_trader.client.errors import (
    ERRORS,
    DeadlineExceeded,
    InvalidParams,
    MethodNotFound,
    RateLimited,
    Unauthorized,
)
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.rpc.builtin import Pong
from llm_trader.rpc.conversation import ConnectionLostError
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.errors import RateLimitedError
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.server import RpcServer
from llm_trader.serving.wire import RAG_ERRORS
from tests.client.doors import face, http_door, listening, tcp
from tests.rpc.stub import serving

FACES = pytest.mark.parametrize("kind", ["threads", "tasks"])


def nap(seconds: float, **more: Any) -> Any:
    return other("sleep", {"seconds": seconds}, **more)


class Limiting:
    """A method that refuses its first calls as rate limited."""

    def __init__(self, refusals: int, retry_after_ms: int = 20) -> None:
        self.calls = 0
        self._refusals = refusals
        self._retry_after_ms = retry_after_ms
        self.method = Method("limited", None, self._answer, "", int)

    async def _answer(self, params: None, context: RequestContext) -> int:
        self.calls += 1
        if self.calls <= self._refusals:
            raise RateLimitedError(self._retry_after_ms)
        return self.calls


@FACES
async def test_a_result_has_its_type(kind: str, server: RpcServer) -> None:
    async with face(kind, tcp(server)) as client:
        assert await client.send(ping()) == Pong(True, "1.2.3")


@FACES
async def test_many_calls_are_under_way_on_one_connection_and_replies_find_theirs(
    kind: str, server: RpcServer
) -> None:
    async with face(kind, tcp(server), connections=1) as client:
        seconds = [0.1, 0.0, 0.05, *[0.01] * 20]
        assert await client.send_all([nap(s) for s in seconds]) == seconds
        assert len(server._connections) == 1


@FACES
async def test_calls_of_many_share_no_more_connections_than_the_pool_has(
    kind: str, server: RpcServer
) -> None:
    async with face(kind, tcp(server), connections=3) as client:
        assert await asyncio.gather(*(client.send(nap(0.02)) for _ in range(12))) == [0.02] * 12
        assert 2 <= len(server._connections) <= 3


@FACES
async def test_after_a_restart_of_the_server_calls_go_on(kind: str) -> None:
    async with serving() as first:
        host, port = first.address
        client_of = face(kind, f"tcp://{host}:{port}")
        client = await client_of.__aenter__()
        assert await client.send(nap(0.0)) == 0.0
    try:
        with pytest.raises(ConnectionLostError, match="nothing listens"):
            await client.send(nap(0.0))
        async with serving(port=port):
            assert await client.send(nap(0.0)) == 0.0
    finally:
        await client_of.__aexit__(None, None, None)


@FACES
async def test_a_call_waits_for_a_server_that_comes_back_in_time(kind: str) -> None:
    async with serving() as server:
        host, port = server.address
    async with face(kind, f"tcp://{host}:{port}") as client:
        call = asyncio.create_task(client.send(ping()))
        await asyncio.sleep(0.1)
        async with serving(port=port):
            assert (await call).pong


@FACES
async def test_the_server_gives_up_at_the_deadline_of_a_call(kind: str, server: RpcServer) -> None:
    async with face(kind, tcp(server)) as client:
        with pytest.raises(DeadlineExceeded):
            await client.send(nap(60.0, timeout_s=0.2))
        assert await client.send(nap(0.0)) == 0.0
        assert not server._gate._in_flight


@FACES
async def test_a_silent_server_is_given_up_at_the_deadline(kind: str) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        listening(swallow) as port,
        face(kind, f"tcp://127.0.0.1:{port}", timeout_s=0.1) as client,
    ):
        with pytest.raises(NoReplyError, match=r"rpc\.ping: no reply in 0\."):
            await client.send(ping())


@FACES
async def test_a_limited_call_is_sent_again_after_the_time_that_the_server_asks_for(
    kind: str,
) -> None:
    limiting = Limiting(refusals=2)
    async with serving(limiting.method) as server, face(kind, tcp(server)) as client:
        assert await client.send(other("limited")) == 3


@FACES
async def test_a_limit_beyond_the_deadline_is_told_at_once(kind: str) -> None:
    limiting = Limiting(refusals=9, retry_after_ms=60_000)
    async with serving(limiting.method) as server, face(kind, tcp(server)) as client:
        with pytest.raises(RateLimited):
            await client.send(other("limited"))
    assert limiting.calls == 1


@FACES
@pytest.mark.parametrize(("repeatable", "sent"), [(True, 3), (False, 1)])
async def test_a_lost_call_is_sent_again_only_if_it_changes_nothing(
    kind: str, repeatable: bool, sent: int
) -> None:
    heard = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readline())
        writer.close()

    policy = RetryPolicy(attempts=3)
    async with (
        listening(hang_up) as port,
        face(kind, f"tcp://127.0.0.1:{port}", retries=policy) as client,
    ):
        with pytest.raises(ConnectionLostError):
            await client.send(other("order", repeatable=repeatable))
    assert len(heard) == sent


@FACES
async def test_errors_have_types_by_their_codes(kind: str, server: RpcServer) -> None:
    async with face(kind, tcp(server)) as client:
        with pytest.raises(InvalidParams) as wrong:
            await client.send(other("subtract", {"minuend": 1}))
        assert wrong.value.errors[0]["field"] == "subtrahend"
        with pytest.raises(MethodNotFound):
            await client.send(other("subtrakt"))


def test_every_code_of_the_server_has_a_type() -> None:
    assert set(ERRORS) == set(RAG_ERRORS.titles)


@FACES
async def test_a_token_is_sent_on_each_connection(kind: str) -> None:
    async with serving(keys=KeyRing(["secret"])) as server:
        async with face(kind, tcp(server), token="secret") as client:
            assert await client.send(nap(0.0)) == 0.0
        async with face(kind, tcp(server), token="wrong") as client:
            with pytest.raises(Unauthorized):
                await client.send(nap(0.0))


@FACES
@pytest.mark.parametrize("chunked", [False, True])
async def test_over_http_calls_are_answered_alike(
    kind: str, chunked: bool, server: RpcServer
) -> None:
    async with (
        http_door(server, chunked=chunked) as url,
        face(kind, url, connections=2) as client,
    ):
        seconds = [0.02, 0.0, 0.01, 0.0, 0.0]
        assert await client.send_all([nap(s) for s in seconds]) == seconds
        assert len(await client.send(other("fill", {"size": 300_000}))) == 300_000
        with pytest.raises(InvalidParams):
            await client.send(other("subtract"))


@FACES
async def test_a_refusal_of_http_itself_is_an_error_with_a_type(
    kind: str, server: RpcServer
) -> None:
    async with http_door(server) as url:
        async with face(kind, f"{url}/elsewhere") as client:
            with pytest.raises(RpcError, match="HTTP 404: lost"):
                await client.send(ping())
        async with face(kind, url, token="wrong") as client:
            with pytest.raises(Unauthorized):
                await client.send(ping())


@FACES
async def test_a_server_that_speaks_something_else_is_named(kind: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        await reader.read()
        writer.close()

    once = RetryPolicy(attempts=1)
    async with listening(greet) as port:
        for scheme in ("tcp", "http"):
            async with face(kind, f"{scheme}://127.0.0.1:{port}", retries=once) as client:
                with pytest.raises(ConfigurationError, match="the connection failed"):
                    await client.send(ping())


@pytest.mark.parametrize("url", ["127.0.0.1:7879", "ftp://host", "tcp://", "tcp://host:x"])
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="is not the address of a server"):
        async with face("tasks", url):
            pass


def test_importing_the_client_loads_no_arrays() -> None:
    code = "import sys, llm_trader.client; print({'numpy', 'scipy', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
