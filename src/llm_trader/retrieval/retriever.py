"""One query, from a state to its answer.

1. `probes`      the state becomes a vector, without the features it lacks; so does its sentence
2. `_searches`   the window known at the query's time, and the filters of its regime
3. `_find`       the nearest hits, fused where both vectors are searched (`fusion`), and among them
                 the episodes far enough apart in time (`episodes`)
4. `_reference`  how similar states usually are: percentiles and novelty (`reference`)
5. `_matches`    the first `top_k` that are similar enough, then their `statistics`
6. `_evidence`   what followed the episodes, beside the base rates of the window (`evidence`)
7. `_reference_forecasts`  where asked for, what the forecast is later compared with
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from llm_trader.arrays import COSINE_ROUNDING, Cosines, Floats, Vectors
from llm_trader.embedding.state import QueryVector, StateSpace
from llm_trader.embedding.text_cache import QueryTexts
from llm_trader.errors import (
    ConfigurationError,
    InsufficientMatchesError,
    InvalidInputError,
    LlmTraderError,
)
from llm_trader.index.asof import Window, visible_window
from llm_trader.index.memory import exact_cosines, scales_of
from llm_trader.index.points import COLUMN_ROW, STATE, TEXT, PointTable, point_id
from llm_trader.index.protocol import FieldRange, Hits, SearchQuery, VectorIndex
from llm_trader.retrieval.answer import (
    Answer,
    Evidence,
    Match,
    MatchState,
    Novelty,
    PastStates,
    ReferenceForecasts,
    StatesUsed,
)
from llm_trader.retrieval.block import Pause, shared_episodes, shared_prospects
from llm_trader.retrieval.calibration import Calibration, LoadedCalibration, scope_of
from llm_trader.retrieval.cohort.outcomes import COHORT_SHARE, LEAST_STATES, NearestStates
from llm_trader.retrieval.episodes import (
    HITS_PER_EPISODE,
    MORE_HITS,
    earliest_episodes,
    nearest_episodes,
)
from llm_trader.retrieval.evidence import (
    EpisodeNumbers,
    Neighbourhood,
    Outlook,
    Prospect,
    build_evidence,
    no_evidence,
)
from llm_trader.retrieval.forecast import (
    NEIGHBOURS,
    ForecastBase,
)
from llm_trader.retrieval.fusion import fuse_by_rank
from llm_trader.retrieval.reference import BaseRates, LruCache, SimilarityReference
from llm_trader.retrieval.reference_forecasts import (
    forecast_quantiles,
    random_rows,
    rescaled_quantiles,
)
from llm_trader.retrieval.regime import REGIME_FIELDS, regime_ranges
from llm_trader.retrieval.search_spec import QueryVectors, SearchSpec
from llm_trader.retrieval.shared_windows import SharedWindows
from llm_trader.retrieval.statistics import Matches, summarise
from llm_trader.snapshot.document import unknown_fields
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import (
    OUTCOMES,
    PATH,
    STOP_LOSS_PCT,
    TAKE_PROFIT_PCT,
    Outcome,
    resolved_at,
)
from llm_trader.snapshot.table import SnapshotTable, lacking
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis, iso8601

# Some 280 KB each, of 90 days.
_FORECAST_BASES_KEPT: Final = 64
# Some 5 KB each. Live queries need a few per symbol, replayed ones more.
_WINDOWS_KEPT: Final = 1024

# Called with the name of a stage when it has ended: `embed`, `search`, `select`, `evidence`.
StageEnd = Callable[[str], None]
T = TypeVar("T")

_MATCH_STATE: Final = [COLUMN_ROW[name] for name in MatchState.__struct_fields__]
_OUTCOMES: Final = slice(COLUMN_ROW[OUTCOMES[0]], COLUMN_ROW[OUTCOMES[-1]] + 1)


class _Query(NamedTuple):
    """A query with its vectors by name. Similarities are those of the first vector."""

    state: SnapshotTable
    as_of_ms: Millis
    with_references: bool
    spec: SearchSpec
    probes: dict[str, QueryVector]

    @property
    def symbol(self) -> str:
        return self.state.symbol

    @property
    def name(self) -> str:
        return next(iter(self.probes))

    @property
    def probe(self) -> QueryVector:
        return self.probes[self.name]


class Question(NamedTuple):
    """A table of one snapshot, the time of the query, and whether the answer is to have its
    `references`.
    """

    state: SnapshotTable
    as_of_ms: Millis
    with_references: bool = False


class _Asked(NamedTuple):
    """A query ready to be searched for; times are `time.perf_counter()` seconds."""

    query: _Query
    ranges: dict[str, FieldRange]
    searches: list[SearchQuery]
    started: float
    embedded: float


class _Found(NamedTuple):
    """All hits, the neighbours to show, the episodes of the evidence, and the neighbours of the
    forecast.
    """

    hits: Hits
    shown: Neighbourhood
    episodes: Neighbourhood
    neighbours: Neighbourhood


class _Shared(NamedTuple):
    """What a query has from those it is asked with; None is its own to compute."""

    references: dict[Hashable, SimilarityReference]
    windows: SharedWindows | None = None
    prospect: Prospect | None = None
    episodes: EpisodeNumbers | None = None


async def _no_pause() -> None: ...


def _untimed(stage: str) -> None: ...


class Retriever:
    """Answers queries from an index.

    Without `texts` only the state vectors are searched. A calibration applies to queries like
    those it was fitted on; `Answer.warnings` says why another query goes without. Raises
    `ConfigurationError` for an index whose vectors belong to other spaces.
    """

    def __init__(
        self,
        index: VectorIndex,
        space: StateSpace,
        texts: QueryTexts | None = None,
        calibration: LoadedCalibration | None = None,
    ) -> None:
        collection = index.collection
        _refuse_another_space(collection.state_space_id, space.space_id)
        if texts and collection.text_space_id is not None:
            models = f" (text models: {collection.text_model}, here {texts.model})"
            _refuse_another_space(collection.text_space_id, texts.space_id, models)
        self.index = index
        self.space = space
        self.texts = texts
        # May be replaced at any time.
        self.calibration = calibration
        self._base_rates: LruCache[Hashable, BaseRates] = LruCache(_WINDOWS_KEPT)
        self._forecast_bases: LruCache[Hashable, ForecastBase] = LruCache(_FORECAST_BASES_KEPT)
        self._references: LruCache[Hashable, SimilarityReference] = LruCache(_WINDOWS_KEPT)

    @property
    def caches(self) -> Mapping[str, LruCache[Any, Any]]:
        """What it keeps between queries, by name."""
        return {
            "base_rates": self._base_rates,
            "forecast_bases": self._forecast_bases,
            "similarity_references": self._references,
        }

    async def query(
        self,
        state: SnapshotTable,
        as_of_ms: Millis,
        spec: SearchSpec,
        end_stage: StageEnd = _untimed,
        *,
        neighbours_of: SnapshotTable | None = None,
        with_references: bool = False,
    ) -> Answer:
        """Answer for a table of one snapshot, from what was known at `as_of_ms`.

        `neighbours_of` is another state, whose neighbours are searched in the place of its own; the
        filters and the volatility expected now stay those of `state`. `with_references` gives the
        answer its `references`. Raises `EmbeddingError` for a state that says too little,
        `SymbolNotFoundError` for a symbol without points, `InvalidInputError` for vectors that the
        index does not hold, and `VectorIndexError` when the index fails.
        """
        question = Question(state, as_of_ms, with_references)
        asked = await self._asked(question, spec, end_stage, neighbours_of)
        found = await self._find(asked.query, asked.searches, None, end_stage)
        return await self._answer(asked, found, _Shared({}), end_stage)

    async def query_many(
        self,
        questions: Sequence[Question],
        spec: SearchSpec,
        pause: Pause = _no_pause,
    ) -> AsyncGenerator[Answer | LlmTraderError, None]:
        """What `query` answers to each of some questions about one symbol, or raises, in order.

        They share a product with the vectors and the sorting of the outcomes, which pays if they
        are about times near each other. The work of an answer is done when it is asked for; `pause`
        is awaited between the steps before the first one.
        """
        if spec.vector == "hybrid":  # its two rankings are fused anew at each depth
            for question in questions:
                state, as_of_ms, with_references = question
                answer = self.query(state, as_of_ms, spec, with_references=with_references)
                yield await _or_error(answer)
            return
        asked = await self._all_asked(questions, spec, pause)
        searchable = [one for one in asked if isinstance(one, _Asked)]
        try:
            prepared = iter(await self._prepare(searchable, pause) if searchable else [])
        except LlmTraderError as error:
            for one in asked:
                yield error if isinstance(one, _Asked) else one
            return
        for one in asked:
            if isinstance(one, _Asked):
                yield await _or_error(self._answer(one, *next(prepared)))
            else:
                yield one

    async def _prepare(self, asked: Sequence[_Asked], pause: Pause) -> list[tuple[_Found, _Shared]]:
        """What many queries can compute together; queries of one spec, which is not hybrid."""
        limit = _first_limit(asked[0].query.spec, 1)
        searches = [replace(one.searches[0], limit=limit) for one in asked]
        hits = await self.index.search_many(searches)
        await pause()
        found = []
        for one, first in zip(asked, hits, strict=True):
            found.append(await self._find(one.query, one.searches, first))
            await pause()
        windows = await self._share_windows(asked)
        references: dict[Hashable, SimilarityReference] = {}
        if windows is None:
            return [(one, _Shared(references)) for one in found]
        volatility_pct = [_realized_volatility(one.query) for one in asked]
        prospects = await shared_prospects(windows, [one.neighbours for one in found], pause)
        await pause()
        episodes = shared_episodes(windows, [one.episodes for one in found], volatility_pct)
        await pause()
        shared = [
            _Shared(references, windows, *pair) for pair in zip(prospects, episodes, strict=True)
        ]
        return list(zip(found, shared, strict=True))

    async def _share_windows(self, asked: Sequence[_Asked]) -> SharedWindows | None:
        windows = [one.searches[0].window for one in asked]
        earliest_ms = min(window.earliest_timestamp_ms for window in windows)
        latest_ms = max(window.resolved_by_ms for window in windows)
        points = await self.index.scan(asked[0].query.symbol, Window(earliest_ms, latest_ms))
        return SharedWindows(points) if len(points) else None

    async def _all_asked(
        self, questions: Sequence[Question], spec: SearchSpec, pause: Pause
    ) -> list[_Asked | LlmTraderError]:
        asked: list[_Asked | LlmTraderError] = []
        if spec.vector != STATE or not questions:
            for question in questions:
                asked.append(await _or_error(self._asked(question, spec)))
                await pause()
            return asked
        started = time.perf_counter()
        vectors = self.space.embed_queries([question.state for question in questions])
        each_s = (time.perf_counter() - started) / len(questions)
        for question, vector in zip(questions, vectors, strict=True):
            if isinstance(vector, LlmTraderError):
                asked.append(vector)
            else:
                times = started, started + each_s
                asked.append(_ready(_Query(*question, spec, {STATE: vector}), *times))
        await pause()
        return asked

    async def _asked(
        self,
        question: Question,
        spec: SearchSpec,
        end_stage: StageEnd = _untimed,
        neighbours_of: SnapshotTable | None = None,
    ) -> _Asked:
        started = time.perf_counter()
        compared = question.state if neighbours_of is None else neighbours_of
        probes = await self.probes(compared, spec.vector)
        query = _Query(*question, spec, probes)
        embedded = time.perf_counter()
        end_stage("embed")
        return _ready(query, started, embedded)

    async def _answer(
        self,
        asked: _Asked,
        found: _Found,
        shared: _Shared,
        end_stage: StageEnd = _untimed,
    ) -> Answer:
        query, ranges, _, started, embedded = asked
        spec, (hits, shown, _, neighbours) = query.spec, found
        reference = await self._shared_reference(query, shared)
        matches = shown.at_least(spec.min_similarity - COSINE_ROUNDING)
        rows = matches.points.values[:, matches.rows].T.tolist()
        loaded, warnings = self._usable_calibration(query, len(neighbours.rows))
        calibration = loaded.calibration if loaded else None
        novelty = _novelty(reference, hits, query.probe)
        evidence, without_neighbours = self._evidence(query, found, novelty, calibration, shared)
        references = None
        if query.with_references and without_neighbours is not None:
            references = self._reference_forecasts(asked, neighbours)
        answer = Answer(
            matches=self._matches(query, matches, rows, reference, shared),
            statistics=summarise(rows, matches.similarity.tolist()),
            evidence=evidence,
            filters_applied=["symbol", "timerange", "resolved_at", *ranges],
            features_missing=list(query.probe.features_missing),
            points_eligible=hits.eligible,
            embedding_us=_microseconds(embedded - started),
            retrieval_us=_microseconds(time.perf_counter() - embedded),
            calibration=loaded.used if loaded else None,
            warnings=warnings,
            index_end_ms=int(hits.points.timestamp_ms[-1]) if len(hits.points) else None,
            without_neighbours=without_neighbours,
            references=references,
        )
        end_stage("evidence")
        return answer

    async def nearest_states(self, question: Question, spec: SearchSpec) -> NearestStates:
        """The part of the window that cohorts of a state are made of, by the state vector.

        Each state is in it by what was known at its own time. Raises like `query`.
        """
        spec = msgspec.structs.replace(spec, vector=STATE, include_regime_filters=False)
        query = (await self._asked(question, spec)).query
        search = _searches(query, {})[0]
        points = await self.index.scan(query.symbol, search.window)
        if not len(points):
            suggestion = (
                f"the lookback of {spec.lookback_days} days reaches no past state that was "
            )
            raise InsufficientMatchesError(0, 1, f"{suggestion}known then; ask about a later time")
        limit = max(LEAST_STATES, round(COHORT_SHARE * len(points)))
        hits = await self.index.search(replace(search, limit=limit))
        nearest = _neighbourhood(query, hits).first(limit)
        novelty = _novelty(await self._reference(query), hits, query.probe)
        base = self._forecast_base(hits.points)
        return NearestStates(hits.points, nearest.rows, nearest.similarity, base, novelty)

    def embedding_model(self, vector: QueryVectors) -> str:
        """The ids of the spaces that a query is compared in."""
        text = self.index.collection.text_space_id or "none"
        ids = {"state": self.space.space_id, "text": text}
        return ids.get(vector) or "+".join(ids.values())

    async def probes(self, state: SnapshotTable, vector: QueryVectors) -> dict[str, QueryVector]:
        """The vectors to search for, by the names of the points' vectors."""
        probes = {}
        if vector != TEXT:
            probes[STATE] = self.space.embed_query(state)
        if vector != STATE:
            self.index.collection.check_searchable(TEXT)
            probes[TEXT] = QueryVector(await self._text(state), 1.0, tuple(unknown_fields(state)))
        return probes

    async def _text(self, state: SnapshotTable) -> Vectors:
        if self.texts is None:
            raise InvalidInputError(
                "this server has no text model loaded; start it with the setting "
                "embedding.text.enabled, or search by the state vector"
            )
        return await self.texts.vector(state)

    async def _find(
        self,
        query: _Query,
        searches: list[SearchQuery],
        first: Hits | None,
        end_stage: StageEnd = _untimed,
    ) -> _Found:
        """`first` are the hits of the first search, if it is done."""
        spec = query.spec
        gap_ms = round(spec.min_gap_hours * HOUR_MS)
        limit, hits = _first_limit(spec, len(searches)), first
        while True:
            if hits is None:
                hits = await self._nearest([replace(search, limit=limit) for search in searches])
            end_stage("search")
            stamps = hits.points.timestamp_ms[hits.rows]
            shown = nearest_episodes(stamps, gap_ms, spec.top_k)
            episodes = earliest_episodes(stamps, gap_ms, spec.evidence_k)
            complete = len(shown) == spec.top_k and len(episodes) == spec.evidence_k
            if complete or limit >= hits.eligible:
                break
            limit, hits = limit * MORE_HITS, None
        nearest = _neighbourhood(query, hits)
        if len(searches) > 1 and limit != NEIGHBOURS:
            # Deeper rankings fuse to another order, so the forecast's are fused by themselves.
            end_stage("select")
            fused = await self._nearest([replace(search, limit=NEIGHBOURS) for search in searches])
            end_stage("search")
            neighbours = _neighbourhood(query, fused)
        else:
            neighbours = nearest
        found = _Found(
            hits, nearest.take(shown), nearest.take(episodes), neighbours.first(NEIGHBOURS)
        )
        end_stage("select")
        return found

    async def _nearest(self, searches: list[SearchQuery]) -> Hits:
        """The hits of one search, or those of two fused by their ranks."""
        results = [await self.index.search(search) for search in searches]
        return results[0] if len(results) == 1 else await self._fused(searches[0], *results)

    async def _fused(self, search: SearchQuery, first: Hits, second: Hits) -> Hits:
        """The hits of both searches in one order, with the cosines of the first search."""
        rankings = [hits.points.timestamp_ms[hits.rows] for hits in (first, second)]
        only_second = np.setdiff1d(rankings[1], rankings[0])
        others = await self.index.fetch(search.symbol, only_second, (search.name,))
        scale = scales_of(others, search)
        comparable = np.arange(len(others)) if scale is None else np.flatnonzero(~np.isnan(scale))
        stamps = np.concatenate([rankings[0], others.timestamp_ms[comparable]])
        other_cosines = exact_cosines(others, comparable, search, scale)
        cosine = np.concatenate([first.cosine, other_cosines])
        by_time = np.argsort(stamps)
        fused = fuse_by_rank(rankings)
        # What was written between the two searches is not in the window of the first, and what has
        # too little in common with the query has no similarity.
        fused = fused[np.isin(fused, first.points.timestamp_ms) & np.isin(fused, stamps)]
        positions = by_time[np.searchsorted(stamps[by_time], fused)]
        rows = np.searchsorted(first.points.timestamp_ms, fused)
        return replace(first, rows=rows, cosine=cosine[positions])

    async def _shared_reference(self, query: _Query, shared: _Shared) -> SimilarityReference:
        """Queries that are asked together share that of their day."""
        key = query.as_of_ms // DAY_MS, query.probe.features_missing
        reference = shared.references.get(key)
        if reference is None:
            reference = shared.references[key] = await self._reference(query)
        return reference

    async def _reference(self, query: _Query) -> SimilarityReference:
        name, probe = query.name, query.probe
        if name == TEXT and probe.features_missing:
            # Similarities of whole sentences say nothing about one that leaves facts out.
            return SimilarityReference.of_nothing()
        midnight_ms = query.as_of_ms - query.as_of_ms % DAY_MS
        window = visible_window(midnight_ms, query.spec.lookback_days)
        points = await self.index.scan(query.symbol, window)
        features_missing = probe.features_missing
        if (_content_key(points), name, features_missing) not in self._references:
            points = await self.index.scan(query.symbol, window, (name,))
        present = _present(probe) if name == STATE else 1.0

        def reference() -> SimilarityReference:
            overlap = probe.overlap
            scales = None if overlap is None else self.space.pair_scales(overlap.known)
            return SimilarityReference.of(points, name, present, probe.present_share, scales)

        return self._references.get((_content_key(points), name, features_missing), reference)

    def _evidence(
        self,
        query: _Query,
        found: _Found,
        novelty: Novelty | None,
        calibration: Calibration | None,
        shared: _Shared,
    ) -> tuple[Evidence, list[list[float]] | None]:
        _, _, episodes, neighbours = found
        window = episodes.points
        if not len(window):
            reason = "the lookback reaches no past state that was known by then"
            return no_evidence(reason, 0), None
        if not len(episodes.rows):
            reason = f"none of the {len(window)} past states known by then passes the filters"
            return no_evidence(reason, len(window)), None
        volatility_pct = _realized_volatility(query)
        prospect, numbers = shared.prospect, shared.episodes
        if prospect is None:
            prospect = Prospect.of(self._forecast_base(window), neighbours)
        if numbers is None:
            current_pct = np.array([volatility_pct])
            one = episodes.rows[None], episodes.similarity[None]
            [numbers] = EpisodeNumbers.of(window, *one, current_pct)
        outlook = self._outlook(query, window, prospect, calibration)
        base, horizons = self._base(window, shared.windows), query.spec.horizons
        evidence = build_evidence(
            numbers, base, outlook, horizons, volatility_pct, novelty, calibration
        )
        in_part = sum(share < 1 for share in _compared_shares(query, episodes, shared))
        if in_part:
            evidence = msgspec.structs.replace(evidence, episodes_compared_in_part=in_part)
        if query.spec.detail == "full":
            used = StatesUsed(_past_states(episodes), _past_states(neighbours), _window(window))
            evidence = msgspec.structs.replace(evidence, states_used=used)
        return evidence, prospect.mixture.named_without_neighbours(outlook.expected_pct)

    def _reference_forecasts(self, asked: _Asked, neighbours: Neighbourhood) -> ReferenceForecasts:
        """Of a query that has neighbours; as many states are drawn, of those that it may see."""
        query, window = asked.query, neighbours.points
        ranges = tuple(asked.ranges.values())
        rows = random_rows(window, ranges, len(neighbours.rows), query.as_of_ms)
        base = self._forecast_base(window)
        return ReferenceForecasts(
            rescaled_quantiles(window, _realized_volatility(query)),
            forecast_quantiles(base, window, rows, _expected_volatilities(query)),
        )

    def _base(self, window: PointTable, shared: SharedWindows | None) -> BaseRates:
        is_shared = shared is not None and shared.holds(window)
        base_rates = shared.base_rates if shared is not None and is_shared else BaseRates.of
        return self._base_rates.get(_content_key(window), lambda: base_rates(window))

    def _forecast_base(self, window: PointTable) -> ForecastBase:
        return self._forecast_bases.get(_content_key(window), lambda: ForecastBase.of(window))

    def _outlook(
        self,
        query: _Query,
        window: PointTable,
        prospect: Prospect,
        calibration: Calibration | None,
    ) -> Outlook:
        expected_pct = _expected_volatilities(query)
        margins = None
        if calibration:
            conditions = _realized_volatility(query), query.as_of_ms, query.symbol
            margins = calibration.margins(expected_pct, *conditions)
        named = query.spec.barriers(expected_pct[-1])
        barriers_pct = [(-STOP_LOSS_PCT, TAKE_PROFIT_PCT), *([named] if named else [])]
        return Outlook.of(prospect, window, expected_pct, margins, barriers_pct)

    def _usable_calibration(
        self, query: _Query, neighbours: int
    ) -> tuple[LoadedCalibration | None, list[str]]:
        """The calibration that applies to the query, or `None` and a warning that says why."""
        loaded = self.calibration
        if loaded is None:
            return None, []
        scope = scope_of(self.index.collection, query.symbol, query.spec)
        features_missing = query.probe.features_missing
        objections = loaded.objections(scope, query.as_of_ms, neighbours, features_missing)
        if objections:
            return None, [f"the calibration was not used: {'; '.join(objections)}"]
        return loaded, []

    def _matches(
        self,
        query: _Query,
        matches: Neighbourhood,
        rows: Matches,
        reference: SimilarityReference,
        shared: _Shared,
    ) -> list[Match]:
        symbol, version = matches.points.symbol, self.space.feature_version
        times = matches.points.timestamp_ms[matches.rows]
        stamps, resolved = times.tolist(), resolved_at(times).tolist()
        similarity = matches.similarity.tolist()
        percentiles = reference.percentiles(matches.similarity)
        shares = _compared_shares(query, matches, shared)
        return [
            Match(
                similarity=similarity[i],
                similarity_percentile=percentiles[i],
                timestamp=stamps[i],
                resolved_at=resolved[i],
                date=iso8601(stamps[i]),
                id=point_id(symbol, stamps[i], version),
                market_state=MatchState(*[_none_for_nan(row[column]) for column in _MATCH_STATE]),
                outcomes=Outcome.of_values(row[_OUTCOMES]),
                compared_share=shares[i],
            )
            for i, row in enumerate(rows)
        ]


