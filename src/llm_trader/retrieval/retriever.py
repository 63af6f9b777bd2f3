"""One query: state to vector, vector to neighbours, neighbours to matches and evidence.

1. `embedding`  the state becomes a vector, without the features it lacks, or its wording does
2. `index`      the window that was known at the query's time, the regime's filters, the nearest
3. `fusion`     where both vectors are searched: one order out of two
4. `episodes`   of these, neighbours far enough apart in time
5. `statistics` over the matches: the first `top_k` that are similar enough
6. `evidence`   over the wider neighbourhood, beside the base rates of the window
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Floats, Vectors
from llm_trader.embedding.state import QueryVector, StateSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.index.asof import visible_window
from llm_trader.index.points import COLUMN_ROW, STATE, TEXT, PointTable, point_id
from llm_trader.index.protocol import Collection, Hits, SearchQuery, VectorIndex
from llm_trader.retrieval.answer import Answer, Evidence, Match, MatchState, Novelty
from llm_trader.retrieval.calibration import (
    UNCALIBRATED,
    Calibration,
    LoadedCalibration,
    Scope,
    Use,
)
from llm_trader.retrieval.episodes import earliest_apart, nearest_apart
from llm_trader.retrieval.evidence import Neighbourhood, no_evidence, weigh
from llm_trader.retrieval.fusion import fuse_by_rank
from llm_trader.retrieval.reference import BaseRates, LastUsed, SimilarityReference
from llm_trader.retrieval.regime import regime_ranges
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.retrieval.statistics import Rows, summarise
from llm_trader.snapshot.document import untold
from llm_trader.snapshot.outcome import OUTCOMES, Outcome, resolved_at
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis, iso8601

# How many hits are asked for at first, for each episode wanted.
_HITS_PER_EPISODE: Final = 6
_MORE_HITS: Final = 4
_WINDOWS_KEPT: Final = 1024  # some 5 KB each

_MATCH_STATE: Final = [COLUMN_ROW[name] for name in MatchState.__struct_fields__]
_OUTCOMES: Final = slice(COLUMN_ROW[OUTCOMES[0]], COLUMN_ROW[OUTCOMES[-1]] + 1)


class Retriever:
    """Answers queries from an index. Raises `ConfigurationError` for one of other spaces.

    Without `texts` only the state vectors are searched. A calibration is used for queries like
    those it was made for; for others `Answer.warnings` says why it was not.
    """

    def __init__(
        self,
        index: VectorIndex,
        space: StateSpace,
        texts: QueryTexts | None = None,
        calibration: LoadedCalibration | None = None,
    ) -> None:
        held = index.collection
        _refuse_another_space(held.state_space_id, space.space_id)
        if texts and held.text_space_id is not None:
            models = f" (text models: {held.text_model}, here {texts.model})"
            _refuse_another_space(held.text_space_id, texts.space_id, models)
        self.index = index
        self.space = space
        self.texts = texts
        self._calibration = calibration
        self._base_rates: LastUsed[Hashable, BaseRates] = LastUsed(_WINDOWS_KEPT)
        self._references: LastUsed[Hashable, SimilarityReference] = LastUsed(_WINDOWS_KEPT)

    async def query(self, state: SnapshotTable, as_of_ms: Millis, config: SearchSpec) -> Answer:
        """Answer for a table of one snapshot, from what was known at `as_of_ms`.

        Raises `EmbeddingError` for a state that says too little, `SymbolNotFoundError` for a
        symbol without points, `InvalidInputError` for vectors that the index does not hold, and
        `VectorIndexError` when the index fails.
        """
        started = time.perf_counter()
        probes = await self.probes(state, config.vector)
        embedded = time.perf_counter()
        window = visible_window(as_of_ms, config.lookback_days)
        ranges = regime_ranges(state) if config.include_regime_filters else {}
        searches = [
            SearchQuery(state.symbol, window, probe.vector, 0, tuple(ranges.values()), name)
            for name, probe in probes.items()
        ]
        name, probe = next(iter(probes.items()))
        found, shown, within = await self._episodes(searches, config, probe)
        reference = await self._reference(state.symbol, as_of_ms, config, name, probe)
        # Regardless of the filters: they must not make an ordinary state look novel.
        nearest = min(found.best_cosine / probe.cosine_per_similarity, 1.0)
        matches = shown.at_least(config.min_similarity - COSINE_ROUNDING)
        rows = matches.points.values[:, matches.rows].T.tolist()
        use = self._use(state.symbol, as_of_ms, config, len(within.rows), probe)
        return Answer(
            matches=self._matches(matches, rows, reference),
            statistics=summarise(rows, matches.similarity.tolist()),
            evidence=self._evidence(
                state, found.points, within, _novelty(reference, nearest), config, use.calibration
            ),
            filters_applied=["symbol", "timerange", "resolved_at", *ranges],
            features_missing=list(probe.features_missing),
            points_eligible=found.eligible,
            embedding_us=_us(embedded - started),
            retrieval_us=_us(time.perf_counter() - embedded),
            calibration=use.told,
            warnings=use.warnings,
        )

    def embedding_model(self, vector: QueryVectors) -> str:
        """The ids of the spaces that a query is compared in."""
        text = self.index.collection.text_space_id or "none"
        ids = {"state": self.space.space_id, "text": text}
        return ids.get(vector) or "+".join(ids.values())

    async def probes(self, state: SnapshotTable, vector: QueryVectors) -> dict[str, QueryVector]:
        """What to search for, by the name of the vectors; similarity is told of the first."""
        probes = {}
        if vector != TEXT:
            probes[STATE] = self.space.embed_query(state)
        if vector != STATE:
            self.index.collection.check_searchable(TEXT)
            probes[TEXT] = QueryVector(await self._text(state), 1.0, tuple(untold(state)))
        return probes

    async def _text(self, table: SnapshotTable) -> Vectors:
        if self.texts is None:
            raise InvalidInputError(
                "this server has no text model loaded; start it with the setting "
                "embedding.text.enabled, or search by the state vector"
            )
        return await self.texts.vector(table)

    async def _episodes(
        self, searches: list[SearchQuery], config: SearchSpec, probe: QueryVector
    ) -> tuple[Hits, Neighbourhood, Neighbourhood]:
        """All hits, those to show, and those of the evidence; more are fetched until they do."""
        gap_ms = round(config.min_gap_hours * HOUR_MS)
        limit = _HITS_PER_EPISODE * max(config.top_k, config.evidence_k)
        while True:
            hits = await self._nearest([replace(search, limit=limit) for search in searches])
            stamps = hits.points.timestamp_ms[hits.rows]
            shown = nearest_apart(stamps, gap_ms, config.top_k)
            within = earliest_apart(stamps, gap_ms, config.evidence_k)
            enough = len(shown) == config.top_k and len(within) == config.evidence_k
            if enough or limit >= hits.eligible:
                found = Neighbourhood(hits.points, hits.rows, _similarity(hits.cosine, probe))
                return hits, found.take(shown), found.take(within)
            limit *= _MORE_HITS

    async def _nearest(self, searches: list[SearchQuery]) -> Hits:
        """The hits of one search, or those of two fused by their ranks."""
        found = [await self.index.search(search) for search in searches]
        return found[0] if len(found) == 1 else await self._fused(searches[0], *found)

    async def _fused(self, told: SearchQuery, first: Hits, second: Hits) -> Hits:
        """Both hits in one order, with the cosines of the first search, whose scores tell more."""
        lists = [hits.points.timestamp_ms[hits.rows] for hits in (first, second)]
        others = await self.index.fetch(told.symbol, np.setdiff1d(lists[1], lists[0]), (told.name,))
        stamps = np.concatenate([lists[0], others.timestamp_ms])
        cosine = np.concatenate([first.cosine, np.vecdot(others.vectors[told.name], told.vector)])
        by_time = np.argsort(stamps)
        fused = fuse_by_rank(lists)
        # What was written between the two searches is not in the window of the first.
        fused = fused[np.isin(fused, first.points.timestamp_ms) & np.isin(fused, stamps)]
        found = by_time[np.searchsorted(stamps[by_time], fused)]
        rows = np.searchsorted(first.points.timestamp_ms, fused)
        return replace(first, rows=rows, cosine=cosine[found])

    async def _reference(
        self,
        symbol: str,
        as_of_ms: Millis,
        config: SearchSpec,
        name: str,
        probe: QueryVector,
    ) -> SimilarityReference:
        if name == TEXT and probe.features_missing:
            # How alike whole sentences are says nothing of one that leaves facts out.
            return SimilarityReference.of_nothing()
        window = visible_window(as_of_ms - as_of_ms % DAY_MS, config.lookback_days)
        points = await self.index.scan(symbol, window)
        key = _identity(points), name, probe.features_missing
        if key not in self._references:
            points = await self.index.scan(symbol, window, (name,))
        known = _known(probe) if name == STATE else 1.0
        return self._references.get(
            key, lambda: SimilarityReference.of(points, name, known, probe.present_share)
        )

    def _evidence(
        self,
        state: SnapshotTable,
        window: PointTable,
        within: Neighbourhood,
        novelty: Novelty | None,
        config: SearchSpec,
        calibration: Calibration | None,
    ) -> Evidence:
        if not len(within.rows):
            among = f"{len(window)} past states" if len(window) else "no past state"
            why = "none passes the filters" if len(window) else "the lookback reaches none"
            return no_evidence(f"{among} known by then: {why}", len(window))
        base = self._base_rates.get(_identity(window), lambda: BaseRates.of(window))
        volatility = float(state.column("realized_volatility_24h")[0])
        return weigh(within, base, config.horizons, volatility, novelty, calibration)

    def _use(
        self,
        symbol: str,
        as_of_ms: Millis,
        config: SearchSpec,
        episodes: int,
        probe: QueryVector,
    ) -> Use:
        if self._calibration is None:
            return UNCALIBRATED
        asked = scope_of(self.index.collection, symbol, config)
        return self._calibration.use(asked, as_of_ms, episodes, probe.features_missing)

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


def scope_of(collection: Collection, symbol: str, config: SearchSpec) -> Scope:
    """Which evidence a query of a collection gets."""
    return Scope(
        exchange=collection.exchange,
        symbols=(symbol,),
        feature_version=collection.feature_version,
        state_space_id=collection.state_space_id,
        text_space_id=None if config.vector == STATE else collection.text_space_id,
        **config.episode_fields(),
    )


def _refuse_another_space(held: str, made: str, models: str = "") -> None:
    if held != made:
        raise ConfigurationError(
            f"the index holds vectors of {held}, this set-up makes {made}{models}; ingest into a "
            "new index, or use the version and settings it was made with"
        )


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
