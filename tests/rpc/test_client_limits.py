"""What one client may ask for, on one server and on several that share a Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest
import structlog

from llm_trader.rpc.client_limits import ClientLimits
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.errors import RateLimitedError
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.server import RpcServer
from llm_trader.rpc.shared_limits import RedisLevels
from llm_trader.rpc.token_buckets import TokenBuckets
from tests.redis_server import RedisServer, redis_server
from tests.rpc.stub import connected, serving


class Days(msgspec.Struct, forbid_unknown_fields=True):
    days: int


async def look_back(params: Days, context: RequestContext) -> int:
    """Works for 0.2 ms a day, as a search does for its window."""
    until_s = time.monotonic() + params.days * 2e-4
    while time.monotonic() < until_s:
        pass
    return params.days


LOOK_BACK = Method("look_back", Days, look_back, "Works.", int)


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    buckets = TokenBuckets(rate_per_s=2, burst=3)
    assert [buckets.take("a", 100.0) for _ in range(4)] == [0, 0, 0, 500]
    assert buckets.take("b", 100.0) == 0
    assert buckets.take("a", 100.4) == 100
    assert buckets.take("a", 100.5) == 0
    assert [buckets.take("a", 1000.0) for _ in range(4)] == [0, 0, 0, 500]


def test_what_was_spent_beyond_the_level_is_a_debt() -> None:
    buckets = TokenBuckets(rate_per_s=100, burst=200)
    buckets.spend("a", 500, 10.0)
    assert buckets.retry_after_ms("a", 10.0, 1) == 3010
    assert buckets.retry_after_ms("a", 13.02, 1) == 0


def test_a_time_before_the_last_one_gives_and_takes_nothing() -> None:
    buckets = TokenBuckets(rate_per_s=1, burst=1)
    assert buckets.take("a", 10.0) == 0
    assert buckets.take("a", 9.0) == 1000


def test_what_is_kept_of_clients_is_bounded() -> None:
    buckets = TokenBuckets(rate_per_s=1, burst=1)
    for client in range(30_000):
        buckets.take(f"address {client}", client / 1000)
    assert len(buckets._buckets) <= 10_001


async def answered(days: int, **limits: Any) -> int:
    """How many of a client's queries are answered before one is refused."""
    async with serving(LOOK_BACK, **limits) as server, connected(server) as line:
        for count in range(100):
            reply = await line.call("look_back", [days])
            if "error" in reply:
                assert reply["error"]["code"] == -32011
                assert reply["error"]["data"]["retry_after_ms"] > 0
                return count
    return 100


async def test_a_query_of_a_year_costs_more_than_one_of_a_week() -> None:
    limits = {"work_limit_ms_per_s": 1.0, "work_burst_ms": 60.0}
    year, week = await answered(365, **limits), await answered(7, **limits)
    assert year == 1
    assert week >= 5 * year


async def test_queries_that_were_sent_side_by_side_are_charged_one_after_the_other() -> None:
    limits = {"work_limit_ms_per_s": 1.0, "work_burst_ms": 60.0}
    async with serving(LOOK_BACK, **limits) as server, connected(server) as line:
        calls = [
            {"jsonrpc": "2.0", "method": "look_back", "params": [300], "id": n} for n in range(20)
        ]
        line.send_json(*calls)
        replies = [await line.receive() for _ in calls]
        codes = [reply["error"]["code"] for reply in replies if "error" in reply]
        assert set(codes) == {-32011}
        assert len(codes) >= 17
        # A document that is no call, and a batch, are refused as well.
        assert (await line.ask(17))["error"]["code"] == -32011
        assert (await line.ask([calls[0]]))["error"]["code"] == -32011


async def test_a_key_has_its_limit_wherever_it_connects_and_no_other_client_pays() -> None:
    keys = KeyRing(["one", "two"])
    async with (
        serving(keys=keys, rate_limit_per_s=0.01, rate_burst=3) as server,
        connected(server) as first,
        connected(server) as second,
        connected(server) as other,
    ):
        for line, token in ((first, "one"), (second, "one"), (other, "two")):
            await line.call("rpc.authenticate", [token])  # takes from the address
        assert "result" in await first.call("get_data")
        assert "result" in await second.call("get_data")
        assert "result" in await first.call("get_data")
        assert (await second.call("get_data"))["error"]["code"] == -32011
        assert "result" in await other.call("get_data")
        # In each call as well.
        reply = await other.call("get_data", {"_meta": {"token": "one"}})
        assert reply["error"]["code"] == -32011


async def test_an_address_has_no_more_connections_than_it_may_have() -> None:
    async with (
        serving(max_connections_per_address=2) as server,
        connected(server) as first,
        connected(server) as second,
    ):
        assert "result" in await first.call("rpc.ping")
        assert "result" in await second.call("rpc.ping")
        async with connected(server) as third:
            error = (await third.receive())["error"]
            assert error["code"] == -32012
            assert error["data"]["retry_after_ms"] > 0
            assert "2 connections of this address" in error["message"]
        await second.close()
        await asyncio.sleep(0.1)
        async with connected(server) as third:
            assert "result" in await third.call("rpc.ping")


