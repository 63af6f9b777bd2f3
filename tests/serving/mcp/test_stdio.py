"""`llm-trader mcp` as assistants start it: a process of its own, on its input and output."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.audit.builders import files, lines
from tests.cli.corridor import Corridor, console_script
from tests.serving.mcp.clients import ARGUMENTS, answer


async def test_an_assistant_starts_it_asks_and_leaves(corridor: Corridor, tmp_path: Path) -> None:
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    arguments = ["mcp", "--store", str(corridor.store), "--index", str(corridor.index)]
    arguments += ["--audit-folder", str(tmp_path / "audit")]
    # A key that a server asks for is not asked for here.
    environ = {"LLM_TRADER_SERVING__AUTH_TOKENS_ENV": "TOKENS", "TOKENS": "secret"}
    environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    started = StdioServerParameters(
        command=console_script("llm-trader"), args=arguments, env=environ, cwd=tmp_path
    )
    with (tmp_path / "stderr").open("w") as log:
        async with Client(stdio_client(started, log)) as client:
            assert client.protocol_version == "2026-07-28"
            assert [tool.name for tool in (await client.list_tools()).tools] == [*ARGUMENTS]
            for tool, given in ARGUMENTS.items():
                told = await answer(client, tool, **given)
                assert told["receipt"]["digest"].startswith("sha256:")
            wrong = await client.call_tool("forecast", {"symbol": "DOGEUSDT"})
            assert wrong.is_error
    entries = [json.loads(line) for file in files(tmp_path / "audit") for line in lines(file)]
    methods = [entry["method"] for entry in entries if entry.get("method")]
    assert methods.count("rag.query_patterns") == 3
    assert "Traceback" not in (tmp_path / "stderr").read_text()