def _ready(query: _Query, started: float, embedded: float) -> _Asked:
    ranges = {}
    if query.spec.include_regime_filters:
        regime = [float(query.state.column(name)[0]) for name in REGIME_FIELDS]
        ranges = regime_ranges(*regime)
    return _Asked(query, ranges, _searches(query, ranges), started, embedded)


def _searches(query: _Query, ranges: dict[str, FieldRange]) -> list[SearchQuery]:
    window = visible_window(query.as_of_ms, query.spec.lookback_days)
    return [
        SearchQuery(
            *(query.symbol, window, probe.vector, 0, tuple(ranges.values()), name),
            None if probe.overlap is None else probe.overlap.scale,
        )
        for name, probe in query.probes.items()
    ]


def _first_limit(spec: SearchSpec, searches: int) -> int:
    limit = HITS_PER_EPISODE * max(spec.top_k, spec.evidence_k)
    return max(limit, NEIGHBOURS) if searches == 1 else limit


async def _or_error(result: Awaitable[T]) -> T | LlmTraderError:
    try:
        return await result
    except LlmTraderError as error:
        return error


def _refuse_another_space(stored: str, expected: str, models: str = "") -> None:
    if stored != expected:
        raise ConfigurationError(
            f"the index holds vectors of {stored}, this set-up makes {expected}{models}; ingest "
            "into a new index, or use the version and settings that this one was made with"
        )


