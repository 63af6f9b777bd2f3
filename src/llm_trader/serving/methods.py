"""The `rag.*` methods: each passes its parameters to who answers it, and the answer to the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, Final

from llm_trader import errors
from llm_trader.forecasts.quality import ForecastQuality, not_recorded
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.serving import cohorts, series, wire
from llm_trader.serving.batch import EncodedBatch, query_batch
from llm_trader.serving.brief import BriefResult
from llm_trader.serving.freshness import freshness_of
from llm_trader.serving.pattern_queries import PatternQueries
from llm_trader.serving.query_state import data_age_seconds
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis

# Queries wait meanwhile; the rest is scored in the background.
_SCORING_S: Final = 0.005

_PATTERN_ERRORS: Final = (
    errors.InsufficientMatchesError,
    errors.SymbolNotFoundError,
    errors.VectorIndexError,
    errors.EmbeddingError,
    errors.StaleDataError,
)


@dataclass
class RagMethods:
    """Answers `rag.*` calls. Without a `clock` the ages of data are not told."""

    queries: PatternQueries
    _: KW_ONLY
    version: str
    market_location: str | None = None
    clock: Callable[[], Millis] | None = None
    # Answered, refused, and processes, where others answer as well.
    of_all: Callable[[], Awaitable[tuple[int, int, int]]] | None = None

    def methods(self) -> list[Method]:
        return [replace(method, handler=partial(method.handler, self)) for method in METHODS]

    async def query_patterns(
        self, params: wire.QueryPatternsParams, context: RequestContext
    ) -> wire.QueryPatternsResult | BriefResult:
        return await self.queries.answer(params, context)

    async def query_batch(
        self, params: wire.QueryBatchParams, context: RequestContext
    ) -> EncodedBatch:
        return await query_batch(self.queries, params, context)

    async def cohort_open(
        self, params: cohorts.CohortOpenParams, context: RequestContext
    ) -> cohorts.CohortResult:
        return await cohorts.open_cohort(self.queries, self.source(), params, context)

    async def cohort_refine(
        self, params: cohorts.CohortRefineParams, context: RequestContext
    ) -> cohorts.CohortResult:
        return await cohorts.refine_cohort(self.queries, self.source(), params, context)

    async def cohort_rank(
        self, params: cohorts.CohortRankParams, context: RequestContext
    ) -> cohorts.CohortRankResult:
        return await cohorts.rank_cohort(self.queries, self.source(), params, context)

    async def get_snapshot(
        self, params: wire.GetSnapshotParams, context: RequestContext
    ) -> wire.GetSnapshotResult:
        view = self.source().view(params.symbol)
        table = view.latest(params.timestamp, *self.queries.config.staleness_limits_ms)
        age_seconds = data_age_seconds(view, params, [])
        version = self.queries.retriever.space.feature_version
        return wire.GetSnapshotResult(table.snapshot(0), version, age_seconds)

    async def get_candles(
        self, params: series.CandlesParams, context: RequestContext
    ) -> series.CandlesResult:
        return series.read_candles(self.source().store, params)

    async def get_funding(
        self, params: series.SeriesParams, context: RequestContext
    ) -> series.FundingResult:
        return series.read_funding(self.source().store, params)

    async def get_open_interest(
        self, params: series.SeriesParams, context: RequestContext
    ) -> series.OpenInterestResult:
        return series.read_open_interest(self.source().store, params)

    async def forecast_quality(
        self, params: wire.ForecastQualityParams, context: RequestContext
    ) -> ForecastQuality:
        forecasts = self.queries.forecasts
        if forecasts is not None:
            forecasts.advance(_SCORING_S)
            return forecasts.quality(params.symbol, params.days)
        return not_recorded(params.days, 0 if self.clock is None else self.clock())

    async def stats(self, params: None, context: RequestContext) -> wire.StatsResult:
        queries = self.queries
        index, space_id = await queries.retriever.index.info(), queries.retriever.space.space_id
        counts = queries.answered, queries.refused, 1
        answered, refused, workers = counts if self.of_all is None else await self.of_all()
        now_ms = None if self.clock is None else self.clock()
        max_age_ms = queries.config.max_data_age_ms
        return wire.StatsResult(
            *(self.version, index, self.market_location, space_id),
            *(answered, refused),
            freshness_of(index.symbols, queries.market, max_age_ms, now_ms),
            ready=bool(index.symbols),
            workers=workers,
        )

    def source(self) -> SnapshotSource:
        if self.queries.market is None:
            raise errors.InvalidInputError("this server has no market store; start it with --store")
        return self.queries.market


_UNBOUND: Final[Any] = RagMethods

# The documents describe these; `RagMethods.methods` binds them to a server's retriever.
METHODS: Final = (
    Method(
        "rag.query_patterns",
        wire.QueryPatternsParams,
        _UNBOUND.query_patterns,
        "The most similar past states, what followed them, and how far to trust that.",
        wire.QueryPatternsResult,
        _PATTERN_ERRORS,
        other_results=(BriefResult,),
    ),
    Method(
        "rag.query_batch",
        wire.QueryBatchParams,
        _UNBOUND.query_batch,
        "Many queries at once, which share work if they are about one symbol.",
        wire.QueryBatchResult,
        _PATTERN_ERRORS,
    ),
    Method(
        "rag.cohort_open",
        cohorts.CohortOpenParams,
        _UNBOUND.cohort_open,
        "Opens a cohort: the past states most like the state at a time, and what followed them.",
        cohorts.CohortResult,
        _PATTERN_ERRORS,
    ),
    Method(
        "rag.cohort_refine",
        cohorts.CohortRefineParams,
        _UNBOUND.cohort_refine,
        "Refines a cohort by conditions; its verdict allows for every cohort that could be asked.",
        cohorts.CohortResult,
        _PATTERN_ERRORS,
    ),
    Method(
        "rag.cohort_rank",
        cohorts.CohortRankParams,
        _UNBOUND.cohort_rank,
        "Ranks the conditions that a cohort could be refined by: which changes the outcomes most.",
        cohorts.CohortRankResult,
        _PATTERN_ERRORS,
    ),
    Method(
        "rag.get_snapshot",
        wire.GetSnapshotParams,
        _UNBOUND.get_snapshot,
        "The market's state at a time, from the server's market store.",
        wire.GetSnapshotResult,
        (errors.SymbolNotFoundError, errors.StaleDataError),
    ),
    Method(
        "rag.get_candles",
        series.CandlesParams,
        _UNBOUND.get_candles,
        "A page of a symbol's candles, from the server's market store.",
        series.CandlesResult,
        (errors.SymbolNotFoundError,),
    ),
    Method(
        "rag.get_funding",
        series.SeriesParams,
        _UNBOUND.get_funding,
        "A page of a symbol's settled funding rates, from the server's market store.",
        series.FundingResult,
        (errors.SymbolNotFoundError,),
    ),
    Method(
        "rag.get_open_interest",
        series.SeriesParams,
        _UNBOUND.get_open_interest,
        "A page of a symbol's open interest, from the server's market store.",
        series.OpenInterestResult,
        (errors.SymbolNotFoundError,),
    ),
    Method(
        "rag.forecast_quality",
        wire.ForecastQualityParams,
        _UNBOUND.forecast_quality,
        "How good the forecasts were that this server gave: coverage, reliability and skill.",
        ForecastQuality,
    ),
    Method(
        "rag.stats",
        None,
        _UNBOUND.stats,
        "Describes the server: its index and store, how new their data are, and its counts.",
        wire.StatsResult,
    ),
)
