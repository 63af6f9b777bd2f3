"""The client and a server with a real store and index; the examples of its page run here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_trader.app.server import query_server
from llm_trader.client import calls
from llm_trader.client.errors import InsufficientMatches, SymbolNotFound
from llm_trader.rpc.server import RpcServer
from llm_trader.serving.brief import BriefResult
from llm_trader.serving.wire import GetSnapshotResult, QueryBatchResult, QueryPatternsResult
from tests.cli.corridor import AT_MS, SYMBOL, SYMBOLS, Corridor
from tests.client.doors import face, tcp

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"


@pytest.fixture
async def server(corridor: Corridor) -> AsyncIterator[RpcServer]:
    async with query_server(corridor.settings(), {}) as server:
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@pytest.mark.parametrize("kind", ["threads", "tasks"])
async def test_every_call_gives_the_structs_of_the_wire(kind: str, server: RpcServer) -> None:
    async with face(kind, tcp(server)) as client:
        stats = await client.send(calls.stats())
        assert [fresh.symbol for fresh in stats.freshness] == sorted(SYMBOLS)
        whole = await client.send(calls.query_patterns(SYMBOL, AT_MS, top_k=3))
        assert isinstance(whole, QueryPatternsResult)
        assert len(whole.matches) == 3
        brief = await client.send(calls.query_briefly(SYMBOL, AT_MS))
        assert isinstance(brief, BriefResult)
        state = await client.send(calls.get_snapshot(SYMBOL, AT_MS))
        assert isinstance(state, GetSnapshotResult)
        sent = await client.send(calls.query_patterns(SYMBOL, AT_MS, state.snapshot, top_k=3))
        assert sent.metadata.state_source == "request"
        batch = await client.send(
            calls.query_batch([{"symbol": SYMBOL, "timestamp": AT_MS}], top_k=3)
        )
        assert isinstance(batch, QueryBatchResult)
        assert batch.answers[0].result is not None
        assert batch.answers[0].result.evidence == whole.evidence
        with pytest.raises(SymbolNotFound):
            await client.send(calls.query_patterns("NOSUCHUSDT", AT_MS))
        with pytest.raises(InsufficientMatches) as refused:
            await client.send(calls.query_patterns(SYMBOL, AT_MS, min_similarity=1.0))
        assert "min_similarity" in refused.value.suggestion


async def test_the_examples_of_the_page_run(
    server: RpcServer, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        assert "tcp://127.0.0.1:7879" in example
        await asyncio.to_thread(exec, example.replace("tcp://127.0.0.1:7879", tcp(server)), {})
    shown = capsys.readouterr().out
    assert "-32002 no data for symbol 'NOSUCHUSDT'" in shown
    assert re.search(r"^BTCUSDT (none|weak|informative) 3$", shown, re.MULTILINE)
