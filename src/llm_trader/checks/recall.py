"""How much of what an exact search finds an approximate one finds, on sampled queries."""

from __future__ import annotations

import time

import msgspec
import numpy as np

from llm_trader.arrays import COSINE_ROUNDING
from llm_trader.checks.sampling import Sampling, sample
from llm_trader.errors import InvalidInputError
from llm_trader.index.asof import visible_rows, visible_window
from llm_trader.index.points import STATE
from llm_trader.index.protocol import Hits, SearchQuery, VectorIndex
from llm_trader.progress import Progress, no_progress


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
    sampling: Sampling,
    *,
    name: str = STATE,
    progress: Progress = no_progress,
) -> RecallReport:
    """Compare two ways to search the same points, each query as of its own time.

    Queries are stored states at their own time, so none is in its own window. Raises
    `InvalidInputError` where no state has `k` known ones in its window.
    """
    k, days = sampling.k, sampling.lookback_days
    stamps = await exact.timestamps(symbol)
    first, last = visible_rows(stamps, stamps, days)
    candidates = stamps[last - first >= k]
    if not len(candidates):
        raise InvalidInputError(f"no state of {symbol} has {k} known ones before it")
    chosen = np.sort(sample(candidates, sampling.samples, np.random.default_rng(sampling.seed)))
    queries = await exact.fetch(symbol, chosen, (name,))
    kinds = queries.lacking().tolist()
    scales = {kind: exact.collection.scales(name, kind) for kind in set(kinds)}
    comparisons = []
    for row, stamp in enumerate(queries.timestamp_ms.tolist()):
        vector, window = queries.vectors[name][row], visible_window(stamp, days)
        query = SearchQuery(symbol, window, vector, k, name=name, scales=scales[kinds[row]])
        comparisons.append(await _compare(exact, approximate, query))
        progress(f"{symbol}, {name}", row + 1, len(queries))
    shares, lost, points, exact_s, approximate_s = np.array(comparisons).T
    return RecallReport(
        symbol=symbol,
        name=name,
        k=k,
        lookback_days=days,
        samples=len(comparisons),
        points=int(np.median(points)),
        mean=float(shares.mean()),
        least=float(shares.min()),
        complete=float((shares == 1).mean()),
        lost_cosine=float(lost.max()),
        exact_ms=1000 * float(np.median(exact_s)),
        approximate_ms=1000 * float(np.median(approximate_s)),
    )


async def _compare(
    exact: VectorIndex, approximate: VectorIndex, query: SearchQuery
) -> tuple[float, float, int, float, float]:
    """The share found, the lost cosine, the size of the window, and seconds of both searches."""
    expected, exact_s = await _timed_search(exact, query)
    actual, approximate_s = await _timed_search(approximate, query)
    kth_cosine = expected.cosine[-1]
    found = int(np.count_nonzero(actual.cosine >= kth_cosine - COSINE_ROUNDING))
    share = min(len(expected.rows), found) / len(expected.rows)
    lost = float(kth_cosine - (actual.cosine[-1] if len(actual.cosine) else -1.0))
    return share, max(0.0, lost), expected.eligible, exact_s, approximate_s


async def _timed_search(index: VectorIndex, query: SearchQuery) -> tuple[Hits, float]:
    started = time.perf_counter()
    hits = await index.search(query)
    return hits, time.perf_counter() - started
