"""The seeded random choices of points and queries that a check looks at."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Element = TypeVar("Element", bound=np.generic)


def sample(
    candidates: npt.NDArray[Element], count: int, rng: np.random.Generator
) -> npt.NDArray[Element]:
    """Up to `count` different candidates in random order."""
    chosen: npt.NDArray[Element] = rng.choice(
        candidates, min(count, len(candidates)), replace=False
    )
    return chosen
