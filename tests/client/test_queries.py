"""The client and a server with a real store and index; the examples of its page run here."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_trader.app.server import query_server
from llm_trader.client import AsyncClient, Client, calls
from llm_trader.client.errors import InsufficientMatches, InvalidParams, SymbolNotFound
from llm_trader.rpc.server import RpcServer
from llm_trader.serving.brief import BriefResult
from llm_trader.serving.wire import GetSnapshotResult, QueryBatchResult, QueryPatternsResult
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.cli.corridor import AT_MS, SYMBOL, SYMBOLS, Corridor
from tests.client.doors import face, tcp

# The connection authenticates itself, and the client has no WebSocket to be notified on.
WITHOUT_A_CALL = {"rpc.authenticate", "rag.subscribe", "rag.unsubscribe"}
MOMENT = SYMBOL, AT_MS
RANGE = AT_MS - DAY_MS, AT_MS
# By the names of the functions that make them.
CALLS = {
    "query_patterns": calls.query_patterns(*MOMENT),
    "query_briefly": calls.query_briefly(*MOMENT),
    "query_batch": calls.query_batch([{"symbol": SYMBOL, "timestamp": AT_MS}]),
    "get_snapshot": calls.get_snapshot(*MOMENT),
    "get_candles": calls.get_candles(SYMBOL, "4h", *RANGE),
    "get_funding": calls.get_funding(SYMBOL, *RANGE),
    "get_open_interest": calls.get_open_interest(SYMBOL, *RANGE),
    "compare_states": calls.compare_states(*MOMENT, [AT_MS - 30 * DAY_MS]),
    "series_report": calls.series_report(SYMBOL),
    "cohort_open": calls.cohort_open(*MOMENT),
    "cohort_refine": calls.cohort_refine("c", ["funding=positive"]),
    "cohort_rank": calls.cohort_rank("c"),
    "list_decisions": calls.list_decisions(),
    "get_decision": calls.get_decision(1),
    "paper_account": calls.paper_account(),
    "list_evaluations": calls.list_evaluations(),
    "forecast_quality": calls.forecast_quality(days=7),
    "stats": calls.stats(),
    "ping": calls.ping(),
    "discover": calls.discover(),
    "reload_settings": calls.reload_settings(),
}
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


async def test_every_method_of_the_server_has_a_call_and_both_clients_have_every_call(
    server: RpcServer,
) -> None:
    async with face("tasks", tcp(server)) as client:
        described = {method["name"] for method in (await client.send(calls.discover()))["methods"]}
    assert {call.method for call in CALLS.values()} == described - WITHOUT_A_CALL
    built = {
        name
        for name, member in inspect.getmembers(calls, inspect.isfunction)
        if member.__module__ == calls.__name__ and not name.startswith("_")
    }
    assert built - {"other"} == CALLS.keys()
    for name in CALLS:
        asked = inspect.signature(getattr(calls, name)).parameters
        assert asked
        for kind in (Client, AsyncClient):
            assert getattr(kind, name).__doc__ == getattr(calls, name).__doc__


@pytest.mark.parametrize("kind", ["threads", "tasks"])
async def test_series_come_in_pages_that_follow_one_another(kind: str, server: RpcServer) -> None:
    start_ms, end_ms = RANGE
    async with face(kind, tcp(server)) as client:
        whole = await client.send(CALLS["get_candles"])
        assert whole.open_time == list(range(start_ms, end_ms, 4 * HOUR_MS))
        first = await client.send(calls.get_candles(SYMBOL, "4h", start_ms, end_ms, limit=4))
        assert (first.open_time, first.next_start) == (whole.open_time[:4], whole.open_time[4])
        second = await client.send(calls.get_candles(SYMBOL, "4h", first.next_start, end_ms))
        assert first.close + second.close == whole.close
        assert (await client.send(CALLS["get_funding"])).interval_hours == [8.0] * 3
        interest = await client.send(CALLS["get_open_interest"])
        assert all(start_ms <= time < end_ms for time in interest.time)
        assert len(interest.open_interest) == len(interest.time) == 24
        with pytest.raises(InvalidParams, match="must be after start"):
            await client.send(calls.get_funding(SYMBOL, end_ms, start_ms))


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
