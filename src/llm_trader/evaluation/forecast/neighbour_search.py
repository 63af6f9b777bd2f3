"""Neighbours of many queries at once, each under the as-of rule: what the server would have found.

Queries of one day see nearly the same window, so their products with it are one matrix product.
What is found, and in which order, is what `Retriever` finds (a test holds them equal): the same
window, the same filters, the same scores, the same episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Cosines, Rows, Vectors
from llm_trader.embedding.features import FEATURES
from llm_trader.evaluation.forecast.feature_weights import check_multiples
from llm_trader.index.asof import visible_rows
from llm_trader.index.memory import admitted
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.retrieval.episodes import HITS_PER_EPISODE, MORE_HITS, earliest_episodes
from llm_trader.retrieval.fusion import fuse_by_rank
from llm_trader.retrieval.regime import regime_ranges
from llm_trader.retrieval.search_spec import EpisodeSearch
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import HOUR_MS, Timeframe

Vector = Literal["state", "text", "hybrid", "random"]

_BLOCK: Final = 96


class Search(EpisodeSearch, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The server's search with its defaults, and what only an evaluation tries.

    `feature_weights` are multiples of the features' usual weights, by name. They are in the
    vectors: who looks for neighbours gives points and queries that are `reweighted` by them.
    """

    vector: Vector = "state"  # type: ignore[assignment]  # a server never searches at random
    lookback_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 90
    # Plans and results call it `episodes`.
    evidence_k: Annotated[int, msgspec.Meta(ge=2, le=500)] = msgspec.field(
        default=50, name="episodes"
    )
    embargo_hours: Annotated[float, msgspec.Meta(ge=0, le=720)] = 0.0
    feature_weights: dict[str, float] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_multiples(self.feature_weights, [feature.name for feature in FEATURES])