DEEP = '{"jsonrpc":"2.0","id":1,"method":"query","params":' + '{"a":' * 31 + "1" + "}" * 31 + "}"


async def test_a_document_may_be_as_deep_as_the_limit_and_no_deeper() -> None:
    async with serving() as server, connected(server) as line:
        line.send(DEEP.encode() + b"\n")
        assert (await line.receive())["error"]["code"] == -32602  # it was decoded
        for document in (DEEP.replace("1}", "[]}"), f"[{DEEP}]"):
            line.send(document.encode() + b"\n")
            error = (await line.receive())["error"]
            assert (error["code"], error["data"]) == (-32600, {"limit_depth": 32})
        assert "result" in await line.call("rpc.ping")


# Shared through Redis


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@asynccontextmanager
async def sharing(redis: RedisServer, **limits: Any) -> AsyncIterator[tuple[ClientLimits, ...]]:
    config = RpcConfig(limits_redis_url=redis.url, limits_redis_timeout_ms=5000, **limits)
    async with AsyncExitStack() as opened:
        made = []
        for _ in range(2):
            levels = await opened.enter_async_context(aclosing(RedisLevels(config)))
            made.append(await opened.enter_async_context(aclosing(ClientLimits(config, levels))))
        yield tuple(made)


async def granted(limits: ClientLimits, client: str = "key a") -> bool:
    try:
        await limits.take(client, time.monotonic())
    except RateLimitedError as error:
        return not error.details["retry_after_ms"]
    return True


@pytest.mark.redis
async def test_two_servers_grant_together_what_one_would(redis: RedisServer) -> None:
    async with sharing(redis, rate_limit_per_s=0.01, rate_burst=20) as (one, two):
        asked = [granted(limits) for limits in (one, two) for _ in range(30)]
        assert sum(await asyncio.gather(*asked)) == 20
        assert await granted(two, "key b")


@pytest.mark.redis
async def test_work_on_one_server_is_charged_on_the_other(redis: RedisServer) -> None:
    limits = {"work_limit_ms_per_s": 10.0, "work_burst_ms": 100.0}
    async with sharing(redis, **limits) as (one, two):
        assert await granted(two)
        charge = one.charge_to("key a", time.monotonic)
        assert charge is not None
        charge(5.0)  # and the client says nothing more to this server
        async with asyncio.timeout(5):
            while await granted(two):  # noqa: ASYNC110  another process has no event to wait for
                await asyncio.sleep(0.02)
        assert not await granted(one)


@pytest.mark.redis
async def test_without_redis_each_server_goes_on_alone_and_says_so_once(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharing(redis, rate_limit_per_s=0.01, rate_burst=4) as (one, two):
        assert await granted(one)
        redis.stop()
        with structlog.testing.capture_logs() as logs:
            # What one server knows of the client counts on: one is used of four.
            assert [await granted(one) for _ in range(4)] == [True, True, True, False]
            assert [await granted(two) for _ in range(5)] == [True] * 4 + [False]
            assert [log["event"] for log in logs] == ["redis_unavailable"] * 2  # one by each
            redis.start()
            for limits in (one, two):
                levels: Any = limits._shared
                levels._redis._resting_until_s = 0.0
            # A Redis that was stopped has forgotten all, and is shared again.
            asked = [granted(limits) for limits in (one, two) for _ in range(5)]
            assert sum(await asyncio.gather(*asked)) == 4
        assert [log["event"] for log in logs][2:] == ["redis_available_again"] * 2


@pytest.mark.redis
async def test_servers_with_a_redis_share_the_limit_of_a_client_over_sockets(
    redis: RedisServer,
) -> None:
    limits = {"rate_limit_per_s": 0.01, "rate_burst": 3, "limits_redis_url": redis.url}
    config = RpcConfig(**limits, limits_redis_timeout_ms=5000)
    async with (
        aclosing(RedisLevels(config)) as levels,
        serving(limits=ClientLimits(config, levels)) as one,
        serving(limits=ClientLimits(config, levels)) as two,
        connected(one) as to_one,
        connected(two) as to_two,
    ):
        assert isinstance(one, RpcServer)
        replies = [await line.call("get_data") for line in (to_one, to_two, to_one, to_two)]
        assert ["result" in reply for reply in replies] == [True, True, True, False]
        assert replies[3]["error"]["code"] == -32011


async def test_a_redis_that_was_never_there_stops_no_answer() -> None:
    config = RpcConfig(rate_limit_per_s=100.0, limits_redis_url="redis://127.0.0.1:1")
    async with (
        aclosing(RedisLevels(config)) as levels,
        serving(limits=ClientLimits(config, levels)) as server,
        connected(server) as line,
    ):
        assert "result" in await line.call("get_data")
