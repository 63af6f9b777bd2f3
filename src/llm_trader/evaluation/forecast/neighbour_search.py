"""Finds the neighbours of many queries at once, each under the as-of rule.

The result is what the server would have found, in the same order; a test holds it equal to
`Retriever`: the same window, filters, scores and episodes. Queries of one day see nearly the same
window, so the products of a whole block of queries with it are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Cosines, Floats, Kinds, Mask, Rows, Vectors
from llm_trader.embedding.state import Overlap, StateSpace, overlaps_by_kind
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.plan import Search, check_feature_weights
from llm_trader.index.asof import visible_rows
from llm_trader.index.memory import admitted, nearest
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.index.protocol import FieldRange
from llm_trader.retrieval.episodes import HITS_PER_EPISODE, MORE_HITS, earliest_episodes
from llm_trader.retrieval.fusion import fuse_by_rank
from llm_trader.retrieval.regime import REGIME_FIELDS, regime_ranges
from llm_trader.snapshot.table import any_lacks
from llm_trader.timeframe import HOUR_MS

# A day of quarter-hours: their windows differ by a day, and the product fits a processor's cache.
_QUERIES_PER_BLOCK: Final = 96


class Neighbours(NamedTuple):
    """The neighbours of n queries.

    `rows` (n, k) are rows of the points, nearest first, -1 where there are too few;
    `similarity` (n, k) is NaN there. The window of a query is the rows from `first` to
    before `last`, both (n,).
    """

    rows: Rows
    similarity: Cosines
    first: Rows
    last: Rows

    def take(self, queries: slice) -> Neighbours:
        """The neighbours of some queries."""
        return Neighbours(
            self.rows[queries], self.similarity[queries], self.first[queries], self.last[queries]
        )

    def window_share(self, mask: Mask) -> Floats:
        """The share of each window's points for which `mask` (points,) is true, shape (n,).

        NaN for an empty window.
        """
        counts = np.concatenate([[0], np.cumsum(mask)])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((counts[self.last] - counts[self.first]) / (self.last - self.first))

    @property
    def complete(self) -> Mask:
        """Which queries have all their neighbours, shape (n,)."""
        return np.asarray((self.rows >= 0).all(axis=1))


def find_neighbours(
    points: PointTable,
    queries: PointTable,
    search: Search,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda queries: None,
) -> Neighbours:
    """The nearest episodes of each query among the points that it may see.

    Queries are states with their vectors, in the order of time; their outcomes are not used.
    `progress` is called with the number of further queries that are done.
    """
    embargo_ms = round(search.embargo_hours * HOUR_MS)
    first, last = visible_rows(
        points.timestamp_ms, queries.timestamp_ms, search.lookback_days, embargo_ms
    )
    n = len(queries)
    rows = np.full((n, search.neighbours), -1, np.intp)
    similarity = np.full((n, search.neighbours), np.nan, np.float32)
    kinds = _Kinds.of(points, queries, search)
    block_search = _BlockSearch(points, queries, search, first, last, seed, kinds)
    for start in range(0, n, _QUERIES_PER_BLOCK):
        block = np.arange(start, min(start + _QUERIES_PER_BLOCK, n))
        for row, (episodes, cosines) in zip(block, block_search.search(block), strict=True):
            rows[row, : len(episodes)] = episodes
            similarity[row, : len(episodes)] = cosines
        progress(len(block))
    return Neighbours(rows, similarity, first, last)


class _Kinds(NamedTuple):
    """What points (points,) and queries (queries,) lack, and the overlaps of queries by kind."""

    points: Kinds
    queries: Kinds
    overlaps: list[Overlap]

    @classmethod
    def of(cls, points: PointTable, queries: PointTable, search: Search) -> _Kinds | None:
        """None where nothing lacks anything."""
        if not (any_lacks(points.values) or any_lacks(queries.values)):
            return None
        overlaps = overlaps_by_kind(search.feature_weights)
        return cls(points.lacking(), queries.lacking(), overlaps)

    def overlap(self, row: int) -> Overlap:
        """That of a query."""
        return self.overlaps[int(self.queries[row])]

    def scale(self, row: int, points: Rows) -> Cosines:
        """The factors of the cosines of some points with a query; NaN: not comparable."""
        factors: Cosines = self.overlap(row).scale[self.points[points]]
        return factors


@dataclass(frozen=True, slots=True)
class _BlockSearch:
    """Finds the neighbours of a block of queries; fields are those of `find_neighbours`."""

    _points: PointTable
    _queries: PointTable
    _spec: Search
    _first: Rows
    _last: Rows
    _seed: int
    _kinds: _Kinds | None

    def search(self, block: Rows) -> Iterator[tuple[Rows, Cosines]]:
        """Rows and similarities of each query's episodes."""
        candidates = [self._candidates(int(row)) for row in block]
        limit = self._spec.neighbours * (HITS_PER_EPISODE if self._spec.gap_hours else 1)
        vector = self._spec.vector
        names = (STATE, TEXT) if vector == "hybrid" else (vector,)
        rankings = [self._nearest(block, name, candidates, limit) for name in names]
        for i, row in enumerate(block.tolist()):
            episodes = self._episodes(row, [ranking[i] for ranking in rankings])
            hits, available = min(len(candidates[i]), limit), len(candidates[i])
            while len(episodes) < self._spec.neighbours and hits < available:
                hits = min(MORE_HITS * hits, available)
                query = np.array([row])
                episodes = self._episodes(
                    row, [self._nearest(query, name, [candidates[i]], hits)[0] for name in names]
                )
            yield episodes, self._similarity(row, episodes)

    def _candidates(self, row: int) -> Rows:
        """Rows of the points that pass a query's window and filters."""
        first, last = int(self._first[row]), int(self._last[row])
        ranges: tuple[FieldRange, ...] = ()
        if self._spec.include_regime_filters:
            oi_delta, funding = (self._queries.column(name)[row] for name in REGIME_FIELDS)
            ranges = tuple(regime_ranges(oi_delta, funding).values())
        if not ranges:
            return np.arange(first, last)
        window = self._points.take(slice(first, last))
        return first + np.flatnonzero(admitted(window, ranges))

    def _nearest(self, block: Rows, name: str, candidates: list[Rows], limit: int) -> list[Rows]:
        """Up to `limit` rows for each query, nearest first; of equal ones the oldest first."""
        if name == "random":
            pairs = zip(block.tolist(), candidates, strict=True)
            return [self._random_rows(row, rows, limit) for row, rows in pairs]
        vectors, queries = self._points.vectors[name], self._queries.vectors[name][block]
        start = min((int(rows[0]) for rows in candidates if len(rows)), default=0)
        end = max((int(rows[-1]) + 1 for rows in candidates if len(rows)), default=0)
        products = queries @ vectors[start:end].T
        kinds = self._kinds if name == STATE else None
        return [
            _best(
                *(_at(products[i], rows, start), rows, limit, vectors, queries[i]),
                None if kinds is None else kinds.scale(int(block[i]), rows),
            )
            for i, rows in enumerate(candidates)
        ]

    def _random_rows(self, row: int, candidates: Rows, limit: int) -> Rows:
        rng = np.random.default_rng([self._seed, int(self._queries.timestamp_ms[row])])
        count = min(limit, len(candidates))
        return candidates[rng.choice(len(candidates), count, replace=False)]

    def _episodes(self, row: int, rankings: list[Rows]) -> Rows:
        hits, times_ms = rankings[0], self._points.timestamp_ms
        if len(rankings) > 1:
            hits = np.searchsorted(times_ms, fuse_by_rank([times_ms[rows] for rows in rankings]))
            if self._kinds is not None:  # what the state cannot be compared with has no similarity
                hits = hits[~np.isnan(self._kinds.scale(row, hits))]
        gap_ms = round(self._spec.gap_hours * HOUR_MS)
        return hits[earliest_episodes(times_ms[hits], gap_ms, self._spec.neighbours)]

    def _similarity(self, row: int, episodes: Rows) -> Cosines:
        name = STATE if self._spec.vector in ("hybrid", "random") else self._spec.vector
        vectors, query = self._points.vectors[name], self._queries.vectors[name][row]
        cosine = np.asarray(np.vecdot(vectors[episodes], query))
        if self._kinds is None or name != STATE:
            return cosine
        overlap = self._kinds.overlap(row)
        # The scale refers to points that lack nothing, with which a query shares all it knows.
        return cosine * self._kinds.scale(row, episodes) / np.float32(np.sqrt(overlap.share[0]))


