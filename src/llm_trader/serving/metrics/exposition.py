"""The metrics of one server, and the text of all of them that Prometheus scrapes."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric

from llm_trader.rpc.admission import Admission
from llm_trader.rpc.dispatcher import Method
from llm_trader.rpc.errors import ErrorTable
from llm_trader.serving.methods import RagMethods
from llm_trader.serving.metrics import definitions
from llm_trader.serving.metrics.answers import AnswerMetrics
from llm_trader.serving.metrics.readings import Sources, read
from llm_trader.serving.metrics.registry import Registry
from llm_trader.serving.metrics.requests import RequestMetrics
from llm_trader.serving.metrics.summing import Family, as_metrics


class ServerMetrics:
    """`requests` is an observer for the dispatcher; `metrics_text` answers a scrape."""

    media_type: Final = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, rag: RagMethods, gate: Admission) -> None:
        # What is shown instead of this process's own, where others answer as well.
        self.of_all: Callable[[], Awaitable[Sequence[Family] | None]] | None = None
        self._registry = Registry(definitions.COUNTED)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        retriever, market = rag.queries.retriever, rag.queries.market
        self._sources = Sources(
            retriever, market, gate, rag.queries.forecasts, rag.version, rag.clock
        )
        self.answers = AnswerMetrics(self._registry)

    def requests(self, methods: Iterable[Method], errors: ErrorTable) -> RequestMetrics:
        """Counts the requests of these methods."""
        return RequestMetrics(self._registry, methods, errors)

    async def page(self, authenticated: bool) -> tuple[int, bytes]:
        """What the route answers."""
        return 200, await self.metrics_text()

    async def metrics_text(self) -> bytes:
        """The text, of the type `media_type`. It never fails: it leaves out what cannot be read."""
        shared = None if self.of_all is None else await self.of_all()
        families = await self.families() if shared is None else as_metrics(shared)
        return generate_latest(_Families(families))

    async def families(self) -> Iterator[Metric]:
        """The metrics of this process."""
        readings = await read(self._sources)
        parts = (self._registry, readings, self._process)
        return itertools.chain.from_iterable(part.collect() for part in parts)


class _Families:
    """Looks like a registry to `generate_latest`."""

    def __init__(self, families: Iterator[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families