def _neighbourhood(query: _Query, hits: Hits) -> Neighbourhood:
    return Neighbourhood(hits.points, hits.rows, _similarity(hits.cosine, query.probe))


def _compared_shares(query: _Query, neighbourhood: Neighbourhood, shared: _Shared) -> list[float]:
    """The share of the weight that each was compared over."""
    overlap, points, rows = query.probe.overlap, neighbourhood.points, neighbourhood.rows
    if overlap is None:
        return [1.0] * len(rows)
    windows = shared.windows
    if windows is not None and windows.lacks_nothing and windows.holds(points):
        return [float(overlap.share[0])] * len(rows)
    shares: list[float] = overlap.share[lacking(points.values, rows)].tolist()
    return shares


def _realized_volatility(query: _Query) -> float:
    return float(query.state.column("realized_volatility_24h")[0])


def _expected_volatilities(query: _Query) -> list[float]:
    return [float(query.state.column(name)[0]) for name in EXPECTED_VOLATILITY.values()]


def _none_for_nan(value: float) -> Any:
    return None if value != value else value


def _past_states(neighbourhood: Neighbourhood) -> PastStates:
    by_time = neighbourhood.take(np.argsort(neighbourhood.rows))
    states = _window(by_time.points.take(by_time.rows))
    return msgspec.structs.replace(states, similarity=by_time.similarity.tolist())


