from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
import structlog

from llm_trader.errors import StoreError
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.rpc.keys import KeyRing
from llm_trader.rpc.observer import RequestRecord, log_request
from tests.rpc.stub import connected, raising, serving


class Recorder:
    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def __call__(self, record: RequestRecord) -> None:
        self.records.append(record)


def broken(record: RequestRecord) -> None:
    raise RuntimeError("no space left for metrics")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def request(method: str, call_id: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "id": call_id, "params": params}


async def test_an_answered_request_is_observed_with_its_stages_and_sizes(
    recorder: Recorder,
) -> None:
    async with serving(observers=[recorder]) as server, connected(server) as line:
        sent = json.dumps(request("sleep", seconds=0.05)).encode()
        line.send(sent + b"\n")
        reply = await line.reader.readline()
        peer = "{}:{}".format(*line.writer.get_extra_info("sockname"))
    (record,) = recorder.records
    assert (record.method, record.code, record.peer) == ("sleep", None, peer)
    assert (record.request_bytes, record.reply_bytes) == (len(sent), len(reply) - 1)
    assert not record.notification
    assert record.batch_position is None
    assert list(record.stages) == ["queue", "decode", "handle", "encode"]
    assert record.stages["handle"] >= 0.05
    assert all(seconds >= 0 for seconds in record.stages.values())
    assert sum(record.stages.values()) <= record.duration_s


@pytest.mark.parametrize(
    ("document", "method", "code"),
    [
        (b"{nonsense}", None, -32700),
        (b"17", None, -32600),
        (b"[]", None, -32600),
        (b'"' + b"x" * 2000, None, -32600),
        (b'{"jsonrpc":"2.0","method":"nope","id":1}', "nope", -32601),
        (b'{"jsonrpc":"2.0","method":"subtract","id":1}', "subtract", -32602),
        (b'{"jsonrpc":"2.0","method":"fail","id":1}', "fail", -32000),
        (b'{"jsonrpc":"2.0","method":"bug","id":1}', "bug", -32603),
        (b'{"jsonrpc":"2.0","method":"sleep","params":[9],"id":1}', "sleep", -32013),
    ],
)
async def test_a_refused_or_failed_request_is_observed_once_under_its_code(
    recorder: Recorder, document: bytes, method: str | None, code: int
) -> None:
    failing = raising("fail", StoreError("torn")), raising("bug", KeyError("bug"))
    limits = {"max_frame_kib": 1, "request_deadline_s": 0.1}
    async with (
        serving(*failing, observers=[recorder], **limits) as server,
        connected(server) as line,
    ):
        line.send(document + b"\n")
        assert (await line.receive())["error"]["code"] == code
    (record,) = recorder.records
    assert (record.method, record.code) == (method, code)
    assert record.reply_bytes > 0


async def test_requests_that_the_gate_refuses_are_observed(recorder: Recorder) -> None:
    limits: dict[str, Any] = {"keys": KeyRing(["secret"]), "rate_limit_per_s": 1.0}
    async with (
        serving(observers=[recorder], rate_burst=1, **limits) as server,
        connected(server) as line,
    ):
        await line.call("get_data")
        await line.call("get_data")
    assert [record.code for record in recorder.records] == [-32010, -32011]
    assert all("handle" not in record.stages for record in recorder.records)


async def test_a_notification_is_observed_without_a_reply(recorder: Recorder) -> None:
    async with serving(observers=[recorder]) as server, connected(server) as line:
        line.send_json({"jsonrpc": "2.0", "method": "subtract", "params": ["x", 1]})
        await line.call("rpc.ping")
    record = recorder.records[0]
    assert (record.method, record.code, record.reply_bytes) == ("subtract", -32602, 0)
    assert record.notification


async def test_each_member_of_a_batch_is_observed_with_its_position(recorder: Recorder) -> None:
    async with serving(observers=[recorder]) as server, connected(server) as line:
        await line.ask([request("get_data"), 7, request("nope")])
    records = sorted(recorder.records, key=lambda record: record.batch_position or 0)
    assert [record.batch_position for record in records] == [1, 2, 3]
    assert [record.code for record in records] == [None, -32600, -32601]
    stem = records[0].request_id.rpartition(".")[0]
    assert [record.request_id for record in records] == [f"{stem}.{n}" for n in (1, 2, 3)]


async def test_the_wait_for_a_free_place_counts_as_queue(recorder: Recorder) -> None:
    async with (
        serving(observers=[recorder], max_in_flight_per_connection=1) as server,
        connected(server) as line,
    ):
        line.send_json(request("sleep", seconds=0.1), request("get_data", 2))
        assert [(await line.receive())["id"] for _ in range(2)] == [1, 2]
    assert recorder.records[1].stages["queue"] >= 0.1


async def test_a_method_adds_stages_and_its_pauses_count_as_queue(recorder: Recorder) -> None:
    async def work(params: None, context: RequestContext) -> None:
        for _ in range(2):
            time.sleep(0.02)  # noqa: ASYNC251  as a method that computes
            context.end_stage("search")
            await context.pause()
        context.end_stage("select")

    method = Method("work", None, work, "Computes.")
    async with serving(method, observers=[recorder]) as server, connected(server) as line:
        await line.call("work")
    (record,) = recorder.records
    stages = record.stages
    assert list(stages) == ["queue", "decode", "search", "select", "handle", "encode"]
    assert stages["search"] >= 0.04
    assert stages["select"] + stages["handle"] < stages["search"]
    assert sum(stages.values()) <= record.duration_s


async def test_a_request_cut_off_by_a_stop_is_observed_as_a_server_error(
    recorder: Recorder,
) -> None:
    async with (
        serving(observers=[recorder], drain_timeout_s=0.05) as server,
        connected(server) as line,
    ):
        line.send_json(request("sleep", seconds=30))
        await asyncio.sleep(0.05)
        await server.stop()
    (record,) = recorder.records
    assert (record.method, record.code, record.reply_bytes) == ("sleep", -32000, 0)


async def test_an_observer_that_fails_costs_nobody_a_reply(recorder: Recorder) -> None:
    with structlog.testing.capture_logs() as logs:
        async with (
            serving(observers=[broken, recorder]) as server,
            connected(server) as line,
        ):
            assert (await line.call("get_data"))["result"] == ["hello", 5]
    assert len(recorder.records) == 1
    assert "rpc_observer_failed" in [entry["event"] for entry in logs]


async def test_the_request_log_is_an_observer() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(observers=[log_request]) as server, connected(server) as line:
            await line.call("nope")
    (entry,) = [entry for entry in logs if entry["event"] == "rpc_request"]
    assert entry["log_level"] == "debug"
    assert (entry["method"], entry["error_code"]) == ("nope", -32601)
    assert entry["duration_ms"] > 0
