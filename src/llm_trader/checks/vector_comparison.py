"""How the state and the text vectors of one index compare, measured on its own points.

1. similarity of random pairs: where a threshold could lie at all;
2. rank correlation of similarity with the distance of the features: how much of what is alike in
   numbers is alike in vectors (Spearman, over random pairs);
3. the nearest states of sampled queries, each under the as-of rule: how many both vectors find,
   and how far their features are, beside all states of the window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.checks.sampling import sample
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.index.asof import Window, visible_window
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.index.protocol import SearchQuery, VectorIndex
from llm_trader.snapshot.model import SCALARS, SERIES, SERIES_LENGTH
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import MAX_TIME_MS

PAIR_LEVELS = (0.0, 0.01, 0.5, 0.99, 1.0)


_PAIRS = 20_000
_LEAST_POINTS = 1000


class SpaceComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Of one vector space. `pair_similarity` are quantiles at `PAIR_LEVELS` of random pairs."""

    vector: str
    space_id: str
    pair_similarity: list[float]
    rank_correlation: float
    nearest_similarity: float
    nearest_feature_distance: float


class VectorComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`shared_nearest` is the mean share of the nearest k that both vectors find; `by_chance`
    what two random choices would share; feature distances are root mean squares of z.
    """

    symbol: str
    points: int
    queries: int
    k: int
    lookback_days: int
    shared_nearest: float
    by_chance: float
    usual_feature_distance: float
    spaces: list[SpaceComparison]


async def compare_vectors(
    index: VectorIndex,
    space: StateSpace,
    symbol: str,
    *,
    samples: int,
    k: int,
    lookback_days: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> VectorComparison:
    """Compare on random pairs and on `samples` queries of a symbol.

    Queries with fewer than `k` states in their window are left out. Raises `InvalidInputError`
    for an index without text vectors, or too small to say anything.
    """
    index.collection.check_searchable(TEXT)
    points = await index.scan(symbol, Window(0, MAX_TIME_MS), (STATE, TEXT))
    if len(points) < _LEAST_POINTS:
        raise InvalidInputError(f"{len(points)} states of {symbol}; {_LEAST_POINTS} are needed")
    features = _features(points, space)
    chances = np.random.default_rng(seed)
    pairs = _pairs(points, chances)
    near = _Nearest(index, points, features, k, lookback_days)
    for row in _query_rows(points, samples, lookback_days, chances):
        await near.look(int(row))
        progress()
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    if not near.shared:
        raise InvalidInputError(
            f"no sampled query of {symbol} has {k} states in {lookback_days} days to choose among; "
            "take a smaller --k, or a longer --lookback-days"
        )
    distance = _distance(features, *pairs)
    ids = {STATE: index.collection.state_space_id, TEXT: str(index.collection.text_space_id)}
    return VectorComparison(
        symbol=symbol,
        points=len(points),
        queries=len(near.shared),
        k=k,
        lookback_days=lookback_days,
        shared_nearest=float(np.mean(near.shared)),
        by_chance=float(np.mean(near.by_chance)),
        usual_feature_distance=float(np.mean(distance)),
        spaces=[
            _of_space(points, name, ids[name], pairs, distance, near) for name in (STATE, TEXT)
        ],
    )


class _Nearest:
    """What both vectors find for sampled queries."""

    def __init__(
        self, index: VectorIndex, points: PointTable, features: Floats, k: int, lookback_days: int
    ) -> None:
        self._index, self._points, self._features = index, points, features
        self._k, self._lookback_days = k, lookback_days
        self.shared: list[float] = []
        self.by_chance: list[float] = []
        self.similarity: dict[str, list[float]] = {STATE: [], TEXT: []}
        self.distance: dict[str, list[float]] = {STATE: [], TEXT: []}

    async def look(self, row: int) -> None:
        points = self._points
        found: list[Rows] = []
        window = visible_window(int(points.timestamp_ms[row]), self._lookback_days)
        for name in (STATE, TEXT):
            vector = points.vectors[name][row]
            query = SearchQuery(points.symbol, window, vector, self._k, name=name)
            hits = await self._index.search(query)
            if hits.eligible < self._k:
                return
            stamps = hits.points.timestamp_ms[hits.rows]
            rows = np.searchsorted(points.timestamp_ms, stamps)
            found.append(rows)
            self.similarity[name].append(float(hits.cosine.mean()))
            apart = _distance(self._features, np.full(len(rows), row), rows)
            self.distance[name].append(float(apart.mean()))
        self.shared.append(len(np.intersect1d(found[0], found[1])) / self._k)
        self.by_chance.append(self._k / hits.eligible)


def _of_space(
    points: PointTable,
    name: str,
    space_id: str,
    pairs: tuple[Rows, Rows],
    distance: Floats,
    near: _Nearest,
) -> SpaceComparison:
    vectors = points.vectors[name]
    similarity = np.vecdot(vectors[pairs[0]], vectors[pairs[1]])
    return SpaceComparison(
        vector=name,
        space_id=space_id,
        pair_similarity=np.quantile(similarity, PAIR_LEVELS).tolist(),
        rank_correlation=float(np.corrcoef(_ranks(similarity), _ranks(-distance))[0, 1]),
        nearest_similarity=float(np.mean(near.similarity[name])),
        nearest_feature_distance=float(np.mean(near.distance[name])),
    )


def _features(points: PointTable, space: StateSpace) -> Floats:
    """Standardised features, shape (n, features)."""
    n = len(points)
    series = np.full((len(SERIES), n, SERIES_LENGTH), np.nan)
    scalars = points.values[: len(SCALARS)]
    table = SnapshotTable(points.symbol, space.intraday, points.timestamp_ms, scalars, series)
    return np.ascontiguousarray(space.standardise(table).T)


def _pairs(points: PointTable, chances: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of random pairs that share no outcome's path."""
    one, other = chances.integers(0, len(points), (2, _PAIRS))
    apart = np.abs(points.timestamp_ms[one] - points.timestamp_ms[other]) >= LONGEST_HORIZON_MS
    return one[apart], other[apart]


def _query_rows(
    points: PointTable, samples: int, lookback_days: int, chances: np.random.Generator
) -> Rows:
    """Random rows with a whole lookback before them, or in the later half where there is none."""
    stamps = points.timestamp_ms
    first = visible_window(int(stamps[0]), -lookback_days).earliest_timestamp_ms
    start = min(int(np.searchsorted(stamps, first)), len(stamps) // 2)
    return sample(np.arange(start, len(stamps)), samples, chances)


def _distance(features: Floats, one: Rows, other: Rows) -> Floats:
    apart: Floats = np.sqrt(np.square(features[one] - features[other]).mean(axis=1))
    return apart


def _ranks(values: Floats) -> Floats:
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks
