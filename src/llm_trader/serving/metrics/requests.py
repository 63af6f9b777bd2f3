"""Counts and times requests. Names from outside become no label: a method is known or `unknown`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llm_trader.rpc.dispatcher import Method
from llm_trader.rpc.errors import ErrorTable
from llm_trader.rpc.observer import RequestRecord
from llm_trader.serving.metrics import definitions
from llm_trader.serving.metrics.registry import Counter, Histogram, Registry

UNKNOWN: Final = "unknown"
_NOT_A_CALL: Final = "none"
_OTHER: Final = "other"
# Whatever stages methods report, so many have a histogram.
_STAGES: Final = frozenset(
    ("queue", "decode", "state", "embed", "search", "select", "evidence", "handle", "encode")
)


class RequestMetrics:
    """Observes requests; `methods` are those of the server."""

    def __init__(self, registry: Registry, methods: Iterable[Method], errors: ErrorTable) -> None:
        self._registry = registry
        # A quick method takes microseconds, and so would the timing of its stages.
        self._staged = {method.name: not method.quick for method in methods}
        self._codes = {kind.code: str(kind.code) for kind in errors.kinds}
        self._by_method: dict[str, tuple[Counter, Histogram]] = {}
        self._stages: dict[tuple[str, str], Histogram] = {}

    def __call__(self, record: RequestRecord) -> None:
        method, staged = self._label(record.method)
        metrics = self._by_method.get(method)
        if metrics is None:
            metrics = self._by_method[method] = (
                self._registry.counter(definitions.REQUESTS, method),
                self._registry.histogram(definitions.DURATION, method),
            )
        metrics[0].inc()
        metrics[1].observe(record.duration_s)
        if record.code is not None:
            code = self._codes.get(record.code, _OTHER)
            self._registry.counter(definitions.ERRORS, method, code).inc()
        if staged:
            for stage, seconds in record.stages.items():
                self._stage(method, stage).observe(seconds)

    def _label(self, method: str | None) -> tuple[str, bool]:
        if method is None:
            return _NOT_A_CALL, False
        staged = self._staged.get(method)
        return (UNKNOWN, False) if staged is None else (method, staged)

    def _stage(self, method: str, stage: str) -> Histogram:
        key = method, stage if stage in _STAGES else _OTHER
        histogram = self._stages.get(key)
        if histogram is None:
            histogram = self._registry.histogram(definitions.STAGE_DURATION, *key)
            self._stages[key] = histogram
        return histogram
