"""How much an approximate search finds of what an exact one finds, on sampled queries."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import COSINE_ROUNDING, Times
from llm_trader.checks.sampling import sample
from llm_trader.errors import InvalidInputError
from llm_trader.index.asof import visible_window
from llm_trader.index.points import STATE, PointTable
from llm_trader.index.protocol import SearchQuery, VectorIndex
from llm_trader.snapshot.outcome import resolved_at


class RecallReport(msgspec.Struct, frozen=True, kw_only=True):
    """Over `samples` queries, the share found of the `k` nearest points of the window.

    A point as similar as the last of the exact ones counts as found. `complete` is the share of
    queries of which nothing is missing; `lost_cosine` the most that the k-th nearest is less
    similar than it should be. Times are medians of a search.
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

    Queries are stored states, asked for at their own time, so none is in its own window.
    `points` of the report is the median size of a window. Raises `InvalidInputError` where no
    state has `k` known ones in its window.
    """
    asked = await _asked(exact, symbol, name, lookback_days, k, samples, seed)
    told = []
    for row, stamp in enumerate(asked.timestamp_ms.tolist()):
        window = visible_window(stamp, lookback_days)
        query = SearchQuery(symbol, window, asked.vectors[name][row], k, name=name)
        told.append(await _compared(exact, approximate, query))
        progress()
    shares, lost, points, exact_s, approximate_s = np.array(told).T
    return RecallReport(
        symbol=symbol,
        name=name,
        k=k,
        lookback_days=lookback_days,
        samples=len(told),
        points=int(np.median(points)),
        mean=float(shares.mean()),
        least=float(shares.min()),
        complete=float((shares == 1).mean()),
        lost_cosine=float(lost.max()),
        exact_ms=1000 * float(np.median(exact_s)),
        approximate_ms=1000 * float(np.median(approximate_s)),
    )


async def _asked(
    index: VectorIndex,
    symbol: str,
    name: str,
    lookback_days: float,
    k: int,
    samples: int,
    seed: int,
) -> PointTable:
    """Sampled points that have at least `k` others in their windows, with their vectors."""
    stamps = await index.timestamps(symbol)
    enough = stamps[_sizes(stamps, lookback_days) >= k]
    if not len(enough):
        raise InvalidInputError(f"no state of {symbol} has {k} known ones before it")
    rng = np.random.default_rng(seed)
    return await index.fetch(symbol, np.sort(sample(enough, samples, rng)), (name,))


def _sizes(stamps: Times, lookback_days: float) -> npt.NDArray[np.intp]:
    """How many points each point's own window has, shape (n,)."""
    earliest_ms = visible_window(0, lookback_days).earliest_timestamp_ms
    first = np.searchsorted(stamps, stamps + earliest_ms)
    known = np.searchsorted(resolved_at(stamps), stamps, side="right")
    sizes: npt.NDArray[np.intp] = np.maximum(known - first, 0)
    return sizes


class _Compared(NamedTuple):
    share: float
    lost_cosine: float
    points: int
    exact_s: float
    approximate_s: float


async def _compared(exact: VectorIndex, approximate: VectorIndex, query: SearchQuery) -> _Compared:
    """The share that was found, and how much less similar the last one is."""
    begun = time.perf_counter()
    wanted = await exact.search(query)
    between = time.perf_counter()
    given = await approximate.search(query)
    ended = time.perf_counter()
    last = wanted.cosine[-1]
    alike = min(len(wanted.rows), int(np.count_nonzero(given.cosine >= last - COSINE_ROUNDING)))
    worst = given.cosine[-1] if len(given.cosine) else -1.0
    return _Compared(
        alike / len(wanted.rows),
        max(0.0, float(last - worst)),
        wanted.eligible,
        between - begun,
        ended - between,
    )