class Neighbours(NamedTuple):
    """Of n queries: `rows` (n, episodes) of the points, nearest first, -1 where there are fewer;
    `similarity` (n, episodes), NaN there; each query's window is the rows [`first`, `last`), (n,).
    """

    rows: Rows
    similarity: Cosines
    first: Rows
    last: Rows

    def take(self, row: int) -> Neighbours:
        """Of one query."""
        one = slice(row, row + 1)
        return Neighbours(self.rows[one], self.similarity[one], self.first[one], self.last[one])

    def share(self, happened: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """The share of the points of each window for which something holds, shape (n,); NaN for an
        empty one. `happened` (points,).
        """
        counts = np.concatenate([[0], np.cumsum(happened)])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((counts[self.last] - counts[self.first]) / (self.last - self.first))

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Which queries found all the episodes they wanted, shape (n,)."""
        return np.asarray((self.rows >= 0).all(axis=1))


class Counted:
    """Tells how much is done, and of how much, to whoever is told how much more is."""

    def __init__(self, told: Callable[[int, int], None], total: int) -> None:
        self._told, self._total, self._done = told, total, 0

    def __call__(self, more: int) -> None:
        self._done += more
        self._told(self._done, self._total)


def find_neighbours(
    points: PointTable,
    queries: PointTable,
    search: Search,
    *,
    intraday: Timeframe,
    seed: int = 0,
    progress: Callable[[int], None] = lambda more: None,
) -> Neighbours:
    """The nearest episodes of each query among the points that it may see.

    Queries are states with their vectors, in the order of time; their outcomes are not looked at.
    `progress` is told how many more queries are done.
    """
    embargo_ms = round(search.embargo_hours * HOUR_MS)
    first, last = visible_rows(
        points.timestamp_ms, queries.timestamp_ms, search.lookback_days, embargo_ms
    )
    n = len(queries)
    rows = np.full((n, search.evidence_k), -1, np.intp)
    similarity = np.full((n, search.evidence_k), np.nan, np.float32)
    finder = _Finder(points, queries, search, intraday, first, last, seed)
    for start in range(0, n, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n))
        for row, (found, cosine) in zip(block, finder.look(block), strict=True):
            rows[row, : len(found)] = found
            similarity[row, : len(found)] = cosine
        progress(len(block))
    return Neighbours(rows, similarity, first, last)


class _Finder:
    """Looks for the neighbours of a block of queries."""

    def __init__(
        self,
        points: PointTable,
        queries: PointTable,
        search: Search,
        intraday: Timeframe,
        first: Rows,
        last: Rows,
        seed: int,
    ) -> None:
        self._points, self._queries, self._search = points, queries, search
        self._intraday, self._first, self._last, self._seed = intraday, first, last, seed
        self._gap_ms = round(search.min_gap_hours * HOUR_MS)
        self._names = (STATE, TEXT) if search.vector == "hybrid" else (search.vector,)

    def look(self, block: Rows) -> Iterator[tuple[Rows, Cosines]]:
        """Rows and similarities of each query's episodes."""
        inside = [self._inside(int(row)) for row in block]
        limit = HITS_PER_EPISODE * self._search.evidence_k
        lists = [self._nearest(block, name, inside, limit) for name in self._names]
        for i, row in enumerate(block.tolist()):
            hits = [of[i] for of in lists]
            found, enough = self._episodes(row, hits), min(len(inside[i]), limit)
            while len(found) < self._search.evidence_k and enough < len(inside[i]):
                enough = min(MORE_HITS * enough, len(inside[i]))
                alone = np.array([row])
                hits = [self._nearest(alone, name, [inside[i]], enough)[0] for name in self._names]
                found = self._episodes(row, hits)
            yield found, self._similarity(row, found)

    def _inside(self, row: int) -> Rows:
        """Rows of the points that pass a query's window and filters."""
        first, last = int(self._first[row]), int(self._last[row])
        if not self._search.include_regime_filters:
            return np.arange(first, last)
        state = SnapshotTable.of_fields(
            self._queries.symbol,
            self._intraday,
            int(self._queries.timestamp_ms[row]),
            {n: self._queries.column(n)[row] for n in ("oi_delta_pct", "funding_rate")},
        )
        ranges = tuple(regime_ranges(state).values())
        window = self._points.take(slice(first, last))
        return first + np.flatnonzero(admitted(window, ranges))

    def _nearest(self, block: Rows, name: str, inside: list[Rows], limit: int) -> list[Rows]:
        """Of each query, up to `limit` rows, nearest first; of equal ones the oldest."""
        if name == "random":
            return [self._drawn(int(row), of, limit) for row, of in zip(block, inside, strict=True)]
        vectors, asked = self._points.vectors[name], self._queries.vectors[name][block]
        start = min((int(of[0]) for of in inside if len(of)), default=0)
        end = max((int(of[-1]) + 1 for of in inside if len(of)), default=0)
        product = asked @ vectors[start:end].T
        return [
            _best(product[i], of, start, limit, vectors, asked[i]) for i, of in enumerate(inside)
        ]

    def _drawn(self, row: int, inside: Rows, limit: int) -> Rows:
        chances = np.random.default_rng([self._seed, int(self._queries.timestamp_ms[row])])
        if len(inside) <= 4 * limit:
            return inside[chances.permutation(len(inside))[:limit]]
        # Drawn with repetition and each kept once: far cheaper than a permutation of all.
        drawn = chances.integers(0, len(inside), 2 * limit)
        once = np.sort(np.unique(drawn, return_index=True)[1])
        return inside[drawn[once][:limit]]

    def _episodes(self, row: int, lists: list[Rows]) -> Rows:
        hits = lists[0]
        stamps = self._points.timestamp_ms
        if len(lists) > 1:
            hits = np.searchsorted(stamps, fuse_by_rank([stamps[of] for of in lists]))
        return hits[earliest_episodes(stamps[hits], self._gap_ms, self._search.evidence_k)]

    def _similarity(self, row: int, found: Rows) -> Cosines:
        name = STATE if self._search.vector in ("hybrid", "random") else self._search.vector
        cosine: Cosines = np.vecdot(
            self._points.vectors[name][found], self._queries.vectors[name][row]
        )
        return cosine


def _best(
    product: Cosines, inside: Rows, start: int, limit: int, vectors: Vectors, asked: Vectors
) -> Rows:
    among = product[inside - start]
    if limit < len(among):
        least = np.partition(among, len(among) - limit)[len(among) - limit]
        inside = inside[among >= least - COSINE_ROUNDING]
    # BLAS rounds by where a row lies; this does not, so equal vectors have equal scores.
    exact = np.vecdot(vectors[inside], asked)
    return inside[np.argsort(-exact, kind="stable")[:limit]]
