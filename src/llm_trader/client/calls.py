"""The calls of a client as data: each method is written once, and both faces send it.

Types of results are imported when the first result is decoded, so that importing the client stays
light: they stand beside arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from llm_trader.client.errors import error_of
from llm_trader.rpc.conversation import Reply, decoded

if TYPE_CHECKING:
    from llm_trader.forecasts.quality import ForecastQuality
    from llm_trader.rpc.builtin import Pong
    from llm_trader.serving.admin import Reloaded
    from llm_trader.serving.brief import BriefResult
    from llm_trader.serving.cohorts import CohortRankResult, CohortResult
    from llm_trader.serving.decisions import DecisionResult, DecisionsResult
    from llm_trader.serving.page.account import PaperAccountResult
    from llm_trader.serving.page.comparison import CompareStatesResult
    from llm_trader.serving.page.data_report import SeriesReportResult
    from llm_trader.serving.page.evaluations import EvaluationsResult
    from llm_trader.serving.series import CandlesResult, FundingResult, OpenInterestResult
    from llm_trader.serving.wire import (
        GetSnapshotResult,
        QueryBatchResult,
        QueryPatternsResult,
        StatsResult,
    )

T = TypeVar("T")
State = Mapping[str, Any] | msgspec.Struct


@dataclass(frozen=True)
class Call(Generic[T]):
    """A method with its parameters. `timeout_s` bounds all attempts; None is the client's.

    A `repeatable` call changes nothing at the server, so it may be sent again.
    """

    method: str
    params: Mapping[str, Any]
    result_type: Callable[[], type[T]]
    timeout_s: float | None = None
    repeatable: bool = True

    def params_within(self, left_s: float) -> dict[str, Any]:
        """The parameters, with the time after which the server should give up."""
        return {**self.params, "timeout_ms": min(max(round(left_s * 1000), 1), 600_000)}

    def result(self, reply: Reply) -> T:
        """Raises the typed error of an error reply."""
        if reply.error is not None:
            raise error_of(reply.error)
        result: T = decoded(self.method, reply, self.result_type())
        return result


def ping(*, timeout_s: float | None = None) -> Call[Pong]:
    """Shows that the server answers, and which version it is."""
    return Call("rpc.ping", {}, _struct("rpc.builtin", "Pong"), timeout_s)


def discover(*, timeout_s: float | None = None) -> Call[dict[str, Any]]:
    """The server's methods with their schemas, as an OpenRPC document."""
    return Call("rpc.discover", {}, lambda: dict[str, Any], timeout_s)


def stats(*, timeout_s: float | None = None) -> Call[StatsResult]:
    """What the server holds."""
    return Call("rag.stats", {}, _struct("serving.wire", "StatsResult"), timeout_s)


def forecast_quality(
    symbol: str | None = None, *, days: int | None = None, timeout_s: float | None = None
) -> Call[ForecastQuality]:
    """How good the forecasts were that the server gave about the present, of all symbols or one."""
    given = {"symbol": symbol, "days": days}
    params = {name: value for name, value in given.items() if value is not None}
    result_type = _struct("forecasts.quality", "ForecastQuality")
    return Call("rag.forecast_quality", params, result_type, timeout_s)


def get_snapshot(
    symbol: str, timestamp_ms: int, *, timeout_s: float | None = None
) -> Call[GetSnapshotResult]:
    """The market's state at a time, from the server's market store."""
    params = {"symbol": symbol, "timestamp": timestamp_ms}
    return Call("rag.get_snapshot", params, _struct("serving.wire", "GetSnapshotResult"), timeout_s)


def get_candles(
    symbol: str,
    timeframe: str,
    start_ms: int,
    end_ms: int,
    *,
    limit: int | None = None,
    timeout_s: float | None = None,
) -> Call[CandlesResult]:
    """A page of candles such as `5m` that open from `start_ms` on and before `end_ms`.

    The next page begins at the `next_start` of the result.
    """
    params = {"timeframe": timeframe, **_range(symbol, start_ms, end_ms, limit)}
    return Call("rag.get_candles", params, _struct("serving.series", "CandlesResult"), timeout_s)


def get_funding(
    symbol: str,
    start_ms: int,
    end_ms: int,
    *,
    limit: int | None = None,
    timeout_s: float | None = None,
) -> Call[FundingResult]:
    """A page of settled funding rates; the next one begins at its `next_start`."""
    params = _range(symbol, start_ms, end_ms, limit)
    return Call("rag.get_funding", params, _struct("serving.series", "FundingResult"), timeout_s)


def get_open_interest(
    symbol: str,
    start_ms: int,
    end_ms: int,
    *,
    limit: int | None = None,
    timeout_s: float | None = None,
) -> Call[OpenInterestResult]:
    """A page of open interest; the next one begins at its `next_start`."""
    params = _range(symbol, start_ms, end_ms, limit)
    result_type = _struct("serving.series", "OpenInterestResult")
    return Call("rag.get_open_interest", params, result_type, timeout_s)


def compare_states(
    symbol: str, timestamp_ms: int, others: Sequence[int], *, timeout_s: float | None = None
) -> Call[CompareStatesResult]:
    """Which features make past states, such as those of matches, like the state at a time."""
    params = {"symbol": symbol, "timestamp": timestamp_ms, "others": list(others)}
    result_type = _struct("serving.page.comparison", "CompareStatesResult")
    return Call("rag.compare_states", params, result_type, timeout_s)


