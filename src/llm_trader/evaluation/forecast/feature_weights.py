"""Points as if their states had been embedded with other weights of the features.

A state's vector holds a block for each feature, √w·(cos θ, sin θ)/√Σw, so another weight is a
block made longer or shorter: no snapshot has to be built again to try one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import isfinite

import numpy as np

from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.index.points import STATE, PointTable


def check_multiples(weights: Mapping[str, float], known: Collection[str]) -> None:
    """Raises `InvalidInputError` unless weights of known features are finite and not negative."""
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise InvalidInputError(
            f"there is no feature {', '.join(unknown)}; known: {', '.join(known)}"
        )
    for name, weight in weights.items():
        if not (isfinite(weight) and weight >= 0):
            raise InvalidInputError(
                f"a weight of {weight} for the feature {name}: take 0 or more; known features: "
                + ", ".join(known)
            )


def reweighted(points: PointTable, space: StateSpace, weights: Mapping[str, float]) -> PointTable:
    """Points of `space` with state vectors as if features had these multiples of their weights.

    Equal to embedding anew but for rounding; with no weights, the points themselves. Points and
    queries are to be reweighted alike.
    """
    names = [feature.name for feature in space.features]
    check_multiples(weights, names)
    if not weights:
        return points
    multiples = np.array([weights.get(name, 1.0) for name in names])
    if not (multiples * space.weights).any():
        raise InvalidInputError("no feature is left with a weight: give one of them more than 0")
    vectors = points.vectors[STATE] * np.sqrt(multiples).repeat(2)
    vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return replace(points, vectors={**points.vectors, STATE: vectors.astype(np.float32)})
