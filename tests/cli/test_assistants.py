"""`llm-trader receipt verify`, and `llm-trader mcp` where it cannot work."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from llm_trader.app.local_tools import local_parts
from llm_trader.cli.main import app
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.serving.config import ServingConfig
from llm_trader.timeframe import iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import AT_MS, END_MS, SYMBOL, Corridor


@pytest.fixture(scope="module")
def cohort_answer(corridor: Corridor) -> bytes:
    async def ask() -> bytes:
        async with local_parts(corridor.settings(), {}, lambda: END_MS) as parts:
            arguments = {"cohort": f"{SYMBOL}@{iso8601(AT_MS)}", "conditions": ["trend=up"]}
            outcome = await parts.tools.call("cohort_refine", arguments, RequestContext())
            assert isinstance(outcome, bytes), outcome
            return outcome

    return asyncio.run(ask())


def test_the_command_verifies_a_file_and_exits_by_what_it_found(
    corridor: Corridor, cohort_answer: bytes, tmp_path: Path, typed: Typing
) -> None:
    file = tmp_path / "answer.json"
    file.write_bytes(cohort_answer)
    flags = "--store", corridor.store, "--index", corridor.index
    found = typed("llm-trader receipt verify", file, *flags)
    assert found.code == 0
    assert "store and index give the same answer: sha256:" in found.out
    answer = json.loads(cohort_answer)
    answer["outcomes"]["verdict"] = "informative"
    file.write_text(json.dumps(answer))
    found = typed("llm-trader receipt verify --json", file, *flags)
    assert (found.code, found.json["outcome"]) == (1, "changed")
    found = typed("llm-trader receipt verify", tmp_path / "none.json", *flags)
    assert found.code == 2
    assert "cannot read" in found.err


def test_it_reads_a_receipt_from_standard_input(
    corridor: Corridor, cohort_answer: bytes, typed: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = json.dumps(json.loads(cohort_answer)["receipt"]).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(receipt)))
    flags = "--store", corridor.store, "--index", corridor.index
    found = typed("llm-trader receipt verify --json -", *flags)
    assert (found.code, found.json["outcome"]) == (0, "same")


def test_without_the_sdk_it_says_what_to_install(
    corridor: Corridor, typed: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "llm_trader.serving.mcp.protocol", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.stdio", None)
    found = typed("llm-trader mcp --store", corridor.store, "--index", corridor.index)
    assert found.code == 2
    assert "pip install 'llm-trader-rag[mcp]'" in found.err
    assert found.out == ""


def test_the_configurations_of_the_documents_can_be_read_and_name_flags_that_there_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "mcp.md").read_text("utf-8")
    blocks = re.findall(r"^```(json|toml)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    read = [json.loads(text) if kind == "json" else tomllib.loads(text) for kind, text in blocks]
    entries = [
        entry
        for tree in read
        for servers in (tree.get("mcpServers"), tree.get("mcp_servers"))
        for entry in (servers or {}).values()
    ]
    group = cast(Any, typer.main.get_command(app))
    known = {flag for option in group.commands["mcp"].params for flag in option.opts}
    for entry in entries:
        if "command" in entry:
            command, *arguments = entry["args"]
            assert (Path(entry["command"]).name, command) == ("llm-trader", "mcp")
            assert {word for word in arguments if word.startswith("-")} <= known
        else:
            assert entry["url"] == f"http://127.0.0.1:{ServingConfig().port + 1}/mcp"
    # Claude Desktop, Cursor, and Codex in both ways.
    assert len(entries) == 4
