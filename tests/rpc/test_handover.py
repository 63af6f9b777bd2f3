"""Open connections pass from one server to another, and their clients notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.handover import Handover
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.server import RpcServer
from llm_trader.rpc.tls import ServerTls, pinned_context
from tests.rpc.certificates import Authority
from tests.rpc.http import raw
from tests.rpc.stub import Doors, Line, connected, serving, serving_http, until


def naming(name: str) -> Method:
    async def who(params: None, context: RequestContext) -> str:
        return name

    return Method("who", None, who, "Which server answers.", str)


async def who(line: Line) -> str:
    return str((await line.call("who"))["result"])


@asynccontextmanager
async def two_servers(**settings: object) -> AsyncIterator[tuple[RpcServer, RpcServer, Handover]]:
    async with (
        serving(naming("old"), **settings) as old,
        serving(naming("new"), **settings) as new,
    ):
        handover = Handover.new()
        yield old, new, handover
        handover.close()


async def hand_over(old: RpcServer, new: RpcServer, handover: Handover) -> None:
    moving = asyncio.create_task(old.hand_over(handover))
    await asyncio.sleep(0)  # the old one no longer receives
    new.adopt_from(handover)
    await moving


async def test_an_idle_connection_is_answered_by_the_successor() -> None:
    async with two_servers() as (old, new, handover), connected(old) as line:
        assert await who(line) == "old"
        await hand_over(old, new, handover)
        assert await who(line) == "new"
        assert old.connections() == []


async def test_a_client_that_asks_again_at_once_loses_no_request() -> None:
    async with two_servers() as (old, new, handover), connected(old) as line:
        answers: list[str] = []

        async def ask() -> None:
            while answers.count("new") < 50:
                answers.append(await who(line))

        asking = asyncio.create_task(ask())
        await until(lambda: len(answers) > 50)
        await hand_over(old, new, handover)
        await asyncio.wait_for(asking, 10)
    assert sorted(answers, reverse=True) == answers  # first the old one's, then the new one's


async def test_a_running_answer_is_finished_before_its_connection_moves() -> None:
    async with two_servers() as (old, new, handover), connected(old) as line:
        line.send_json({"jsonrpc": "2.0", "method": "sleep", "params": [0.1], "id": 1})
        await until(lambda: any(c.pending for c in old._connections.values()))
        await hand_over(old, new, handover)
        assert (await line.receive())["result"] == 0.1
        assert await who(line) == "new"


async def test_half_a_document_keeps_its_connection_until_the_rest_is_there() -> None:
    async with two_servers() as (old, new, handover), connected(old) as line:
        line.send(b'{"jsonrpc":"2.0","id":1,')
        await until(lambda: any(c._splitter.in_frame for c in old._connections.values()))
        moving = asyncio.create_task(hand_over(old, new, handover))
        await asyncio.sleep(0.05)
        assert not moving.done()
        line.send(b'"method":"who"}\n')
        assert (await line.receive())["result"] == "old"
        await moving
        assert await who(line) == "new"


async def test_the_successor_knows_the_key_that_a_client_has_shown() -> None:
    async with (
        serving(naming("old"), keys=KeyRing(["right"])) as old,
        serving(naming("new"), keys=KeyRing(["right"])) as new,
        connected(old) as line,
        connected(old) as stranger,
    ):
        handover = Handover.new()
        await line.call("rpc.authenticate", {"token": "right"})
        await hand_over(old, new, handover)
        assert await who(line) == "new"
        assert (await stranger.call("who"))["error"]["code"] == -32010
        handover.close()


async def test_a_connection_of_http_moves_between_two_requests() -> None:
    async with (
        serving_http(naming("old")) as old,
        serving_http(naming("new")) as new,
    ):
        handover = Handover.new()
        reader, writer = await asyncio.open_connection(*old.http)
        connection = raw.Connection(reader, writer)
        assert (await connection.call("who")).json["result"] == "old"
        await hand_over(old.server, new.server, handover)
        assert (await connection.call("who")).json["result"] == "new"
        assert _open(old) == 0
        writer.close()
        handover.close()


def _open(doors: Doors) -> int:
    return doors.gate.connections


async def test_a_connection_of_tls_stays_and_holds_nothing_up(tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("server")
    tls = ServerTls(RpcConfig(tls_certificate=certificate))
    tls.load()
    async with (
        serving(naming("old"), tls=tls) as old,
        serving(naming("new"), tls=tls) as new,
    ):
        handover = Handover.new()
        reader, writer = await asyncio.open_connection(
            *old.address, ssl=pinned_context(certificate)
        )
        line = Line(reader, writer)
        assert await who(line) == "old"
        await asyncio.wait_for(hand_over(old, new, handover), 1)
        assert await who(line) == "old"
        await line.close()
        handover.close()


async def test_a_successor_that_takes_nothing_leaves_connections_where_they_are() -> None:
    async with two_servers(drain_timeout_s=0.2) as (old, _, handover), connected(old) as line:
        assert await who(line) == "old"
        handover._receiving.close()
        assert not handover.move(old.connections()[0])
        assert await who(line) == "old"