def _at(products: Cosines, rows: Rows, start: int) -> Cosines:
    """The products of rows, a view where the rows are all that lie between the first and last."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return products[rows[0] - start : rows[-1] + 1 - start]
    return products[rows - start]


def _best(
    products: Cosines,
    candidates: Rows,
    limit: int,
    vectors: Vectors,
    query: Vectors,
    scale: Cosines | None,
) -> Rows:
    """`scale` are the factors of the candidates' cosines, NaN where they cannot be compared."""
    if scale is not None:
        comparable = np.flatnonzero(~np.isnan(scale))
        candidates, scale = candidates[comparable], scale[comparable]
        products = products[comparable] * scale
    shortlist = nearest(products, limit)
    candidates = candidates[shortlist]
    # BLAS rounds by where a row lies; this does not, so equal vectors have equal scores.
    exact = np.vecdot(vectors[candidates], query)
    if scale is not None:
        exact = exact * scale[shortlist]
    return candidates[np.argsort(-exact, kind="stable")[:limit]]


def reweight_features(
    points: PointTable, space: StateSpace, weights: Mapping[str, float]
) -> PointTable:
    """Points of `space` with state vectors as if features had these multiples of their weights.

    Equal to embedding again but for rounding; without weights, the points themselves. Points and
    queries need the same weights. Points that know no feature of a weight above 0 are compared
    with none.
    """
    names = [feature.name for feature in space.features]
    check_feature_weights(weights, names)
    if not weights:
        return points
    multiples = np.array([weights.get(name, 1.0) for name in names])
    if not (multiples * space.weights).any():
        raise InvalidInputError("no feature has a weight above 0: give one of them more than 0")
    vectors = points.vectors[STATE] * np.sqrt(multiples).repeat(2)
    norm = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    np.divide(vectors, norm, out=vectors, where=norm > 0)
    return replace(points, vectors={**points.vectors, STATE: vectors.astype(np.float32)})
