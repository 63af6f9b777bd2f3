"""How the state and the text vectors of one index compare, measured on its own points.

1. The similarity of random pairs shows where a threshold could lie at all.
2. The rank correlation of similarity with the distance of the features (Spearman, over random
   pairs) shows how much of what is similar in numbers is similar in vectors.
3. The nearest states of sampled queries, each under the as-of rule, show how many both vectors
   find, and how far their features are, beside all states of the window.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec
import numpy as np

from llm_trader.arrays import Cosines, Floats, Rows
from llm_trader.checks.sampling import Sampling, sample
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.index.asof import Window, visible_window
from llm_trader.index.points import STATE, TEXT, PointTable
from llm_trader.index.protocol import SearchQuery, VectorIndex
from llm_trader.progress import Progress, no_progress
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import MAX_TIME_MS

PAIR_LEVELS: Final = (0.0, 0.01, 0.5, 0.99, 1.0)

_PAIRS: Final = 20_000  # 200 of them lie beyond the outer levels; half leaves 100
_LEAST_POINTS: Final = 1000  # ten days; in five, a third of the pairs share an outcome's path


class SpaceComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One vector space. `pair_similarity` holds quantiles of random pairs at `PAIR_LEVELS`."""

    vector: str
    space_id: str
    pair_similarity: list[float]
    rank_correlation: float
    nearest_similarity: float
    nearest_feature_distance: float


class VectorComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`shared_nearest` is the mean share of the nearest k that both vectors find, `by_chance` the
    share of two random choices. Feature distances are root mean squares of z.
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
    index: VectorIndex, symbol: str, sampling: Sampling, progress: Progress = no_progress
) -> VectorComparison:
    """Compare on random pairs and on sampled queries of a symbol.

    Queries with fewer than `k` states in their window are left out. Raises `InvalidInputError`
    for an index without text vectors, or too small to say anything.
    """
    index.collection.check_searchable(TEXT)
    points = await index.scan(symbol, Window(0, MAX_TIME_MS), (STATE, TEXT))
    if len(points) < _LEAST_POINTS:
        raise InvalidInputError(f"{len(points)} states of {symbol}; {_LEAST_POINTS} are needed")
    space = index.collection.state_space()
    features = _features(points, space)
    rng = np.random.default_rng(sampling.seed)
    pairs = _pairs(points, rng)
    rows = _query_rows(points, sampling, rng).tolist()
    queries = []
    for done, row in enumerate(rows, start=1):
        if query := await _compare_nearest(index, points, features, row, sampling):
            queries.append(query)
        progress(symbol, done, len(rows))
        await asyncio.sleep(0)  # Ctrl-C takes effect only where the event loop gets its turn
    k, days = sampling.k, sampling.lookback_days
    if not queries:
        raise InvalidInputError(
            f"no sampled query of {symbol} has {k} states in {days} days to choose among; take a "
            "smaller --k, or a longer --lookback-days"
        )
    pair_distances = _distances(features[pairs[0]], features[pairs[1]])
    kinds = points.lacking()
    everything = np.ones(len(space.features), np.bool_)
    scales = space.pair_scales(everything)[kinds[pairs[0]], kinds[pairs[1]]]
    pair_similarity = {
        name: np.vecdot(vectors[pairs[0]], vectors[pairs[1]])
        for name, vectors in points.vectors.items()
    }
    pair_similarity[STATE] = (pair_similarity[STATE] * scales).astype(np.float32)
    ids = {STATE: index.collection.state_space_id, TEXT: str(index.collection.text_space_id)}
    return VectorComparison(
        symbol=symbol,
        points=len(points),
        queries=len(queries),
        k=k,
        lookback_days=days,
        shared_nearest=float(np.mean([query.shared for query in queries])),
        by_chance=float(np.mean([query.by_chance for query in queries])),
        usual_feature_distance=float(np.mean(pair_distances)),
        spaces=[
            _compare_space(pair_similarity[name], name, space_id, pair_distances, queries)
            for name, space_id in ids.items()
        ],
    )


class _NearestOfQuery(NamedTuple):
    """Shares of the k nearest, and by vector name the means over what it found."""

    shared: float
    by_chance: float
    similarity: dict[str, float]
    distance: dict[str, float]


async def _compare_nearest(
    index: VectorIndex, points: PointTable, features: Floats, row: int, sampling: Sampling
) -> _NearestOfQuery | None:
    """What both vectors find for the state in `row`; None where its window has fewer than k."""
    k, kind = sampling.k, int(points.lacking()[row])
    known_share = index.collection.state_space().share_by_kind[kind]
    window = visible_window(int(points.timestamp_ms[row]), sampling.lookback_days)
    found, similarity, distance = {}, {}, {}
    for name in (STATE, TEXT):
        vector, scales = points.vectors[name][row], index.collection.scales(name, kind)
        query = SearchQuery(points.symbol, window, vector, k, name=name, scales=scales)
        hits = await index.search(query)
        if hits.eligible < k:
            return None
        rows = np.searchsorted(points.timestamp_ms, hits.points.timestamp_ms[hits.rows])
        found[name] = rows
        similarity[name] = float(hits.cosine.mean() / np.sqrt(known_share if name == STATE else 1))
        distance[name] = float(_distances(features[row], features[rows]).mean())
    shared = len(np.intersect1d(found[STATE], found[TEXT])) / k
    return _NearestOfQuery(shared, k / hits.eligible, similarity, distance)


def _compare_space(
    similarity: Cosines,
    name: str,
    space_id: str,
    pair_distances: Floats,
    queries: list[_NearestOfQuery],
) -> SpaceComparison:
    ranks = [np.argsort(np.argsort(v, kind="stable")) for v in (similarity, -pair_distances)]
    correlations = np.asarray(np.corrcoef(ranks))
    return SpaceComparison(
        vector=name,
        space_id=space_id,
        pair_similarity=np.quantile(similarity, PAIR_LEVELS).tolist(),
        rank_correlation=float(correlations[0, 1]),
        nearest_similarity=float(np.mean([query.similarity[name] for query in queries])),
        nearest_feature_distance=float(np.mean([query.distance[name] for query in queries])),
    )


def _features(points: PointTable, space: StateSpace) -> Floats:
    """Standardised features, shape (n, features); NaN where unknown."""
    table = SnapshotTable.unknown(points.symbol, space.intraday, points.timestamp_ms)
    states = replace(table, scalars=points.values[: len(SCALARS)])
    return np.ascontiguousarray(space.standardise(states).T)


def _pairs(points: PointTable, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows of random pairs that share no outcome's path."""
    first_rows, second_rows = rng.integers(0, len(points), (2, _PAIRS))
    distance_ms = np.abs(points.timestamp_ms[first_rows] - points.timestamp_ms[second_rows])
    separate = distance_ms >= LONGEST_HORIZON_MS
    return first_rows[separate], second_rows[separate]


def _query_rows(points: PointTable, sampling: Sampling, rng: np.random.Generator) -> Rows:
    """Random rows with a whole lookback before them, or of the later half where there is none."""
    stamps = points.timestamp_ms
    first_ms = visible_window(int(stamps[0]), -sampling.lookback_days).earliest_timestamp_ms
    start = min(int(np.searchsorted(stamps, first_ms)), len(stamps) // 2)
    return sample(np.arange(start, len(stamps)), sampling.samples, rng)


def _distances(first: Floats, second: Floats) -> Floats:
    """Root mean squares of the differences of the features that both know."""
    return np.asarray(np.sqrt(np.nanmean(np.square(first - second), axis=1)))
