"""The `rag.*` methods: they pass parameters to the retriever, and its answer to the wire."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
import structlog
from msgspec import UNSET

from llm_trader import errors
from llm_trader.index.protocol import SymbolPoints
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.regime import REGIME_FILTERS
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.serving import series, wire
from llm_trader.serving.batch import EncodedBatch, query_batch
from llm_trader.serving.brief import BriefResult, brief
from llm_trader.serving.config import ServingConfig
from llm_trader.snapshot.model import SCALARS, words_of_lacking
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS, resolved_at
from llm_trader.snapshot.source import SnapshotSource, SymbolView
from llm_trader.snapshot.table import ROW, SnapshotTable, lacking
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, iso8601

_log = structlog.get_logger(__name__)

# Exchanges differ by under 1 %, and a price moves by about 1 % in the minutes that a state may lag.
# A price that differs more from the store's comes from another market.
_PRICE_TOLERANCE: Final = 0.02
_INTERVAL: Final = ROW["funding_interval_hours"]
# Who ingests once a day has an index that lags by up to a day.
_INDEX_LAG_ALLOWED_MS: Final = DAY_MS
# Two 5-minute candles may be the same by chance in a market without trades.
_UNCHANGED_TO_WARN_MS: Final = 15 * MINUTE_MS

_PATTERN_ERRORS: Final = (
    errors.InsufficientMatchesError,
    errors.SymbolNotFoundError,
    errors.VectorIndexError,
    errors.EmbeddingError,
    errors.StaleDataError,
)


class Reach(NamedTuple):
    """How far index and store reached at a query's time; None where there is nothing."""

    as_of_ms: Millis
    index_end_ms: Millis | None
    store_end_ms: Millis | None

    @classmethod
    def at(cls, as_of_ms: Millis, index_end_ms: Millis | None, data_age: float | None) -> Reach:
        store_end_ms = None if data_age is None else as_of_ms - round(data_age * 1000)
        return cls(as_of_ms, index_end_ms, store_end_ms)

    def warnings(self) -> list[str]:
        """Says so if the index lacks states that the query could see."""
        data_end_ms = self.as_of_ms if self.store_end_ms is None else self.store_end_ms
        visible_ms = data_end_ms - LONGEST_HORIZON_MS
        if self.index_end_ms is None or visible_ms - self.index_end_ms <= _INDEX_LAG_ALLOWED_MS:
            return []
        return [
            f"the index ends at {iso8601(self.index_end_ms)}, this query could see states up to "
            f"{iso8601(visible_ms)}; ingest the newer ones with rag-ingest"
        ]


class QueryState(msgspec.Struct):
    """The state of a query, its time, and its source."""

    table: SnapshotTable
    source: str
    as_of_ms: Millis
    warnings: list[str]
    completed: list[str] = []
    completed_as_of_ms: Millis | None = None
    data_age_seconds: float | None = None

    def incomplete(self, reason: str) -> QueryState:
        self.warnings.append(f"nothing was completed{reason}")
        return self


class AnswerObserver(Protocol):
    """Is told of the answers to `rag.query_patterns`, for metrics; it must return quickly."""

    def found(self, answer: Answer) -> None:
        """A query was searched for, whether it will be answered or refused."""

    def answered(self, symbol: str, state_ms: Millis, answer: Answer) -> None:
        """It is answered; its state is that of `state_ms`."""

    def refused(self, error: errors.LlmTraderError) -> None: ...


class Prepared(NamedTuple):
    """A query ready for the retriever, since `started` (`time.perf_counter()`)."""

    query: wire.PatternQuery
    search: SearchSpec
    state: QueryState
    started: float


