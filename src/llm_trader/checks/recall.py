"""How much of what an exact search finds an approximate one finds, on sampled queries."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from llm_trader.arrays import COSINE_ROUNDING, Rows, Times
from llm_trader.checks.sampling import sample
from llm_trader.errors import InvalidInputError
from llm_trader.index.asof import visible_rows, visible_window
from llm_trader.index.points import STATE
from llm_trader.index.protocol import Hits, SearchQuery, VectorIndex


class RecallReport(msgspec.Struct, frozen=True, kw_only=True):
    """Over `samples` queries, the share found of the `k` nearest points of the window.

    A point as similar as the last of the exact ones counts as found. `complete` is the share of
    queries that miss nothing; `lost_cosine` the largest loss of similarity at the k-th nearest.
    `points` is the median size of a window. Times are medians of a search.
    """

    symbol: str
    name: str
    k: int
    lookback_days: float
    samples: int
    points: int
    mean: float
    least: float
    complete: float
    lost_cosine: float
    exact_ms: float
    approximate_ms: float


async def recall(
    exact: VectorIndex,
    approximate: VectorIndex,
    symbol: str,
    *,
    lookback_days: float,
    k: int,
    samples: int,
    seed: int,
    name: str = STATE,
    progress: Callable[[], None] = lambda: None,
) -> RecallReport:
    """Compare two ways to search the same points, each query as of its own time.

    Queries are stored states at their own time, so none is in its own window. Raises
    `InvalidInputError` where no state has `k` known ones in its window.
    """
    stamps = await exact.timestamps(symbol)
    candidates = stamps[_window_sizes(stamps, lookback_days) >= k]
    if not len(candidates):
        raise InvalidInputError(f"no state of {symbol} has {k} known ones before it")
    chosen = np.sort(sample(candidates, samples, np.random.default_rng(seed)))
    queries = await exact.fetch(symbol, chosen, (name,))
    comparisons = []
    for row, stamp in enumerate(queries.timestamp_ms.tolist()):
        window = visible_window(stamp, lookback_days)
        query = SearchQuery(symbol, window, queries.vectors[name][row], k, name=name)
        comparisons.append(await _compare(exact, approximate, query))
        progress()
    shares, lost, points, exact_s, approximate_s = np.array(comparisons).T
    return RecallReport(
        symbol=symbol,
        name=name,
        k=k,
        lookback_days=lookback_days,
        samples=len(comparisons),
        points=int(np.median(points)),
        mean=float(shares.mean()),
        least=float(shares.min()),
        complete=float((shares == 1).mean()),
        lost_cosine=float(lost.max()),
        exact_ms=1000 * float(np.median(exact_s)),
        approximate_ms=1000 * float(np.median(approximate_s)),
    )


def _window_sizes(stamps: Times, lookback_days: float) -> Rows:
    """How many points the window of each point's own time has, shape (n,)."""
    first, last = visible_rows(stamps, stamps, lookback_days)
    return last - first


class _Comparison(NamedTuple):
    share: float
    lost_cosine: float
    points: int
    exact_s: float
    approximate_s: float


async def _compare(exact: VectorIndex, approximate: VectorIndex, query: SearchQuery) -> _Comparison:
    expected, exact_s = await _timed_search(exact, query)
    actual, approximate_s = await _timed_search(approximate, query)
    kth_cosine = expected.cosine[-1]
    found_count = int(np.count_nonzero(actual.cosine >= kth_cosine - COSINE_ROUNDING))
    worst_cosine = actual.cosine[-1] if len(actual.cosine) else -1.0
    return _Comparison(
        min(len(expected.rows), found_count) / len(expected.rows),
        max(0.0, float(kth_cosine - worst_cosine)),
        expected.eligible,
        exact_s,
        approximate_s,
    )


async def _timed_search(index: VectorIndex, query: SearchQuery) -> tuple[Hits, float]:
    started = time.perf_counter()
    hits = await index.search(query)
    return hits, time.perf_counter() - started
