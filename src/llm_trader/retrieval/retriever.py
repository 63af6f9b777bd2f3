"""One query: state to vector, vector to neighbours, neighbours to matches and evidence.

1. `embedding`  the state becomes a vector, without the features it lacks
2. `index`      the window that was known at the query's time, the regime's filters, the nearest
3. `episodes`   of these, neighbours far enough apart in time
4. `statistics` over the matches: the first `top_k` that are similar enough
5. `evidence`   over the wider neighbourhood, beside the base rates of the window
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import replace
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.embedding.state import QueryVector, StateSpace
from llm_trader.errors import ConfigurationError
from llm_trader.index.asof import visible_window
from llm_trader.index.points import COLUMN_ROW, PointTable, point_id
from llm_trader.index.protocol import Hits, SearchQuery, VectorIndex
from llm_trader.market.candles import Floats
from llm_trader.retrieval.answer import Answer, Evidence, Match, MatchState, Novelty
from llm_trader.retrieval.episodes import spread_out
from llm_trader.retrieval.evidence import Neighbourhood, no_evidence, weigh
from llm_trader.retrieval.reference import BaseRates, LastUsed, SimilarityReference
from llm_trader.retrieval.regime import regime_ranges
from llm_trader.retrieval.statistics import Rows, summarise
from llm_trader.snapshot.outcome import OUTCOMES, Outcome, resolved_at
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis, iso8601

Horizon = Literal["15m", "1h", "4h", "24h"]

# How many hits are asked for at first, for each episode wanted.
_HITS_PER_EPISODE: Final = 6
_MORE_HITS: Final = 4
_ROUNDING: Final = 1e-6
_WINDOWS_KEPT: Final = 1024  # some 5 KB each

_MATCH_STATE: Final = [COLUMN_ROW[name] for name in MatchState.__struct_fields__]
_OUTCOMES: Final = slice(COLUMN_ROW[OUTCOMES[0]], COLUMN_ROW[OUTCOMES[-1]] + 1)


class QueryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to look, with the defaults of the wire."""

    lookback_days: Annotated[int, msgspec.Meta(ge=1, le=365)] = 90
    top_k: Annotated[int, msgspec.Meta(ge=1, le=50)] = 5
    min_similarity: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.7
    include_regime_filters: bool = True
    vector: Literal["state"] = "state"
    min_gap_hours: Annotated[float, msgspec.Meta(ge=0, le=168)] = 4.0
    evidence_k: Annotated[int, msgspec.Meta(ge=10, le=500)] = 50
    horizons: Annotated[tuple[Horizon, ...], msgspec.Meta(min_length=1)] = (
        "15m",
        "1h",
        "4h",
        "24h",
    )