@dataclass
class RagMethods:
    """Answers `rag.*` calls. Without `market` every query must bring its state."""

    retriever: Retriever
    market: SnapshotSource | None
    _: KW_ONLY
    defaults: SearchSpec
    config: ServingConfig
    version: str
    market_location: str | None = None
    clock: Callable[[], Millis] | None = None
    observer: AnswerObserver | None = None
    # Answered, refused, and processes, where others answer as well.
    of_all: Callable[[], Awaitable[tuple[int, int, int]]] | None = None
    answered: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)

    def methods(self) -> list[Method]:
        return [replace(method, handler=partial(method.handler, self)) for method in METHODS]

    async def query_patterns(
        self, params: wire.QueryPatternsParams, context: RequestContext
    ) -> wire.QueryPatternsResult | BriefResult:
        try:
            search = self.search(params.query_config)
            prepared = self.prepare(params, search, self.view(params.symbol))
            context.end_stage("state")
            await context.pause()
            answer = await self.retriever.query(
                prepared.state.table, params.timestamp, search, context.end_stage
            )
            return await self.complete(prepared, answer, context)
        except errors.LlmTraderError as error:
            self.count_refusal(error)
            raise

    def count_refusal(self, error: errors.LlmTraderError) -> None:
        self.refused += 1
        if self.observer is not None:
            self.observer.refused(error)

    async def query_batch(
        self, params: wire.QueryBatchParams, context: RequestContext
    ) -> EncodedBatch:
        return await query_batch(self, params, context)

    def search(self, *configs: Any) -> SearchSpec:
        """The defaults with what each `query_config` sets, the last one first."""
        search = self.defaults
        for config in configs:
            if config is not None:
                sent = msgspec.structs.asdict(config)
                changes = {name: value for name, value in sent.items() if value is not UNSET}
                search = msgspec.structs.replace(search, **changes)
        return search

    def view(self, symbol: str) -> SymbolView | None:
        """The states of the store, if there is one."""
        return self.market.view(symbol) if self.market else None

    def prepare(
        self, query: wire.PatternQuery, search: SearchSpec, view: SymbolView | None
    ) -> Prepared:
        """The state of a query; raises what is wrong with it."""
        started = time.perf_counter()
        state = self._state(query, view)
        state.warnings += _across_holes(state.table)
        if view is not None:
            state.data_age_seconds = self._data_age_seconds(view, query, state.warnings)
        return Prepared(query, search, state, started)

    async def complete(
        self, prepared: Prepared, answer: Answer, context: RequestContext, parent: str = ""
    ) -> wire.QueryPatternsResult | BriefResult:
        """The result of an answer. In a batch, `parent` is the path of the query's parameters."""
        query, search, state, _ = prepared
        if self.observer is not None:
            self.observer.found(answer)
        index_end_ms = await self._index_end_ms(query, answer)
        reach = Reach.at(query.timestamp, index_end_ms, state.data_age_seconds)
        state.warnings += reach.warnings()
        required = min(self.config.min_matches, search.top_k)
        if len(answer.matches) < required:
            raise _too_few(answer, search, required, reach)
        self.answered += 1
        if self.observer is not None:
            self.observer.answered(query.symbol, state.as_of_ms, answer)
        unknown = [name for name in context.unknown_fields if name.startswith(parent)]
        if search.detail == "brief":
            return brief(
                answer,
                as_of_ms=query.timestamp,
                state_as_of_ms=state.as_of_ms,
                request_id=context.request_id,
                warnings=[*state.warnings, *answer.warnings],
                unknown_fields=[name.removeprefix(parent) for name in unknown],
            )
        metadata = self._metadata(prepared, answer, reach, context.request_id)
        if unknown:
            names = [name.removeprefix(parent) for name in unknown]
            metadata = msgspec.structs.replace(metadata, unknown_fields=names)
        return wire.QueryPatternsResult(
            answer.matches, answer.statistics, answer.evidence, metadata
        )

    async def get_snapshot(
        self, params: wire.GetSnapshotParams, context: RequestContext
    ) -> wire.GetSnapshotResult:
        view = self.source().view(params.symbol)
        table = view.latest(params.timestamp, *self.config.staleness_limits_ms)
        age_seconds = self._data_age_seconds(view, params, [])
        version = self.retriever.space.feature_version
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

    async def stats(self, params: None, context: RequestContext) -> wire.StatsResult:
        index, space_id = await self.retriever.index.info(), self.retriever.space.space_id
        counts = self.answered, self.refused, 1
        answered, refused, workers = counts if self.of_all is None else await self.of_all()
        return wire.StatsResult(
            *(self.version, index, self.market_location, space_id),
            *(answered, refused),
            self._freshness(index.symbols),
            ready=bool(index.symbols),
            workers=workers,
        )

    def source(self) -> SnapshotSource:
        if self.market is None:
            raise errors.InvalidInputError("this server has no market store; start it with --store")
        return self.market

    async def _index_end_ms(self, params: wire.Moment, answer: Answer) -> Millis | None:
        """The newest state of the index that was known then; its window may hold none."""
        if answer.index_end_ms is not None:
            return answer.index_end_ms
        stamps = await self.retriever.index.timestamps(params.symbol)
        known = stamps[resolved_at(stamps) <= params.timestamp]
        return int(known[-1]) if len(known) else None

    def _freshness(self, indexed: list[SymbolPoints]) -> list[wire.Freshness]:
        index_ends: dict[str, Millis | None] = {p.symbol: p.last_timestamp_ms for p in indexed}
        stored = self.market.store.symbols() if self.market else []
        now_ms = None if self.clock is None else self.clock()
        ages = self.market.store.series_ages(now_ms) if self.market else []
        freshness = []
        for symbol in sorted({*index_ends, *stored}):
            state_as_of_ms = store_end_ms = None
            if self.market is not None and symbol in stored:
                store_end_ms = self.market.end_ms(symbol)
            if self.market is not None and store_end_ms is not None:
                view, max_age_ms = self.market.view(symbol), self.config.max_data_age_ms
                state_as_of_ms = view.newest_usable_ms(store_end_ms, max_age_ms)
            age_seconds = behind_seconds = None
            if state_as_of_ms is not None and self.clock is not None:
                age_seconds = (self.clock() - state_as_of_ms) / 1000
            index_end_ms = index_ends.get(symbol)
            if index_end_ms is not None and store_end_ms is not None:
                behind_seconds = max(store_end_ms - LONGEST_HORIZON_MS - index_end_ms, 0) / 1000
            ends = index_end_ms, store_end_ms, state_as_of_ms, age_seconds, behind_seconds
            own_ages = [age for age in ages if age.symbol == symbol]
            freshness.append(wire.Freshness(symbol, *ends, own_ages))
        return freshness

    def _state(self, params: wire.PatternQuery, view: SymbolView | None) -> QueryState:
        if params.current_state is None:
            if view is None:
                raise errors.InvalidInputError(
                    "current_state is required: this server has no market store to build it from"
                )
            as_of_ms = view.latest_ms(params.timestamp, *self.config.staleness_limits_ms)
            warnings = _frozen(view, params.timestamp)
            warnings += _lacks(view, params.timestamp, as_of_ms, self.config.max_data_age_ms)
            return QueryState(view.without_series(as_of_ms), "store", as_of_ms, warnings)
        sent = msgspec.structs.asdict(params.current_state)
        intraday = self.retriever.space.intraday
        table = SnapshotTable.of_fields(params.symbol, intraday, params.timestamp, sent)
        return self._completed(table, params, view, sent["funding_interval_hours"] is not None)

    def _completed(
        self,
        table: SnapshotTable,
        params: wire.PatternQuery,
        view: SymbolView | None,
        is_interval_sent: bool,
    ) -> QueryState:
        """The sent state; the store fills in missing fields if the prices agree.

        A sent state suffices by itself, so it is answered even if the store fails.
        """
        state = QueryState(table, "request", params.timestamp, [])
        if view is None or table.complete()[0]:
            return state
        try:
            as_of_ms = view.newest_usable_ms(params.timestamp, self.config.max_data_age_ms)
            if as_of_ms is None:
                return state.incomplete(": the store knows no complete state near that time")
            stored_fields = view.known_fields(as_of_ms)
        except errors.StoreError as error:
            return state.incomplete(f" from the store: {error.message}")
        price, stored_price = float(table.column("price")[0]), float(stored_fields[ROW["price"], 0])
        if abs(price / stored_price - 1) > _PRICE_TOLERANCE:
            return state.incomplete(
                f": price {price:g} is not near the store's {stored_price:g} at {iso8601(as_of_ms)}"
            )
        state.warnings += _frozen(view, params.timestamp)
        if not is_interval_sent and np.isfinite(stored_fields[_INTERVAL, 0]):
            table.scalars[_INTERVAL] = np.nan  # it was assumed, and the store knows it
        missing = (np.isnan(table.scalars) & np.isfinite(stored_fields))[:, 0].tolist()
        state.completed = [name for name, gap in zip(SCALARS, missing, strict=True) if gap]
        state.completed_as_of_ms, state.source = as_of_ms, "request+store"
        state.table = table.filled_from(stored_fields)
        return state

    def _data_age_seconds(
        self, view: SymbolView, params: wire.Moment, warnings: list[str]
    ) -> float | None:
        """Age of the newest candle; a store that fails is logged and added to `warnings`."""
        try:
            age_ms = view.data_age_ms(params.timestamp)
        except errors.SymbolNotFoundError:
            return None
        except errors.StoreError as error:
            warnings.append(f"data_age_seconds is unknown: {error.message}")
            _log.warning("data_age_unknown", symbol=params.symbol, error=error.message)
            return None
        return None if age_ms is None else age_ms / 1000

    def _metadata(
        self,
        prepared: Prepared,
        answer: Answer,
        reach: Reach,
        request_id: str,
    ) -> wire.Metadata:
        params, search, state, started = prepared
        space, index = self.retriever.space, self.retriever.index.collection
        duration_us = round((time.perf_counter() - started) * 1e6)
        return wire.Metadata(
            query_duration_ms=round(duration_us / 1000),
            embedding_duration_ms=round(answer.embedding_us / 1000),
            retrieval_duration_ms=round(answer.retrieval_us / 1000),
            query_duration_us=duration_us,
            filters_applied=answer.filters_applied,
            schema_version=wire.SCHEMA_VERSION,
            feature_version=space.feature_version,
            embedding_model=self.retriever.embedding_model(search.vector),
            as_of=params.timestamp,
            state_as_of=state.as_of_ms,
            vector=search.vector,
            state_source=state.source,
            fields_completed=state.completed,
            fields_completed_as_of=state.completed_as_of_ms,
            features_missing=answer.features_missing,
            unknown_fields=[],
            warnings=[*state.warnings, *answer.warnings],
            collection=f"{index.exchange or 'unknown'}/{index.feature_version}",
            points_eligible=answer.points_eligible,
            request_id=request_id,
            data_age_seconds=state.data_age_seconds,
            calibration=answer.calibration,
            volatility_model=self.retriever.index.collection.volatility_model,
            index_end=reach.index_end_ms,
            store_end=reach.store_end_ms,
            state_age_seconds=(params.timestamp - state.as_of_ms) / 1000,
        )


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
    Method("rag.stats", None, _UNBOUND.stats, "What the server holds.", wire.StatsResult),
)


