from __future__ import annotations

import msgspec
import pytest
from structlog.testing import capture_logs

from llm_trader.clock import WallClock
from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.errors import InvalidInputError
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.params import ParamsDecoder
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.workflow.engine.memory import MemoryEngine
from llm_trader.workflow.engine.protocol import RunOptions
from llm_trader.workflow.graph.model import Graph
from llm_trader.workflow.intake import IntakeMethods, PostParams, PushParams
from tests.workflow.graphs import changed, shipped
from tests.workflow.services import Calls

SNAPSHOT = MarketSnapshot(symbol="BTCUSDT", timestamp=1_700_006_400_000, price=100.0)
POST = SnapshotPost(job_id="job", snapshot_id="state", deadline_ms=1, snapshot=SNAPSHOT)


def test_whatever_a_collector_sends_is_taken_and_unknown_fields_are_named() -> None:
    decoder, unknown = ParamsDecoder(PostParams), list[str]()
    whole = decoder.decode(msgspec.json.encode(POST), unknown)
    assert (msgspec.to_builtins(whole), unknown) == (msgspec.to_builtins(POST), [])
    sent = msgspec.to_builtins(POST)
    sent["snapshot"]["moon_phase"] = 0.5
    sent["sender"] = "another collector"
    assert decoder.decode(msgspec.json.encode(sent), unknown) == whole
    assert unknown == ["sender", "snapshot.moon_phase"]


def test_parameters_by_position_have_the_order_of_the_page() -> None:
    values = msgspec.json.encode(["job", "state", 1, SNAPSHOT, ["oi"]])
    post = ParamsDecoder(PostParams).decode(values, [])
    assert (post.job_id, post.snapshot_id, post.deadline_ms, post.late) == (
        *("job", "state", 1, ("oi",)),
    )


def _intake(graph: Graph, calls: Calls) -> IntakeMethods:
    return IntakeMethods(
        engine=MemoryEngine(calls.services()),
        graph=graph,
        options=RunOptions(),
        clock=WallClock(lambda: SNAPSHOT.timestamp),
        max_queued=9,
    )


async def test_an_event_of_another_kind_begins_one_run_at_its_own_input() -> None:
    graph = changed(
        (
            "\nedges:\n",
            "\n  - name: news\n    type: input\n    config: {method: ingest.push}\n\nedges:\n",
        )
    )
    event = PushParams(event_id="1", kind="news", data={"headline": "Nothing happened."})
    calls = Calls()
    intake = _intake(graph, calls)
    first, second = [await intake.push(event, RequestContext()) for _ in range(2)]
    result = await intake.engine.wait(first.run_id)
    assert (first.status, second.status) == ("accepted", "duplicate")
    assert first.run_id == second.run_id
    assert result.output("news").data == {"headline": "Nothing happened."}
    assert calls.executed == []  # the nodes behind the other input were skipped


async def test_an_event_without_an_input_of_the_graph_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidInputError, match="add a node of the type input"):
        await _intake(shipped(), Calls()).push(
            PushParams(event_id="1", kind="news"), RequestContext()
        )


async def test_fields_that_nobody_knows_are_in_the_log() -> None:
    post = msgspec.convert(
        msgspec.to_builtins(msgspec.structs.replace(POST, deadline_ms=SNAPSHOT.timestamp)),
        PostParams,
    )
    context = RequestContext(unknown_fields=["snapshot.rsi7 (did you mean rsi_7?)"])
    with capture_logs() as logged:
        receipt = await _intake(shipped(), Calls()).post(post, context)
    assert receipt.status == "accepted"
    (entry,) = [one for one in logged if one["event"] == "snapshot_fields_unknown"]
    assert entry["fields"] == context.unknown_fields
