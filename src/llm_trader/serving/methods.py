"""The `rag.*` methods: they pass parameters to the retriever, and its answer to the wire."""

from __future__ import annotations

import time
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import structlog
from msgspec import UNSET

from llm_trader import errors
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.dispatcher import Method, RequestContext
from llm_trader.serving import wire
from llm_trader.serving.config import ServingConfig
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.source import SnapshotSource, SymbolView
from llm_trader.snapshot.table import ROW, SnapshotTable
from llm_trader.timeframe import Millis, iso8601

_log = structlog.get_logger(__name__)

# Exchanges differ by under 1 %, and a price moves by about 1 % in the minutes that a state may lag.
# A price that differs more from the store's comes from another market.
_PRICE_TOLERANCE: Final = 0.02

_PATTERN_ERRORS: Final = (
    errors.InsufficientMatchesError,
    errors.SymbolNotFoundError,
    errors.VectorIndexError,
    errors.EmbeddingError,
    errors.StaleDataError,
)


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
    answered: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)

    def methods(self) -> list[Method]:
        return [replace(method, handler=partial(method.handler, self)) for method in METHODS]

    async def query_patterns(
        self, params: wire.QueryPatternsParams, context: RequestContext
    ) -> wire.QueryPatternsResult:
        started = time.perf_counter()
        try:
            view = self.market.view(params.symbol) if self.market else None
            state = self._state(params, view)
            if view is not None:
                state.data_age_seconds = self._data_age_seconds(view, params, state.warnings)
            search = self.defaults
            if params.query_config is not None:
                sent = msgspec.structs.asdict(params.query_config)
                changes = {name: value for name, value in sent.items() if value is not UNSET}
                search = msgspec.structs.replace(search, **changes)
            await context.pause()
            answer = await self.retriever.query(state.table, params.timestamp, search)
            required = min(self.config.min_matches, search.top_k)
            if len(answer.matches) < required:
                raise _too_few(answer, search, required)
        except errors.LlmTraderError:
            self.refused += 1
            raise
        self.answered += 1
        metadata = self._metadata(params, state, search, answer, context, started)
        return wire.QueryPatternsResult(
            answer.matches, answer.statistics, answer.evidence, metadata
        )

    async def get_snapshot(
        self, params: wire.GetSnapshotParams, context: RequestContext
    ) -> wire.GetSnapshotResult:
        if self.market is None:
            raise errors.InvalidInputError("this server has no market store; start it with --store")
        view = self.market.view(params.symbol)
        table = view.latest(params.timestamp, self.config.max_data_age_ms)
        age_seconds = self._data_age_seconds(view, params, [])
        version = self.retriever.space.feature_version
        return wire.GetSnapshotResult(table.snapshot(0), version, age_seconds)

    async def stats(self, params: None, context: RequestContext) -> wire.StatsResult:
        index, space_id = await self.retriever.index.info(), self.retriever.space.space_id
        counts = (self.answered, self.refused)
        return wire.StatsResult(self.version, index, self.market_location, space_id, *counts)

    def _state(self, params: wire.QueryPatternsParams, view: SymbolView | None) -> QueryState:
        if params.current_state is None:
            if view is None:
                raise errors.InvalidInputError(
                    "current_state is required: this server has no market store to build it from"
                )
            as_of_ms = view.latest_ms(params.timestamp, self.config.max_data_age_ms)
            return QueryState(view.without_series(as_of_ms), "store", as_of_ms, [])
        sent = msgspec.structs.asdict(params.current_state)
        intraday = self.retriever.space.intraday
        table = SnapshotTable.of_fields(params.symbol, intraday, params.timestamp, sent)
        return self._completed(table, params, view)

    def _completed(
        self, table: SnapshotTable, params: wire.QueryPatternsParams, view: SymbolView | None
    ) -> QueryState:
        """The sent state; the store fills in missing fields if the prices agree.

        A sent state suffices by itself, so it is answered even if the store fails.
        """
        state = QueryState(table, "request", params.timestamp, [])
        if view is None or table.complete()[0]:
            return state
        try:
            as_of_ms = view.newest_complete_ms(params.timestamp, self.config.max_data_age_ms)
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
        missing = np.isnan(table.scalars[:, 0]).tolist()
        state.completed = [name for name, gap in zip(SCALARS, missing, strict=True) if gap]
        state.completed_as_of_ms, state.source = as_of_ms, "request+store"
        state.table = table.filled_from(stored_fields)
        return state

    def _data_age_seconds(
        self, view: SymbolView, params: wire.GetSnapshotParams, warnings: list[str]
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
        params: wire.QueryPatternsParams,
        state: QueryState,
        search: SearchSpec,
        answer: Answer,
        context: RequestContext,
        started: float,
    ) -> wire.Metadata:
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
            unknown_fields=context.unknown_fields,
            warnings=[*state.warnings, *answer.warnings],
            collection=f"{index.exchange or 'unknown'}/{index.feature_version}",
            points_eligible=answer.points_eligible,
            request_id=context.request_id,
            data_age_seconds=state.data_age_seconds,
            calibration=answer.calibration,
            volatility_model=self.retriever.index.collection.volatility_model,
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
    ),
    Method(
        "rag.get_snapshot",
        wire.GetSnapshotParams,
        _UNBOUND.get_snapshot,
        "The market's state at a time, from the server's market store.",
        wire.GetSnapshotResult,
        (errors.SymbolNotFoundError, errors.StaleDataError),
    ),
    Method("rag.stats", None, _UNBOUND.stats, "What the server holds.", wire.StatsResult),
)


def _too_few(answer: Answer, search: SearchSpec, required: int) -> errors.InsufficientMatchesError:
    nearest = answer.evidence.similarity_range
    if nearest is None:
        finding = "no past state was known then and passes the filters"
    else:
        finding = f"the nearest past state has similarity {nearest[1]:.2f}"
    return errors.InsufficientMatchesError(
        len(answer.matches),
        required,
        f"{finding}; try increasing lookback_days ({search.lookback_days}), reducing "
        f"min_similarity ({search.min_similarity:g}), or include_regime_filters = false",
    )
