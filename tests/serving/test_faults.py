"""What goes wrong around a server stops no answer: a full disk under its log, a stepping clock."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from typing import Any

import pytest

from llm_trader.rpc.client import RpcClient
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.cli.corridor import (
    AT_MS,
    END_MS,
    SYMBOL,
    Corridor,
    answering,
    console_script,
    until,
)

QUERY = {"symbol": SYMBOL, "timestamp": AT_MS}
FULL_DISK = "/dev/full"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _connected(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.skipif(not os.path.exists(FULL_DISK), reason="needs /dev/full, which Linux has")
def test_a_full_disk_under_the_log_stops_no_answer(corridor: Corridor) -> None:
    port = _free_port()
    command = [console_script("rag-rpc-server"), "--port", str(port), "--no-http"]
    command += ["--store", str(corridor.store), "--index", str(corridor.index)]
    command += ["--log-level", "trace"]
    with open(FULL_DISK, "wb") as full, subprocess.Popen(command, stderr=full) as process:
        try:
            assert until(lambda: _connected(port), 30)
            answers = asyncio.run(_ask(port, 20))
            process.terminate()
            code = process.wait(20)
        finally:
            process.kill()
    assert all(len(answer["matches"]) == 5 for answer in answers)
    assert code in (0, 120)  # Python ends with 120 where standard error cannot be flushed


async def _ask(port: int, times: int) -> list[Any]:
    answers = []
    for _ in range(times):  # each connection and each query is a line of the log
        async with await RpcClient.connect("127.0.0.1", port) as client:
            answers.append(await client.call("rag.query_patterns", QUERY))
    return answers


async def test_a_clock_that_steps_changes_no_answer_and_stops_nothing(corridor: Corridor) -> None:
    now_ms = END_MS
    async with answering(
        corridor, clock=lambda: now_ms, serving__rate_limit_per_s=1000.0
    ) as client:
        first = _without_times(await client.call("rag.query_patterns", QUERY))
        for step_ms in (-DAY_MS, 2 * DAY_MS, -400 * DAY_MS, 800 * DAY_MS, HOUR_MS):
            now_ms += step_ms
            assert _without_times(await client.call("rag.query_patterns", QUERY)) == first
            about_now = {"symbol": SYMBOL, "timestamp": END_MS}
            assert (await client.call("rag.query_patterns", about_now))["matches"]
            stats = await client.call("rag.stats")
            json.dumps(stats, allow_nan=False)
            await client.call("rpc.ping")
        assert stats["queries_refused"] == 0


def _without_times(answer: Any) -> Any:
    del answer["metadata"]["request_id"]
    for name in ("query", "embedding", "retrieval"):
        del answer["metadata"][f"{name}_duration_ms"]
    del answer["metadata"]["query_duration_us"]
    return answer
