"""One query after the other: its search, its state, and its answer on the wire.

`rag.query_patterns` asks one, `rag.query_batch` many that share work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import UNSET

from llm_trader import errors
from llm_trader.forecasts.served import ServedForecasts
from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.regime import REGIME_FILTERS
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.serving import wire
from llm_trader.serving.brief import BriefResult, brief
from llm_trader.serving.config import ServingConfig
from llm_trader.serving.query_state import QueryState, across_holes, data_age_seconds, state_of
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS, resolved_at
from llm_trader.snapshot.source import SnapshotSource, SymbolView
from llm_trader.timeframe import DAY_MS, Millis, iso8601

# Who ingests once a day has an index that lags by up to a day.
_INDEX_LAG_ALLOWED_MS: Final = DAY_MS


class Reach(NamedTuple):
    """How far index and store reached at a query's time; None where there is nothing."""

    as_of_ms: Millis
    index_end_ms: Millis | None
    store_end_ms: Millis | None

    @classmethod
    def at(
        cls, as_of_ms: Millis, index_end_ms: Millis | None, data_age_seconds: float | None
    ) -> Reach:
        store_end_ms = None
        if data_age_seconds is not None:
            store_end_ms = as_of_ms - round(data_age_seconds * 1000)
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


class AnswerObserver(Protocol):
    """Is told of the answers to `rag.query_patterns`, for metrics; it must return quickly."""

    def found(self, answer: Answer) -> None:
        """A query was searched for, whether it will be answered or refused."""

    def answered(self, answer: Answer) -> None: ...

    def refused(self, error: errors.LlmTraderError) -> None: ...


class Prepared(NamedTuple):
    """A query ready for the retriever, since `started` (`time.perf_counter()`)."""

    query: wire.PatternQuery
    search: SearchSpec
    state: QueryState
    started: float


@dataclass
class PatternQueries:
    """Answers queries, and counts them. Without `market` each must bring its state."""

    retriever: Retriever
    market: SnapshotSource | None
    defaults: SearchSpec
    config: ServingConfig
    observer: AnswerObserver | None = None
    forecasts: ServedForecasts | None = None
    answered: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)

    async def answer(
        self, query: wire.QueryPatternsParams, context: RequestContext
    ) -> wire.QueryPatternsResult | BriefResult:
        try:
            search = self.search(query.query_config)
            prepared = self.prepare(query, search, self.view(query.symbol))
            context.end_stage("state")
            await context.pause()
            answer = await self.retriever.query(
                *(prepared.state.table, query.timestamp, search, context.end_stage),
                with_references=self.wants_references(prepared),
            )
            return await self.complete(prepared, answer, context)
        except errors.LlmTraderError as error:
            self.count_refusal(error)
            raise

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
        state = state_of(query, view, self.config, self.retriever.space.intraday)
        state.warnings += across_holes(state.table)
        if view is not None:
            state.data_age_seconds = data_age_seconds(view, query, state.warnings)
        return Prepared(query, search, state, started)

    def wants_references(self, prepared: Prepared) -> bool:
        """Whether the answer is to be compared with its `references` later."""
        symbol, as_of_ms = prepared.query.symbol, prepared.state.as_of_ms
        return self.forecasts is not None and self.forecasts.wants_references(symbol, as_of_ms)

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
            self.observer.answered(answer)
        if self.forecasts is not None:
            self.forecasts.served(query.symbol, state.as_of_ms, answer, context.request_id)
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

    def count_refusal(self, error: errors.LlmTraderError) -> None:
        self.refused += 1
        if self.observer is not None:
            self.observer.refused(error)

    async def _index_end_ms(self, params: wire.Moment, answer: Answer) -> Millis | None:
        """The newest state of the index that was known then; its window may hold none."""
        if answer.index_end_ms is not None:
            return answer.index_end_ms
        stamps = await self.retriever.index.timestamps(params.symbol)
        visible = stamps[resolved_at(stamps) <= params.timestamp]
        return int(visible[-1]) if len(visible) else None

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