def series_report(symbol: str, *, timeout_s: float | None = None) -> Call[SeriesReportResult]:
    """How complete a symbol's series are: extent, gaps, refused rows and jumps."""
    result_type = _struct("serving.page.data_report", "SeriesReportResult")
    return Call("rag.series_report", {"symbol": symbol}, result_type, timeout_s)


def cohort_open(
    symbol: str, timestamp_ms: int, *, timeout_s: float | None = None
) -> Call[CohortResult]:
    """A group of past states like one state, to look closer at what followed them."""
    params = {"symbol": symbol, "timestamp": timestamp_ms}
    return Call("rag.cohort_open", params, _struct("serving.cohorts", "CohortResult"), timeout_s)


def cohort_refine(
    cohort: str, conditions: Sequence[str], *, timeout_s: float | None = None
) -> Call[CohortResult]:
    """The part of a cohort that meets further conditions; its verdict allows for all looks."""
    params = {"cohort": cohort, "conditions": [*conditions]}
    return Call("rag.cohort_refine", params, _struct("serving.cohorts", "CohortResult"), timeout_s)


def cohort_rank(cohort: str, *, timeout_s: float | None = None) -> Call[CohortRankResult]:
    """Which further condition changes most what followed the states of a cohort."""
    result_type = _struct("serving.cohorts", "CohortRankResult")
    return Call("rag.cohort_rank", {"cohort": cohort}, result_type, timeout_s)


def list_decisions(
    symbol: str | None = None, *, limit: int = 50, timeout_s: float | None = None
) -> Call[DecisionsResult]:
    """The newest decisions on record, newest first."""
    params = {"symbol": symbol, "limit": limit}
    result_type = _struct("serving.decisions", "DecisionsResult")
    return Call("rag.list_decisions", params, result_type, timeout_s)


def get_decision(number: int, *, timeout_s: float | None = None) -> Call[DecisionResult]:
    """A decision on record, with its state, evidence and costs."""
    result_type = _struct("serving.decisions", "DecisionResult")
    return Call("rag.get_decision", {"id": number}, result_type, timeout_s)


def paper_account(
    symbol: str | None = None, *, limit: int = 50, timeout_s: float | None = None
) -> Call[PaperAccountResult]:
    """The workflow's paper account: positions, the newest orders, and equity against holding."""
    params = {"symbol": symbol, "limit": limit}
    result_type = _struct("serving.page.account", "PaperAccountResult")
    return Call("rag.paper_account", params, result_type, timeout_s)


def list_evaluations(*, timeout_s: float | None = None) -> Call[EvaluationsResult]:
    """The evaluations in the server's folder of reports, newest first."""
    result_type = _struct("serving.page.evaluations", "EvaluationsResult")
    return Call("rag.list_evaluations", {}, result_type, timeout_s)


def query_patterns(
    symbol: str,
    timestamp_ms: int,
    current_state: State | None = None,
    *,
    timeout_s: float | None = None,
    **query_config: Any,
) -> Call[QueryPatternsResult]:
    """The most similar past states, what followed them, and how far to trust that.

    Without `current_state` the server takes the state of its store. `query_config` has the names
    of the wire: `top_k=10`, `lookback_days=30`.
    """
    params = _query(symbol, timestamp_ms, current_state, query_config)
    return Call(
        "rag.query_patterns", params, _struct("serving.wire", "QueryPatternsResult"), timeout_s
    )


def query_briefly(
    symbol: str,
    timestamp_ms: int,
    current_state: State | None = None,
    *,
    timeout_s: float | None = None,
    **query_config: Any,
) -> Call[BriefResult]:
    """The same as `query_patterns` in under 2 KB."""
    config = {**query_config, "detail": "brief"}
    params = _query(symbol, timestamp_ms, current_state, config)
    return Call("rag.query_patterns", params, _struct("serving.brief", "BriefResult"), timeout_s)


def query_batch(
    queries: Sequence[State], *, timeout_s: float | None = None, **query_config: Any
) -> Call[QueryBatchResult]:
    """Up to 1,000 queries, each a mapping with the parameters of `query_patterns`."""
    params = {"queries": list(queries), "query_config": query_config}
    return Call("rag.query_batch", params, _struct("serving.wire", "QueryBatchResult"), timeout_s)


def reload_settings(*, timeout_s: float | None = None) -> Call[Reloaded]:
    """Makes the server read its settings again; needs a key with the scope `admin`."""
    result_type = _struct("serving.admin", "Reloaded")
    return Call("admin.reload", {}, result_type, timeout_s, repeatable=False)


def other(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    repeatable: bool = False,
    timeout_s: float | None = None,
) -> Call[Any]:
    """Any method; its result is plain data."""
    return Call(method, params or {}, lambda: Any, timeout_s, repeatable)


def _query(
    symbol: str, timestamp_ms: int, current_state: State | None, config: dict[str, Any]
) -> dict[str, Any]:
    query: dict[str, Any] = {"symbol": symbol, "timestamp": timestamp_ms}
    if current_state is not None:
        query["current_state"] = current_state
    return {**query, "query_config": config} if config else query


def _range(symbol: str, start_ms: int, end_ms: int, limit: int | None) -> dict[str, Any]:
    params = {"symbol": symbol, "start": start_ms, "end": end_ms}
    return params if limit is None else {**params, "limit": limit}


def _struct(module: str, name: str) -> Callable[[], Any]:
    """The type of a result, imported when it is asked for."""
    return lambda: getattr(import_module(f"llm_trader.{module}"), name)
