"""What is usual in a window: base rates, and how similar states are to each other.

Base rates cover exactly the window of a query. The similarity reference is made once per UTC day
from the window that was visible at midnight, so it is cheap and the same for all queries of a day.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np

from llm_trader.arrays import Cosines, Floats, Vectors
from llm_trader.index.points import PointTable
from llm_trader.retrieval.statistics import OUTCOME_ROWS, quantiles
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS, STOP_FIRST, TARGET_FIRST
from llm_trader.snapshot.table import any_lacks

QUANTILE_LEVELS: Final = np.array([0.1, 0.25, 0.5, 0.75, 0.9])

# Novelty is judged at the 99th percentile, which 64 states cannot resolve. The first query of a day
# takes 4 ms for 128 states, and 8 ms for 256.
_REFERENCE_STATES: Final = 128
# Percentiles are off by up to 0.9 points; with 64 by 1.2, with 512 hardly less (BTC, SOL 2025/26).
_PAIRS_PER_STATE: Final = 256
_PAIR_LEVELS: Final = np.linspace(0, 1, 1025)  # steps of 0.1 %, kept in 4 KB

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class LruCache(Generic[Key, Result]):
    """The `size` most recently used results, each computed once; it counts hits and misses."""

    def __init__(self, size: int) -> None:
        self.hits = self.misses = 0
        self._size = size
        self._results: OrderedDict[Key, Result] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._results

    def get(self, key: Key, compute: Callable[[], Result]) -> Result:
        if key in self._results:
            self._results.move_to_end(key)
            self.hits += 1
            return self._results[key]
        self.misses += 1
        result = self._results[key] = compute()
        if len(self._results) > self._size:
            self._results.popitem(last=False)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class BaseRates:
    """Statistics of all points of a window, by horizon: `mean`, `p_up` (4,), `quantiles` (4, 5).

    Barriers are of the points that know theirs; NaN without any.
    """

    points: int
    mean: Floats
    p_up: Floats
    quantiles: Floats
    stop_first: float
    target_first: float

    @classmethod
    def of(cls, window: PointTable) -> BaseRates:
        ascending = np.sort(window.values[OUTCOME_ROWS], axis=1)
        return cls.of_quantiles(window, quantiles(ascending, QUANTILE_LEVELS[None]))

    @classmethod
    def of_quantiles(cls, window: PointTable, quantiles: Floats) -> BaseRates:
        """`quantiles` are those of the window's outcomes."""
        outcomes = window.values[OUTCOME_ROWS]
        barrier, n = window.column("first_barrier"), len(window)
        known = int(np.count_nonzero(np.isfinite(barrier))) or np.nan
        return cls(
            n,
            np.add.reduce(outcomes, axis=1) / n,
            np.array([np.count_nonzero(row > 0) / n for row in outcomes]),
            quantiles,
            int(np.count_nonzero(barrier == STOP_FIRST)) / known,
            int(np.count_nonzero(barrier == TARGET_FIRST)) / known,
        )


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityReference:
    """Ascending similarities: `pairs` are quantiles of random pairs of states at even levels,
    `nearest` those of states and their nearest other states.
    """

    pairs: Cosines
    nearest: Cosines

    @classmethod
    def of(
        cls,
        window: PointTable,
        name: str,
        present: Vectors | float,
        present_share: float,
        pair_scales: Floats | None = None,
    ) -> SimilarityReference:
        """Compare the window's vectors called `name` over the features that a query has.

        `present` (dimension,) is 1 where the query's vector has a value and 0 where not;
        `present_share` is its share of the weight. `pair_scales` (kinds, kinds) are factors to the
        similarities of points that lack something. Pairs less than the longest horizon apart are
        left out, as a query's own neighbours are at least that far from it.
        """
        count = _REFERENCE_STATES if len(window) else 0
        chosen = np.unique(np.linspace(0, len(window) - 1, count).astype(np.intp))
        vectors = window.vectors[name]
        states = vectors[chosen] * present / np.float32(present_share)
        similarity = np.matmul(states, vectors.T, dtype=np.float32)
        if pair_scales is not None and any_lacks(window.values):
            kinds = window.lacking()
            # Where nothing is lacking the factor is one over the share, which is in `states`.
            factors = (pair_scales * present_share).astype(np.float32)
            similarity *= factors[kinds[chosen]][:, kinds]
            similarity[np.isnan(similarity)] = -np.inf
        stamps = window.timestamp_ms
        first = np.searchsorted(stamps, stamps[chosen] - LONGEST_HORIZON_MS, side="right")
        last = np.searchsorted(stamps, stamps[chosen] + LONGEST_HORIZON_MS)
        for row, (start, end) in enumerate(zip(first, last, strict=True)):
            similarity[row, start:end] = -np.inf
        nearest = similarity.max(axis=1, initial=-np.inf)
        stride = max(1, len(window) // _PAIRS_PER_STATE)
        pairs = similarity[:, ::stride].ravel()
        pairs = np.sort(pairs[np.isfinite(pairs)])
        if len(pairs):
            pairs = pairs[(_PAIR_LEVELS * (len(pairs) - 1)).astype(np.intp)]
        return cls(pairs, np.sort(nearest[np.isfinite(nearest)]))

    @classmethod
    def of_nothing(cls) -> SimilarityReference:
        """Nothing to compare with, so percentiles and novelty are unknown."""
        return cls(np.empty(0, np.float32), np.empty(0, np.float32))

    def percentiles(self, similarity: Floats) -> list[float] | list[None]:
        """The % of random pairs that are less similar than each value; `None` without pairs."""
        if not len(self.pairs):
            return [None] * len(similarity)
        ranks = np.searchsorted(self.pairs, similarity)
        percentiles: list[float] = (ranks * (100 / len(self.pairs))).tolist()
        return percentiles

    def novelty_percentile(self, nearest_similarity: float) -> float | None:
        """The % of states whose nearest other state is nearer than `nearest_similarity`."""
        n = len(self.nearest)
        if not n:
            return None
        return 100 * (n - int(np.searchsorted(self.nearest, nearest_similarity, "right"))) / n
