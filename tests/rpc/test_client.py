from __future__ import annotations

import asyncio

import pytest

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.builtin import Pong
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.server import RpcServer
from tests.rpc.stub import Pair, connected, serving


async def test_calls_at_once_each_get_their_own_answer(server: RpcServer) -> None:
    async with await RpcClient.connect(*server.address) as client:
        waits = [0.1, 0.0, 0.05]
        assert await asyncio.gather(*(client.call("sleep", [s]) for s in waits)) == waits
        assert await client.call("subtract", Pair(5, 3)) == 2


async def test_a_result_is_decoded_into_the_type_that_is_asked_for(server: RpcServer) -> None:
    async with await RpcClient.connect(*server.address) as client:
        pong = await client.call("rpc.ping", None, Pong)
        assert pong == Pong(True, "1.2.3")
        with pytest.raises(ConfigurationError, match=r"rpc\.ping: the result is not .*version"):
            await client.call("rpc.ping", None, Pair)
        assert await client.call("subtract", [5, 3], int) == 2


async def test_an_error_reply_is_raised_with_code_message_and_data(server: RpcServer) -> None:
    async with await RpcClient.connect(*server.address) as client:
        with pytest.raises(RpcError, match="Invalid params") as caught:
            await client.call("subtract", {"minuend": 1})
        assert caught.value.rpc_code == -32602
        assert caught.value.data["errors"][0]["field"] == "subtrahend"


async def test_a_reply_larger_than_a_stream_buffer_arrives(server: RpcServer) -> None:
    async with await RpcClient.connect(*server.address) as client:
        assert len(await client.call("fill", [3_000_000])) == 3_000_000


async def test_where_nothing_listens_the_remedy_is_told() -> None:
    async with serving() as server:
        host, port = server.address
    with pytest.raises(ConfigurationError, match=f"nothing listens on {host}:{port}; start it"):
        await RpcClient.connect(host, port)


async def test_a_token_is_sent_on_connecting() -> None:
    async with serving(keys=KeyRing(["secret"])) as server:
        async with await RpcClient.connect(*server.address, token="secret") as client:
            assert await client.call("subtract", [5, 3]) == 2
        with pytest.raises(RpcError, match="unauthorized"):
            await RpcClient.connect(*server.address, token="wrong")


async def test_a_call_without_a_reply_in_time_says_so(server: RpcServer) -> None:
    async with await RpcClient.connect(*server.address, timeout_s=0.1) as client:
        with pytest.raises(ConfigurationError, match=r"sleep: no reply in 0\.1 s"):
            await client.call("sleep", [0.3])
        assert await client.call("subtract", [5, 3]) == 2


async def test_a_lost_connection_ends_waiting_and_later_calls() -> None:
    async with serving(drain_timeout_s=0.05) as server:
        client = await RpcClient.connect(*server.address)
        waiting = asyncio.create_task(client.call("sleep", [30]))
        await asyncio.sleep(0.05)
    async with client:
        for call in (waiting, client.call("rpc.ping")):
            with pytest.raises(ConfigurationError, match="connection"):
                await call


async def test_a_server_that_is_full_is_reported_as_such() -> None:
    async with serving(max_connections=1) as server, connected(server) as first:
        await first.call("rpc.ping")
        async with await RpcClient.connect(*server.address) as second:
            with pytest.raises(RpcError, match="overloaded"):
                await second.call("rpc.ping")
