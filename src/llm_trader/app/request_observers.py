"""What is kept of each request of the query server: debug lines, audit, traces and metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING, Final

import structlog

from llm_trader import __version__
from llm_trader.audit.log import AuditLog
from llm_trader.errors import ConfigurationError
from llm_trader.forecasts.journal import ForecastJournal
from llm_trader.forecasts.reading import JournalReader
from llm_trader.forecasts.served import ServedForecasts
from llm_trader.rpc.admission import Admission
from llm_trader.rpc.dispatcher import Method
from llm_trader.rpc.observer import RequestObserver, log_observers
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.methods import RagMethods
from llm_trader.serving.tracing import open_traces
from llm_trader.serving.wire import RAG_ERRORS
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import DAY_MS, Millis

if TYPE_CHECKING:
    from llm_trader.serving.metrics.exposition import ServerMetrics

# As far back as scores are asked for, and the longest horizon.
_READ_DAYS_MS: Final = 91 * DAY_MS

_log = structlog.get_logger(__name__)


def metrics_of(rag: RagMethods, gate: Admission) -> ServerMetrics | None:
    """They count the answers of `rag` from now on; None where the settings say so."""
    if not rag.queries.config.metrics:
        return None
    from llm_trader.serving.metrics.exposition import ServerMetrics

    metrics = ServerMetrics(rag, gate)
    rag.queries.observer = metrics.answers
    return metrics


def request_observers(
    settings: Settings,
    methods: Sequence[Method],
    metrics: ServerMetrics | None,
    clock: Callable[[], Millis] | None,
    opened: AsyncExitStack,
) -> list[RequestObserver]:
    """They are closed with `opened`."""
    observers = [
        *log_observers(),
        *_audit(settings, methods, clock, opened),
        *_traces(settings.serving, methods, clock, opened),
    ]
    if metrics is not None:
        observers.append(metrics.requests(methods, RAG_ERRORS))
    return observers


def _audit(
    settings: Settings,
    methods: Sequence[Method],
    clock: Callable[[], Millis] | None,
    opened: AsyncExitStack,
) -> Sequence[RequestObserver]:
    """The audit log, if the settings name a folder for it."""
    folder = settings.audit.folder
    if folder is None:
        return ()
    if clock is None:
        raise ConfigurationError("an audit log needs a clock")
    names = (method.name for method in methods)
    log = AuditLog(folder, names, now_ms=clock, config=settings.audit)
    return (opened.enter_context(closing(log)),)


def served_forecasts(
    settings: Settings,
    market: SnapshotSource | None,
    clock: Callable[[], Millis] | None,
    opened: AsyncExitStack,
) -> ServedForecasts | None:
    """The journal of forecasts, unless the settings turn it off.

    Where nobody named its folder and it cannot be written to, the server does without.
    """
    config = settings.forecasts
    if clock is None or not config.journal:
        return None
    folder = config.folder_beside(settings.index.path)
    try:
        journal = ForecastJournal(folder, now_ms=clock, config=config)
    except ConfigurationError as error:
        if config.folder is not None:
            raise
        _log.warning("forecasts_not_recorded", reason=error.message)
        return None
    opened.enter_context(closing(journal))
    return ServedForecasts(journal, JournalReader(folder, clock() - _READ_DAYS_MS), market, clock)


def _traces(
    config: ServingConfig,
    methods: Sequence[Method],
    clock: Callable[[], Millis] | None,
    opened: AsyncExitStack,
) -> list[RequestObserver]:
    if config.otlp_endpoint is None or clock is None:
        return []
    names = frozenset(method.name for method in methods)
    traces = open_traces(config.otlp_endpoint, __version__, names, clock)
    opened.callback(traces.close)
    return [traces]