def _window(points: PointTable) -> PastStates:
    return PastStates(
        points.timestamp_ms.tolist(),
        None,
        {name: points.column(f"outcome_{name}").tolist() for name in HORIZONS},
        {name: points.column(field).tolist() for name, field in EXPECTED_VOLATILITY.items()},
        points.column("realized_volatility_24h").tolist(),
        {name: points.column(name).tolist() for name in PATH},
    )


def _novelty(reference: SimilarityReference, hits: Hits, probe: QueryVector) -> Novelty | None:
    # The best cosine of the window ignores the filters: they must not make a state look novel.
    nearest = min(hits.best_cosine / probe.cosine_per_similarity, 1.0)
    percentile = None if nearest != nearest else reference.novelty_percentile(nearest)
    if percentile is None:
        return None
    return Novelty(percentile, nearest, len(reference.nearest))


def _similarity(cosine: Cosines, probe: QueryVector) -> Floats:
    """Cosines over the query's features; rounding must not make them exceed 1."""
    similarity = cosine.astype(np.float64) / probe.cosine_per_similarity
    return np.minimum(np.maximum(similarity, -1.0), 1.0)


def _present(probe: QueryVector) -> Vectors:
    """1 for both halves of each feature that a query has, as either half may well be 0."""
    present = probe.vector.reshape(-1, 2).any(axis=1)
    return np.repeat(present, 2).astype(np.float32)


def _content_key(window: PointTable) -> Hashable:
    """Equal keys mean windows of the same points: one stored version, first and last point."""
    stamps = window.timestamp_ms
    bounds = (int(stamps[0]), int(stamps[-1])) if len(stamps) else None
    return window.version_token, bounds


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
