"""The seeded random choices of points and queries that a check looks at."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Element = TypeVar("Element", bound=np.generic)


class Sampling(NamedTuple):
    """How many queries of a symbol to sample, each for its `k` nearest within the lookback."""

    k: int
    samples: int
    lookback_days: int
    seed: int


def sample(
    candidates: npt.NDArray[Element], count: int, rng: np.random.Generator
) -> npt.NDArray[Element]:
    """Up to `count` different candidates in random order."""
    size = min(count, len(candidates))
    return np.asarray(rng.choice(candidates, size, replace=False))
