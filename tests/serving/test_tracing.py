"""Traces reach an OpenTelemetry receiver through OpenTelemetry's own client."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.client import RpcError
from llm_trader.rpc.observer import RequestRecord
from llm_trader.serving.tracing import RequestTraces, open_traces
from tests.cli.corridor import AT_MS, SYMBOL, Corridor, answering
from tests.serving.graphql.clients import asking

NOW_MS = AT_MS
METHODS = frozenset({"rag.query_patterns", "rpc.ping"})
STAGES = {"queue": 0.001, "decode": 0.002, "search": 0.003, "encode": 0.004}


def record(method: str | None = "rag.query_patterns", code: int | None = None) -> RequestRecord:
    return RequestRecord(
        request_id="a-1",
        peer="127.0.0.1:5",
        method=method,
        code=code,
        stages=STAGES,
        duration_s=0.011,
        request_bytes=70,
        reply_bytes=900,
        notification=False,
        batch_position=None,
    )


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> Iterator[RequestTraces]:
    opened = open_traces("http://unused", "1.2.3", METHODS, lambda: NOW_MS, exporter)
    yield opened
    opened.close()


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_is_a_span_with_its_stages_inside_one_after_the_other(
    traces: RequestTraces, exporter: InMemorySpanExporter
) -> None:
    traces(record())
    made = spans(exporter)
    assert list(made) == [*STAGES, "rag.query_patterns"]
    whole = made["rag.query_patterns"]
    assert (whole.end_time, whole.start_time) == (NOW_MS * 10**6, NOW_MS * 10**6 - 11 * 10**6)
    ends = whole.start_time
    for name, seconds in STAGES.items():
        assert made[name].parent == whole.context
        assert made[name].start_time == ends
        assert made[name].end_time == ends + round(seconds * 1e9)
        ends = made[name].end_time
    assert whole.status.is_ok or whole.status.is_unset
    assert whole.resource.attributes["service.version"] == "1.2.3"


def test_a_refused_request_has_its_code_and_no_name_from_outside(
    traces: RequestTraces, exporter: InMemorySpanExporter
) -> None:
    traces(record("evil\nname", -32601))
    (whole,) = [span for name, span in spans(exporter).items() if name not in STAGES]
    assert whole.name == "unknown"
    assert not whole.status.is_ok
    assert whole.attributes is not None
    assert whole.attributes["rpc.jsonrpc.error_code"] == -32601
    assert "evil" not in whole.to_json()
    assert "127.0.0.1" not in json.dumps(dict(whole.attributes))


class Receiver(BaseHTTPRequestHandler):
    received: list[Span]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                type(self).received.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None: ...


@contextmanager
def receiving() -> Iterator[tuple[str, list[Span]]]:
    """An OTLP/HTTP receiver, and what it received."""
    handler = type("One", (Receiver,), {"received": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", handler.received
        finally:
            server.shutdown()
            thread.join()


async def test_a_server_sends_the_traces_of_its_requests_to_a_receiver(corridor: Corridor) -> None:
    with receiving() as (endpoint, received):
        async with answering(
            corridor, clock=lambda: NOW_MS, serving__otlp_endpoint=endpoint
        ) as rag:
            await rag.call("rag.query_patterns", {"symbol": SYMBOL, "timestamp": AT_MS})
            with pytest.raises(RpcError):
                await rag.call("no.such", {})
        by_name = {span.name: span for span in received}
    assert {"rag.query_patterns", "unknown", "search", "evidence", "encode"} <= set(by_name)
    query = by_name["rag.query_patterns"]
    assert by_name["search"].parent_span_id == query.span_id
    assert by_name["search"].trace_id == query.trace_id


async def test_each_field_of_a_graphql_document_is_a_span_of_its_method(
    corridor: Corridor,
) -> None:
    moment = f'symbol:"{SYMBOL}",timestamp:{AT_MS}'
    patterns = f"query_patterns({moment}){{metadata{{request_id}}}}"
    with receiving() as (endpoint, received):
        settings = corridor.settings(serving__graphql=True, serving__otlp_endpoint=endpoint)
        async with asking(settings) as client:
            data = await client.data("{a:" + patterns + " b:" + patterns + " stats{version}}")
            await client.reply('{get_snapshot(symbol:"EVILUSDT",timestamp:1){feature_version}}')
            await client.reply("{evil}")
        whole = [span for span in received if not span.parent_span_id]
    names = ["rag.query_patterns"] * 2 + ["rag.stats", "rag.get_snapshot", "unknown"]
    assert sorted(span.name for span in whole) == sorted(names)
    ids = {data[key]["metadata"]["request_id"] for key in ("a", "b")}
    queries = [span for span in whole if span.name == "rag.query_patterns"]
    assert {attributes_of(span)["llm_trader.request_id"] for span in queries} == ids
    for query in queries:
        inside = {span.name for span in received if span.parent_span_id == query.span_id}
        assert {"queue", "decode", "state", "search", "evidence", "encode"} <= inside
    codes = {span.name: attributes_of(span).get("rpc.jsonrpc.error_code") for span in whole}
    assert codes["rag.stats"] is None
    assert (codes["rag.get_snapshot"], codes["unknown"]) == (-32602, -32600)
    assert not any(b"evil" in span.SerializeToString().lower() for span in received)


def attributes_of(span: Span) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


async def test_a_receiver_that_is_away_costs_nobody_an_answer(corridor: Corridor) -> None:
    with receiving() as (endpoint, _):
        pass
    async with asyncio.timeout(30):
        async with answering(
            corridor, clock=lambda: NOW_MS, serving__otlp_endpoint=endpoint
        ) as rag:
            assert (await rag.call("rpc.ping"))["pong"] is True


def test_without_the_extra_the_setting_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'llm-trader-rag\[otel\]'"):
        open_traces("http://127.0.0.1:1", "1", METHODS, lambda: NOW_MS)


def test_opentelemetry_and_prometheus_are_imported_only_when_used() -> None:
    program = (
        "import sys, llm_trader.app.server; "
        "print([m for m in sys.modules if m.startswith(('opentelemetry', 'prometheus'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