class Retriever:
    """Answers queries from an index. Raises `ConfigurationError` for one of another space."""

    def __init__(self, index: VectorIndex, space: StateSpace) -> None:
        if index.collection.state_space_id != space.space_id:
            raise ConfigurationError(
                f"the index holds vectors of {index.collection.state_space_id}, this version "
                f"makes {space.space_id}; ingest into a new folder"
            )
        self.index = index
        self.space = space
        self._base_rates: LastUsed[Hashable, BaseRates] = LastUsed(_WINDOWS_KEPT)
        self._references: LastUsed[Hashable, SimilarityReference] = LastUsed(_WINDOWS_KEPT)

    async def query(self, state: SnapshotTable, as_of_ms: Millis, config: QueryConfig) -> Answer:
        """Answer for a table of one snapshot, from what was known at `as_of_ms`.

        Raises `EmbeddingError` for a state that says too little, `SymbolNotFoundError` for a
        symbol without points, and `VectorIndexError` when the index fails.
        """
        started = time.perf_counter()
        vector = self.space.embed_query(state)
        embedded = time.perf_counter()
        window = visible_window(as_of_ms, config.lookback_days)
        ranges = regime_ranges(state) if config.include_regime_filters else {}
        limit = _HITS_PER_EPISODE * max(config.top_k, config.evidence_k)
        search = SearchQuery(state.symbol, window, vector.vector, limit, tuple(ranges.values()))
        hits, chosen = await self._episodes(search, config)
        visible = await self.index.scan(state.symbol, window)
        neighbours = Neighbourhood(
            hits.points, hits.rows[chosen], _similarity(hits.cosine[chosen], vector)
        )
        reference = await self._reference(state.symbol, as_of_ms, config, vector)
        # Regardless of the filters: they must not make an ordinary state look novel.
        nearest = min(hits.best_cosine / vector.cosine_per_similarity, 1.0)
        # Neighbours come most similar first, so the matches are the first of them.
        alike = int(np.count_nonzero(neighbours.similarity > config.min_similarity - _ROUNDING))
        matches = neighbours.first(min(alike, config.top_k))
        rows = matches.points.values[:, matches.rows].T.tolist()
        return Answer(
            matches=self._matches(matches, rows, reference),
            statistics=summarise(rows, matches.similarity.tolist()),
            evidence=self._evidence(state, visible, neighbours, nearest, reference, config),
            filters_applied=["symbol", "timerange", "resolved_at", *ranges],
            features_missing=list(vector.features_missing),
            points_eligible=hits.eligible,
            embedding_us=_us(embedded - started),
            retrieval_us=_us(time.perf_counter() - embedded),
        )

    async def _episodes(
        self, search: SearchQuery, config: QueryConfig
    ) -> tuple[Hits, npt.NDArray[np.intp]]:
        """Hits, and which of them are the nearest episodes; more are fetched until enough are."""
        wanted = max(config.top_k, config.evidence_k)
        gap_ms = round(config.min_gap_hours * HOUR_MS)
        while True:
            hits = await self.index.search(search)
            chosen = spread_out(hits.points.timestamp_ms[hits.rows], gap_ms, wanted)
            if len(chosen) == wanted or len(hits.rows) == hits.eligible:
                return hits, chosen
            search = replace(search, limit=search.limit * _MORE_HITS)

    async def _reference(
        self, symbol: str, as_of_ms: Millis, config: QueryConfig, vector: QueryVector
    ) -> SimilarityReference:
        midnight = as_of_ms - as_of_ms % DAY_MS
        window = await self.index.scan(symbol, visible_window(midnight, config.lookback_days))
        return self._references.get(
            (_identity(window), vector.features_missing),
            lambda: SimilarityReference.of(window, _known(vector), vector.present_share),
        )

    def _evidence(
        self,
        state: SnapshotTable,
        window: PointTable,
        neighbours: Neighbourhood,
        nearest: float,
        reference: SimilarityReference,
        config: QueryConfig,
    ) -> Evidence:
        if not len(neighbours.rows):
            among = f"{len(window)} past states" if len(window) else "no past state"
            why = "none passes the filters" if len(window) else "the lookback reaches none"
            return no_evidence(f"{among} known by then: {why}", len(window))
        base = self._base_rates.get(_identity(window), lambda: BaseRates.of(window))
        within = neighbours.first(config.evidence_k)
        volatility = float(state.column("realized_volatility_24h")[0])
        return weigh(within, base, config.horizons, volatility, _novelty(reference, nearest))

    def _matches(
        self,
        matches: Neighbourhood,
        rows: Rows,
        reference: SimilarityReference,
    ) -> list[Match]:
        symbol, version = matches.points.symbol, self.space.feature_version
        times = matches.points.timestamp_ms[matches.rows]
        stamps, resolved = times.tolist(), resolved_at(times).tolist()
        similarity = matches.similarity.tolist()
        percentiles = reference.percentiles(matches.similarity)
        return [
            Match(
                similarity=similarity[i],
                similarity_percentile=percentiles[i],
                timestamp=stamps[i],
                resolved_at=resolved[i],
                date=iso8601(stamps[i]),
                id=point_id(symbol, stamps[i], version),
                market_state=MatchState(*[row[at] for at in _MATCH_STATE]),
                outcomes=Outcome.of_values(row[_OUTCOMES]),
            )
            for i, row in enumerate(rows)
        ]


def _novelty(reference: SimilarityReference, nearest: float) -> Novelty | None:
    percentile = reference.novelty_percentile(nearest)
    if percentile is None:
        return None
    return Novelty(percentile, nearest, len(reference.nearest))


def _similarity(cosine: npt.NDArray[np.float32], vector: QueryVector) -> Floats:
    """Cosines over the query's features; rounding must not make them exceed 1."""
    similarity = cosine.astype(np.float64) / vector.cosine_per_similarity
    return np.minimum(np.maximum(similarity, -1.0), 1.0)


def _known(vector: QueryVector) -> npt.NDArray[np.float32]:
    """1 for both halves of each feature that a query has; either half may well be 0 itself."""
    has = vector.vector.reshape(-1, 2).any(axis=1)
    return np.repeat(has, 2).astype(np.float32)


def _identity(window: PointTable) -> Hashable:
    """Tells windows apart, also after points were added or replaced by a later run."""
    stamps = window.timestamp_ms
    if not len(stamps):
        return window.symbol
    return window.symbol, len(stamps), int(stamps[0]), int(stamps[-1]), int(window.run.sum())


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
