"""The server as a process of its own, on the event loop it runs on in the field."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.rpc.http.raw import call, http, post

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_request.sh"

PROGRAM = """
import asyncio
from llm_trader.rpc.builtin import with_builtin_methods
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.server import RpcServer, run, serve, stop_on_signals
from tests.rpc.stub import stub_methods

async def main():
    stop = asyncio.Event()
    stop_on_signals(stop)
    methods = with_builtin_methods(stub_methods(), title="stub", version="0")
    server = RpcServer(Dispatcher(methods), RpcConfig(port=0, discard_s=0.1))
    await serve(server, stop, lambda host, port: print("ready", port, flush=True))

run(main())
"""


BOTH_DOORS = """
import asyncio
from llm_trader.rpc.server import run, stop_on_signals
from tests.rpc.stub import serving_http

async def main():
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with serving_http() as doors:
        print("ready", doors.http[1], flush=True)
        await stop.wait()

run(main())
"""


@asynccontextmanager
async def server_process(
    program: str = PROGRAM,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            if line.startswith(b"ready"):
                break
        yield process, int(line.split()[1])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)]
)
async def test_a_signal_finishes_work_under_way_and_exits_with_zero(signum: int) -> None:
    async with server_process() as (process, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b'{"jsonrpc":"2.0","method":"sleep","params":[0.3],"id":1}\n')
        await asyncio.sleep(0.1)
        process.send_signal(signum)
        assert json.loads(await reader.readline())["result"] == 0.3
        assert await reader.readline() == b""
        writer.close()
        await writer.wait_closed()
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_a_signal_finishes_http_requests_too_and_tells_websockets_to_come_back() -> None:
    async with (
        server_process(BOTH_DOORS) as (process, port),
        http(("127.0.0.1", port)) as client,
        connect(f"ws://127.0.0.1:{port}/ws") as idle,
    ):
        client.send(post(call("sleep", [0.3])))
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        reply = await client.reply()
        assert reply is not None
        assert reply.json["result"] == 0.3
        assert await client.reply() is None
        await asyncio.wait_for(idle.wait_closed(), 5)
        assert idle.close_code == 1012
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_the_request_script_shows_the_five_classic_replies() -> None:
    if not any(shutil.which(name) for name in ("nc", "ncat", "netcat")):
        pytest.skip("netcat is not installed")
    async with server_process() as (_, port):
        script = await asyncio.create_subprocess_exec(
            str(SCRIPT), str(port), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(script.communicate(), 10)
    replies = [json.loads(line[2:]) for line in output.splitlines() if line.startswith(b"< ")]
    assert output.count(b"=== ") == 5
    assert [r.get("error", {}).get("code") for r in replies][3] == -32700
    assert [r["id"] for r in replies] == [1, 2, 3, None, 5]


async def test_the_request_script_explains_a_missing_netcat(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = await asyncio.create_subprocess_exec(
        bash,
        str(SCRIPT),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    _, problem = await asyncio.wait_for(script.communicate(), 10)
    assert script.returncode == 127
    assert b"apt-get install netcat-openbsd" in problem
