"""The whole way from a posted snapshot to a paper order, on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice
from llm_trader.app.server import query_server
from llm_trader.app.workflow.server import WorkflowChoice, WorkflowServer, workflow_server
from llm_trader.client import AsyncClient
from llm_trader.client.calls import other
from llm_trader.clock import WallClock
from llm_trader.delivery.config import IntakeAddress
from llm_trader.delivery.intake import Intake
from llm_trader.delivery.jobs import SnapshotPost, job_id, snapshot_id
from llm_trader.errors import LlmTraderError
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.rpc.client import RpcError
from llm_trader.timeframe import Millis
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.database import run_database
from llm_trader.workflow.graph.model import Graph
from tests.cli.corridor import AT_MS, QUARTER_MS, SYMBOL, SYMBOLS, Corridor
from tests.llm.stub.server import TEST_KEY, StubServer
from tests.workflow.graphs import MAIN

LONG = json.dumps(
    {
        "action": "LONG",
        "confidence": 0.8,
        "reasoning": "The evidence says so.",
        "stop_pct": -2.0,
        "target_pct": 3.0,
        "size_pct": 10.0,
    }
)


def snapshot_post(corridor: Corridor, number: int = 0, symbol: str = SYMBOL) -> SnapshotPost:
    """As a collector sends it, of the quarter-hour of that number."""
    as_of_ms = AT_MS + number * QUARTER_MS
    identity = snapshot_id(symbol, as_of_ms, "simulated", "v2_5m4h")
    return SnapshotPost(
        job_id=job_id(identity, "test"),
        snapshot_id=identity,
        deadline_ms=as_of_ms + 120_000,
        snapshot=corridor.state_at(as_of_ms, symbol).snapshot(0),
    )


@dataclass
class World:
    """A RAG server, a stand-in for a model, and a workflow between them."""

    workflow: WorkflowServer
    stub: StubServer
    record: Path
    now: list[Millis]
    close_rag: Callable[[], Any]

    async def post(self, post: SnapshotPost) -> dict[str, Any]:
        return await self.call("snapshot.post", msgspec.to_builtins(post))

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        host, port = self.workflow.server.address
        async with AsyncClient(f"tcp://{host}:{port}") as client:
            return await client.send(other(method, params))

    async def decide(self, post: SnapshotPost) -> Any:
        receipt = await self.post(post)
        await self.workflow.runs.wait(receipt["run_id"])
        return await self.workflow.runs.show(receipt["run_id"])


Open = Callable[..., Any]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        yield running


@pytest.fixture
def world(corridor: Corridor, stub: StubServer, tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(graph: Path = MAIN, **overrides: Any) -> AsyncIterator[World]:
        stub.clear()
        stub.decide = lambda request: LONG
        now = [AT_MS + 2_000]
        async with AsyncExitStack() as stack:
            rag = await stack.enter_async_context(
                query_server(corridor.settings(), {}, lambda: now[0])
            )
            await rag.start()
            stack.push_async_callback(rag.stop)
            host, port = rag.address
            settings = corridor.settings(
                **{
                    "market__store": tmp_path / "none",
                    "decisions__record": tmp_path / "decisions",
                    "workflow__runs__folder": tmp_path / "runs",
                    "workflow__runs__poll_ms": 20,
                    "workflow__runs__rag_url": f"tcp://{host}:{port}",
                    "workflow__paper__ledger": tmp_path / "paper.sqlite",
                    "workflow__guards__kill_switch": tmp_path / "kill",
                    "workflow__guards__min_reward_risk": 0,
                    "intake__port": 0,
                    "intake__http_port": 0,
                    "llm__base_url": stub.url,
                    "snapshot__intraday": "5m",
                }
                | overrides
            )
            job = Job(settings, {"ANTHROPIC_API_KEY": TEST_KEY}, now[0])
            choice = WorkflowChoice(DeciderChoice("anthropic"))
            workflow = await stack.enter_async_context(
                workflow_server(job, graph, choice, lambda: now[0])
            )
            await workflow.server.start()
            stack.push_async_callback(workflow.server.stop)
            yield World(workflow, stub, tmp_path / "decisions", now, rag.stop)

    return opened


async def test_a_posted_snapshot_becomes_a_paper_order(world: Open, corridor: Corridor) -> None:
    async with world() as here:
        details = await here.decide(snapshot_post(corridor))
        position = await here.workflow.parts.broker.position(SYMBOL)
        with DecisionRecord.open(here.record) as record:
            (decision,) = record.decisions.export(_everything())
    assert details.summary.state == "done", details.summary
    assert (details.summary.action, details.summary.execution) == ("LONG", "placed")
    assert position.quantity > 0
    recorded = decision.decision
    assert (recorded.arm_used, recorded.has_evidence, recorded.origin) == ("rag", True, "workflow")
    assert recorded.labels["run"] == details.summary.run_id
    assert recorded.answer is not None
    assert len(here.stub.requests) == 1
    assert "similar" in here.stub.requests[0].prompt


def _everything() -> Any:
    from llm_trader.llm.record.decisions import DecisionFilter

    return DecisionFilter()


async def test_a_snapshot_that_comes_again_is_not_decided_again(
    world: Open, corridor: Corridor
) -> None:
    async with world() as here:
        posts = [here.post(snapshot_post(corridor)) for _ in range(4)]
        receipts = await asyncio.gather(*posts)
        await here.workflow.runs.wait(receipts[0]["run_id"])
        assert (await here.post(snapshot_post(corridor)))["status"] == "duplicate"
    assert sorted(one["status"] for one in receipts) == ["accepted", *["duplicate"] * 3]
    assert len({one["run_id"] for one in receipts}) == 1
    assert len(here.stub.requests) == 1


async def test_without_the_rag_server_the_baseline_prompt_is_used_and_said_so(
    world: Open, corridor: Corridor
) -> None:
    async with world() as here:
        await here.close_rag()
        details = await here.decide(snapshot_post(corridor))
        with DecisionRecord.open(here.record) as record:
            (exported,) = record.decisions.export(_everything())
    assert details.summary.action == "LONG"
    assert details.summary.note is not None
    assert "baseline prompt, without evidence" in details.summary.note
    assert (exported.decision.arm, exported.decision.arm_used) == ("rag", "baseline")
    assert exported.decision.retrieval_error is not None
    assert "similar" not in here.stub.requests[0].prompt


@pytest.mark.soak
async def test_evidence_that_the_graph_does_not_accept_leads_to_the_baseline(
    world: Open, corridor: Corridor, tmp_path: Path
) -> None:
    graph = _copied(tmp_path, ("min_matches: 1", "min_matches: 6"))
    async with world(graph) as here:
        details = await here.decide(snapshot_post(corridor))
    assert "similar past states found, 6 required" in details.summary.note


async def test_both_prompts_are_asked_on_the_same_snapshot_and_one_executes(
    world: Open, corridor: Corridor
) -> None:
    async with world(workflow__runs__ab="baseline") as here:
        here.stub.decide = lambda request: (
            LONG.replace("LONG", "SHORT") if "similar" not in request.prompt else LONG
        )
        details = await here.decide(snapshot_post(corridor))
        position = await here.workflow.parts.broker.position(SYMBOL)
        with DecisionRecord.open(here.record) as record:
            decisions = [one.decision for one in record.decisions.export(_everything())]
    assert {(one.arm, one.decision.action) for one in decisions} == {
        ("rag", "LONG"),
        ("baseline", "SHORT"),
    }
    assert len({one.as_of_ms for one in decisions}) == 1
    assert {one.labels["mode"] for one in decisions} == {"ab"}
    assert details.summary.action == "SHORT"
    assert position.quantity < 0


@pytest.mark.soak
async def test_shadow_mode_records_and_orders_nothing(world: Open, corridor: Corridor) -> None:
    async with world(workflow__runs__shadow=True) as here:
        details = await here.decide(snapshot_post(corridor))
        assert await here.workflow.parts.broker.positions() == []
    assert (details.summary.action, details.summary.execution) == ("LONG", "shadow")


@pytest.mark.soak
async def test_a_guard_holds_and_names_its_rule(world: Open, corridor: Corridor) -> None:
    async with world(workflow__guards__least_verdict="informative") as here:
        details = await here.decide(snapshot_post(corridor))
        assert await here.workflow.parts.broker.positions() == []
    assert (details.summary.action, details.summary.hold_reason) == ("HOLD", "guard")
    checked = next(one.output for one in details.records if one.node == "guard")
    assert checked.vetoes[0].rule == "verdict"
    assert checked.vetoes[0].numbers["least"] == "informative"


async def test_the_collectors_sender_is_understood(world: Open, corridor: Corridor) -> None:
    async with world() as here:
        host, port = here.workflow.server.address
        clock = WallClock(lambda: here.now[0])
        intake = Intake(IntakeAddress(host, port), clock, 5.0)
        for symbol in SYMBOLS:
            intake.post(snapshot_post(corridor, symbol=symbol))
        await intake.settled()
        await intake.close()
        runs = await here.workflow.runs.runs(limit=10)
        for one in runs:
            await here.workflow.runs.wait(one.run_id)
        positions = await here.workflow.parts.broker.positions()
    assert intake.counts.sent == 2
    assert {position.symbol for position in positions} == set(SYMBOLS)


async def test_http_takes_a_snapshot_and_says_that_it_is_ready(
    world: Open, corridor: Corridor
) -> None:
    async with world() as here:
        host, port = here.workflow.server.http_address
        async with AsyncClient(f"http://{host}:{port}") as client:
            receipt = await client.send(
                other("snapshot.post", msgspec.to_builtins(snapshot_post(corridor)))
            )
            described = await client.send(other("rpc.discover"))
        await here.workflow.runs.wait(receipt["run_id"])
    assert receipt["status"] == "accepted"
    assert receipt["queue_depth"] == 1
    assert {"snapshot.post", "ingest.push"} <= {one["name"] for one in described["methods"]}


_NO_GOOD: list[tuple[dict[str, Any], int, str]] = [
    ({"deadline_ms": AT_MS + 1_000}, -32013, "has passed"),
    ({"snapshot_id": ""}, -32602, "snapshot_id should not be empty"),
    ({"snapshot": {"symbol": SYMBOL}}, -32602, "snapshot.timestamp is required"),
    ({"snapshot": {"symbol": "a b", "timestamp": AT_MS, "price": 1}}, -32602, "is no symbol"),
    ({"snapshot": {"symbol": SYMBOL, "timestamp": AT_MS, "price": 0}}, -32602, "price should be"),
    (
        {"snapshot": {"symbol": SYMBOL, "timestamp": AT_MS + 3_600_000, "price": 1}},
        -32602,
        "3598 s ahead of this clock",
    ),
]


async def test_what_is_no_good_snapshot_is_refused(world: Open, corridor: Corridor) -> None:
    async with world() as here:
        for change, code, reason in _NO_GOOD:
            params = msgspec.to_builtins(snapshot_post(corridor)) | change
            with pytest.raises(RpcError, match=reason) as caught:
                await here.call("snapshot.post", params)
            assert caught.value.rpc_code == code
        assert await here.workflow.runs.runs(limit=10) == []


async def test_runs_in_sqlite_are_carried_out_by_one_engine(world: Open) -> None:
    async with world() as here:
        folder = here.record.parent / "runs"
        # The lock is of the file, so another opening in this process counts like another process.
        with pytest.raises(LlmTraderError, match="already open for writing in this process"):
            run_database(RunsConfig(folder=folder), {}).lock()


@pytest.mark.soak
async def test_other_events_run_where_the_graph_has_an_input_for_them(
    world: Open, corridor: Corridor, tmp_path: Path
) -> None:
    graph = _copied(
        tmp_path,
        (
            "\nedges:\n",
            "\n  - name: news\n    type: input\n    config: {method: ingest.push}\n\nedges:\n",
        ),
    )
    event = {"event_id": "1", "kind": "news", "data": {"headline": "Nothing happened."}}
    async with world(graph) as here:
        receipt = await here.call("ingest.push", event)
        result = await here.workflow.runs.wait(receipt["run_id"])
        again = await here.call("ingest.push", event)
    assert result.output("news").data == {"headline": "Nothing happened."}
    assert again["status"] == "duplicate"
    async with world(workflow__runs__folder=tmp_path / "others") as here:
        with pytest.raises(LlmTraderError, match="has no input for ingest"):
            await here.call("ingest.push", event)


def _copied(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The shipped graph in files of its own, with pieces replaced."""
    from tests.workflow.graphs import changed

    graph: Graph = changed(*changes)
    for name, text in graph.text.files.items():
        path = tmp_path / "graph" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "graph" / graph.text.main