def _frozen(view: SymbolView, as_of_ms: Millis) -> list[str]:
    """Says so where the newest candles of the store repeat one another."""
    unchanged_ms = view.unchanged_ms(as_of_ms)
    if unchanged_ms < _UNCHANGED_TO_WARN_MS:
        return []
    return [
        f"every candle of the last {unchanged_ms / MINUTE_MS:.0f} minutes is the same; the feed "
        "may be frozen"
    ]


def _across_holes(table: SnapshotTable) -> list[str]:
    """Says so where a state was computed across missing candles."""
    fields = ("missing_candles", "intraday", "7 days"), ("missing_candles_4h", "4h", "20 days")
    counts = [(table.column(name)[0], candles, span) for name, candles, span in fields]
    return [
        f"the state was computed across {count:.0f} missing {candles} candles of its last {span}"
        for count, candles, span in counts
        if count > 0
    ]


def _lacks(view: SymbolView, as_of_ms: Millis, state_ms: Millis, max_age_ms: Millis) -> list[str]:
    """Says so where the state lacks open interest or funding, which an older one may have."""
    missing = words_of_lacking(int(lacking(view.known_fields(state_ms))[0]))
    if not missing:
        return []
    warning = f"the state of {iso8601(state_ms)} lacks {missing}, and is compared without"
    complete_ms = view.newest_complete_ms(as_of_ms, max_age_ms)
    if complete_ms is not None:
        warning += f"; the newest state that lacks nothing is of {iso8601(complete_ms)}"
    return [warning]


def _too_few(
    answer: Answer, search: SearchSpec, required: int, reach: Reach
) -> errors.InsufficientMatchesError:
    nearest = answer.evidence.similarity_range
    if nearest is None:
        finding = "no past state was known then and passes the filters"
    else:
        finding = f"the nearest past state has similarity {nearest[1]:.2f}"
    remedies = [f"increasing lookback_days ({search.lookback_days})"]
    if search.min_similarity > 0:
        remedies.append(f"reducing min_similarity ({search.min_similarity:g})")
    if REGIME_FILTERS.intersection(answer.filters_applied):
        remedies.append("include_regime_filters = false")
    findings = "; ".join([finding, *reach.warnings()])
    suggestion = f"{findings}; try {', or '.join(remedies)}"
    return errors.InsufficientMatchesError(len(answer.matches), required, suggestion)
