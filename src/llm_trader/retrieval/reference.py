"""What is usual in a window: base rates, and how similar states are to each other.

Base rates are those of the very window a query sees. The similarity reference is made once for
each UTC day, from the window as it was visible at that day's midnight: known by then, the same for
every query of the day, and cheap.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats
from llm_trader.index.points import PointTable
from llm_trader.retrieval.statistics import OUTCOME_ROWS, quantiles
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS, STOP_FIRST, TARGET_FIRST

QUANTILE_LEVELS: Final = np.array([0.1, 0.25, 0.5, 0.75, 0.9])

_REFERENCE_STATES: Final = 128
_PAIRS_PER_STATE: Final = 256
_PAIR_LEVELS: Final = np.linspace(0, 1, 1025)
_LEAST_TO_CODE: Final = 1000
_LEAST_SPREAD: Final = 1e-300
_NEAR: Final = 24

Key = TypeVar("Key", bound=Hashable)
Made = TypeVar("Made")


class LastUsed(Generic[Key, Made]):
    """The `size` most recently used results, each made once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._made: OrderedDict[Key, Made] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._made

    def get(self, key: Key, make: Callable[[], Made]) -> Made:
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        made = self._made[key] = make()
        if len(self._made) > self._size:
            self._made.popitem(last=False)
        return made


@dataclass(frozen=True, slots=True, eq=False)
class BaseRates:
    """Of all points of a window. Arrays by horizon: `mean` and `p_up` (4,), `quantiles` (4, 5)."""

    points: int
    mean: Floats
    p_up: Floats
    quantiles: Floats
    stop_first: float
    target_first: float

    @classmethod
    def of(cls, window: PointTable) -> BaseRates:
        """The base rates of a window of at least one point."""
        outcomes = window.values[OUTCOME_ROWS]
        barrier, n = window.column("first_barrier"), len(window)
        return cls(
            n,
            np.add.reduce(outcomes, axis=1) / n,
            np.array([np.count_nonzero(row > 0) / n for row in outcomes]),
            base_quantiles(outcomes),
            int(np.count_nonzero(barrier == STOP_FIRST)) / n,
            int(np.count_nonzero(barrier == TARGET_FIRST)) / n,
        )


def base_quantiles(outcomes: Floats) -> Floats:
    """Quantiles at `QUANTILE_LEVELS` of the rows, linear interpolation, shape (rows, levels).

    A window has thousands of points, and sorting them would be half of a query's work. So they
    are sorted by a 16-bit code that rises with the value, and only the few next to each quantile
    are sorted by value: exact where no other point shares their codes, which is looked at.
    """
    n = outcomes.shape[1]
    if n < _LEAST_TO_CODE:
        return quantiles(np.sort(outcomes, axis=1), QUANTILE_LEVELS[None])
    low, high = outcomes.min(axis=1, keepdims=True), outcomes.max(axis=1, keepdims=True)
    spread = high - low
    step = 65535 / np.where(spread > _LEAST_SPREAD, spread, np.inf)  # equal values: one code
    code = ((outcomes - low) * step).astype(np.uint16)
    order = code.argsort(axis=1, kind="stable")  # a radix sort for 16 bits
    position = QUANTILE_LEVELS * (n - 1)
    below = position.astype(np.intp)
    near = order[:, below[:, None] + np.arange(-_NEAR, _NEAR + 2)]
    rows = np.arange(len(outcomes))[:, None, None]
    codes, values = code[rows, near], np.sort(outcomes[rows, near], axis=2)
    complete = (codes[..., 0] < codes[..., _NEAR]) & (codes[..., -1] > codes[..., _NEAR + 1])
    if not complete.all():  # values crowd around a quantile, as in a dead market
        return quantiles(np.sort(outcomes, axis=1), QUANTILE_LEVELS[None])
    at, above = values[..., _NEAR], values[..., _NEAR + 1]
    between: Floats = at + (above - at) * (position - below)
    return between


@dataclass(frozen=True, slots=True, eq=False)
class SimilarityReference:
    """Ascending similarities: of random pairs of states, as quantiles at even levels, and of
    states to their nearest others.
    """

    pairs: npt.NDArray[np.float32]
    nearest: npt.NDArray[np.float32]

    @classmethod
    def of(
        cls,
        window: PointTable,
        name: str,
        known: npt.NDArray[np.float32] | float = 1.0,
        present_share: float = 1.0,
    ) -> SimilarityReference:
        """Of a window's vectors of a name, over the features that a query knows.

        `known` (dimension,) is 1 where the query's vector has a value and 0 where not;
        `present_share` is its share of the weight. Pairs less than the longest horizon apart
        are left out, as a query's own neighbours are at least that far from it.
        """
        chosen = np.unique(np.linspace(0, len(window) - 1, _REFERENCE_STATES).astype(np.intp))
        if not len(window):
            chosen = chosen[:0]
        vectors = window.vectors[name]
        states = vectors[chosen] * known / np.float32(present_share)
        similarity = np.matmul(states, vectors.T, dtype=np.float32)
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
        """Where there is nothing to compare with: percentiles and novelty are unknown."""
        return cls(np.empty(0, np.float32), np.empty(0, np.float32))

    def percentiles(self, similarity: Floats) -> list[float] | list[None]:
        """The % of random pairs that are less similar than each; `None` without pairs."""
        if not len(self.pairs):
            return [None] * len(similarity)
        ranks = np.searchsorted(self.pairs, similarity)
        percentiles: list[float] = (ranks * (100 / len(self.pairs))).tolist()
        return percentiles

    def novelty_percentile(self, nearest_similarity: float) -> float | None:
        """The % of states whose nearest other state is nearer than that."""
        n = len(self.nearest)
        if not n:
            return None
        return 100 * (n - int(np.searchsorted(self.nearest, nearest_similarity, "right"))) / n
