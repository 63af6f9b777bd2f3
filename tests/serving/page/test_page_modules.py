"""What the page's modules compute, by Node's own runner, and that the terminal's picture agrees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from llm_trader.app.server import query_server
from llm_trader.cli.fan import Fan, fan_of
from llm_trader.rpc.client import RpcClient
from llm_trader.serving.wire import QueryPatternsResult
from tests.cli.corridor import AT_MS, SYMBOL, Corridor
from tests.serving.page.test_page_files import STATIC

MODULES = Path(__file__).parent / "modules"
_CURVES = """
import { readFileSync } from "node:fs";
const { curves } = await import(`${process.env.PAGE}/forecast.js`);
console.log(JSON.stringify(curves(JSON.parse(readFileSync(0, "utf8")))));
"""
# What the page and the terminal call the same curve.
_NAMES = {
    ("low80", "high80"): "outer",
    ("low50", "high50"): "inner",
    ("baseLow", "baseHigh"): "usual",
}


def node(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which("node")
    if program is None:
        pytest.skip("there is no Node.js on the PATH")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"Node.js {version.stdout.strip()} is older than 20")
    environ = {**os.environ, "PAGE": STATIC.as_uri()}
    return subprocess.run(
        [program, *arguments], env=environ, input=text, capture_output=True, text=True, timeout=60
    )


def test_the_modules_keep_their_own_tests() -> None:
    files = sorted(map(str, MODULES.glob("*.test.mjs")))
    ran = node("--test", "--test-reporter=tap", *files)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    expected = sum(Path(file).read_text().count("\ntest(") for file in files)
    assert f"\n# pass {expected}\n" in ran.stdout


async def test_the_page_and_the_terminal_draw_the_same_fan(corridor: Corridor) -> None:
    async with query_server(corridor.settings(), {}, lambda: AT_MS) as server:
        await server.start()
        async with await RpcClient.connect(*server.address) as client:
            moment = {"symbol": SYMBOL, "timestamp": AT_MS}
            answer = await client.call("rag.query_patterns", moment, QueryPatternsResult)
        await server.stop()
    text = msgspec.json.encode(answer.evidence).decode()
    ran = node("--input-type=module", "-e", _CURVES, text=text)
    assert ran.returncode == 0, ran.stderr
    drawn: dict[str, list[float]] = json.loads(ran.stdout)
    fan = fan_of(answer.evidence)
    assert isinstance(fan, Fan)
    for names, band in _NAMES.items():
        for name, curve in zip(names, getattr(fan, band), strict=True):
            assert drawn[name] == pytest.approx(list(curve), abs=1e-9), name
    assert drawn["middle"] == pytest.approx(list(fan.middle), abs=1e-9)
    assert drawn["move"] == pytest.approx(list(fan.move), abs=1e-9)
    assert max(drawn["high80"]) > 0 > min(drawn["low80"])
