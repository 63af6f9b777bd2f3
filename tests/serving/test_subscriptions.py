"""`rag.subscribe` over WebSocket: evidence at each new snapshot that another process makes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from llm_trader.app.server import query_server
from llm_trader.market.store import MarketStore
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.rpc.server import RpcServer
from tests.cli.corridor import AT_MS, QUARTER_MS, SYMBOL, Corridor, write
from tests.rpc.http.raw import call, http

# Appends what follows, five minutes with each line of its input.
WRITER = """
import sys
from pathlib import Path
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M5, MINUTE_MS
from tests.cli.corridor import AT_MS, DAYS, START_MS, SYMBOL, write

history = simulate(SYMBOL, start_ms=START_MS, days=DAYS, seed=7, timeframe=M5)
with MarketStore.open(Path(sys.argv[1]), write=True) as store:
    for number, line in enumerate(sys.stdin, 1):
        write(store, history.known_at(AT_MS + number * 5 * MINUTE_MS))
        print("written", flush=True)
"""


class Feed:
    """A process that writes to the store."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def write(self, candles: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for _ in range(candles):
            self._process.stdin.write(b"more\n")
            assert await asyncio.wait_for(self._process.stdout.readline(), 30) == b"written\n"


@asynccontextmanager
async def server_and_feed(
    corridor: Corridor, folder: Path, **overrides: Any
) -> AsyncIterator[tuple[RpcServer, Feed]]:
    with MarketStore.open(folder, write=True, exchange="simulated") as store:
        write(store, corridor.histories[SYMBOL].known_at(AT_MS))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITER, str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        async with query_server(corridor.settings(market__store=folder, **overrides), {}) as server:
            await server.start()
            try:
                yield server, Feed(process)
            finally:
                await server.stop()
    finally:
        process.kill()
        await process.communicate()


def url(server: RpcServer) -> str:
    assert server.http_address is not None
    return f"ws://127.0.0.1:{server.http_address[1]}/ws"


async def receive(client: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(client.recv(), 10))


async def ask(client: ClientConnection, method: str, **params: Any) -> Any:
    await client.send(json.dumps(call(method, params)))
    return await receive(client)


async def test_evidence_is_pushed_at_each_new_snapshot_and_only_then(
    corridor: Corridor, tmp_path: Path
) -> None:
    async with (
        server_and_feed(corridor, tmp_path / "store") as (server, feed),
        connect(url(server)) as client,
        connect(url(server)) as other,
    ):
        config = {"top_k": 7, "horizons": ["1h"]}
        told = await ask(client, "rag.subscribe", symbol=SYMBOL, query_config=config)
        subscription = told["result"]["subscription"]
        assert told["result"]["as_of"] == AT_MS
        strict = {"min_similarity": 1.0}  # no past state is that similar
        refused = (await ask(other, "rag.subscribe", symbol=SYMBOL, query_config=strict))["result"]
        await feed.write(2)  # ten minutes: no snapshot yet
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 1.2)
        await feed.write(1)
        pushed = await receive(client)
        assert (pushed["method"], "id" in pushed) == ("rag.evidence", False)
        params = pushed["params"]
        assert params["subscription"] == subscription
        assert (params["symbol"], params["as_of"]) == (SYMBOL, AT_MS + QUARTER_MS)
        asked = {"symbol": SYMBOL, "timestamp": AT_MS + QUARTER_MS, "query_config": config}
        answer = (await ask(client, "rag.query_patterns", **asked))["result"]
        assert params["result"]["matches"] == answer["matches"]
        assert len(answer["matches"]) == 7
        assert params["result"]["evidence"] == answer["evidence"]
        error = (await receive(other))["params"]
        assert error["subscription"] == refused["subscription"]
        assert error["error"]["code"] == -32001
        ended = await ask(client, "rag.unsubscribe", subscription=subscription)
        assert ended["result"] == {"unsubscribed": True}
        await feed.write(3)
        assert (await receive(other))["params"]["as_of"] == AT_MS + 2 * QUARTER_MS
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 0.5)


async def test_subscriptions_have_caps_and_end_with_their_connection(
    corridor: Corridor, tmp_path: Path
) -> None:
    caps = {"serving__max_subscriptions": 3, "serving__max_subscriptions_per_connection": 2}
    async with server_and_feed(corridor, tmp_path / "store", **caps) as (server, _):
        async with connect(url(server)) as one, connect(url(server)) as two:
            for _ in range(2):
                assert "result" in await ask(one, "rag.subscribe", symbol=SYMBOL)
            error = (await ask(one, "rag.subscribe", symbol=SYMBOL))["error"]
            assert error["code"] == -32012
            assert "max_subscriptions_per_connection" in error["message"]
            assert "result" in await ask(two, "rag.subscribe", symbol=SYMBOL)
            error = (await ask(two, "rag.subscribe", symbol=SYMBOL))["error"]
            assert error["code"] == -32012
            assert "(serving.max_subscriptions)" in error["message"]
        async with connect(url(server)) as again:
            for _ in range(2):
                assert "result" in await ask(again, "rag.subscribe", symbol=SYMBOL)


async def test_a_wrong_subscription_is_refused(corridor: Corridor, tmp_path: Path) -> None:
    async with server_and_feed(corridor, tmp_path / "store") as (server, _):
        async with connect(url(server)) as client:
            unknown = await ask(client, "rag.subscribe", symbol="NOSUCH")
            assert unknown["error"]["code"] == -32002
            wrong = await ask(client, "rag.subscribe", symbol=SYMBOL, query_config={"top_k": 99})
            assert wrong["error"]["data"]["errors"][0]["field"] == "query_config.top_k"
            never = await ask(client, "rag.unsubscribe", subscription="s7")
            assert never["error"]["code"] == -32602
        assert server.http_address is not None
        async with http(server.http_address) as plain:
            reply = await plain.post(call("rag.subscribe", {"symbol": SYMBOL}))
            assert "connect by WebSocket to the path /ws" in reply.json["error"]["message"]
        async with await RpcClient.connect(*server.address) as line:
            with pytest.raises(RpcError, match="by WebSocket"):
                await line.call("rag.subscribe", {"symbol": SYMBOL})
