"""A trace of each request by OpenTelemetry: a span for the request, and one for each stage.

The spans are made when a request has ended, of the times in its record. Stages stand one after the
other in the order in which they ended first; a stage that was entered repeatedly is one span.
What batches and sends them is OpenTelemetry's own thread; a receiver that is away costs no query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from llm_trader.errors import ConfigurationError
from llm_trader.rpc.observer import RequestRecord
from llm_trader.timeframe import Millis

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_SERVICE: Final = "llm-trader-rag"
# Retries included; the end of the server waits for the last ones.
_SEND_S: Final = 2
_NS_PER_MS: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000


class RequestTraces:
    """An observer that traces requests; `methods` are those of the server.

    `clock` gives the present time. Call `close` at the end; it sends what is left.
    """

    def __init__(
        self, provider: TracerProvider, methods: frozenset[str], clock: Callable[[], Millis]
    ) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        self._provider = provider
        self._tracer = provider.get_tracer(__package__)
        self._methods = methods
        self._clock = clock
        self._kind = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)
        self._inside = set_span_in_context

    def __call__(self, record: RequestRecord) -> None:
        end_ns = self._clock() * _NS_PER_MS
        start_ns = end_ns - round(record.duration_s * _NS_PER_S)
        name = record.method if record.method in self._methods else "unknown"
        attributes: dict[str, str | int] = {
            "rpc.system": "jsonrpc",
            "rpc.method": name,
            "llm_trader.request_id": record.request_id,
            "llm_trader.request_bytes": record.request_bytes,
            "llm_trader.reply_bytes": record.reply_bytes,
        }
        if record.code is not None:
            attributes["rpc.jsonrpc.error_code"] = record.code
        span = self._tracer.start_span(
            name, kind=self._kind, attributes=attributes, start_time=start_ns
        )
        if record.code is not None:
            span.set_status(self._failed)
        parent, stage_ns = self._inside(span), start_ns
        for stage, seconds in record.stages.items():
            child = self._tracer.start_span(stage, context=parent, start_time=stage_ns)
            stage_ns += round(seconds * _NS_PER_S)
            child.end(end_time=stage_ns)
        span.end(end_time=end_ns)

    def close(self) -> None:
        self._provider.shutdown()


def open_traces(
    endpoint: str,
    version: str,
    methods: frozenset[str],
    clock: Callable[[], Millis],
    exporter: SpanExporter | None = None,
) -> RequestTraces:
    """Traces that go to an OTLP/HTTP receiver, or to the given exporter at once.

    Raises `ConfigurationError` without the extra `otel`.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"traces need OpenTelemetry ({error}); install it with: pip install "
            "'llm-trader-rag[otel]', or remove the setting serving.otlp_endpoint"
        ) from None
    # Without the defaults, which would read the environment and the host's names.
    resource = Resource({"service.name": _SERVICE, "service.version": version})
    # It is the server that ends the process, so no hook at exit is needed.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    processor = (
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_SEND_S))
        if exporter is None
        else SimpleSpanProcessor(exporter)
    )
    provider.add_span_processor(processor)
    return RequestTraces(provider, methods, clock)
