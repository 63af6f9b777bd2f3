"""Points as if their states had been embedded with other weights of the features.

A state's vector holds a block √w·(cos θ, sin θ)/√Σw for each feature, so another weight only
scales a block: no snapshot has to be built again to try one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.plan import check_feature_weights
from llm_trader.index.points import STATE, PointTable


def reweight_features(
    points: PointTable, space: StateSpace, weights: Mapping[str, float]
) -> PointTable:
    """Points of `space` with state vectors as if features had these multiples of their weights.

    Equal to embedding again but for rounding; without weights, the points themselves. Points and
    queries need the same weights.
    """
    names = [feature.name for feature in space.features]
    check_feature_weights(weights, names)
    if not weights:
        return points
    multiples = np.array([weights.get(name, 1.0) for name in names])
    if not (multiples * space.weights).any():
        raise InvalidInputError("no feature has a weight above 0: give one of them more than 0")
    vectors = points.vectors[STATE] * np.sqrt(multiples).repeat(2)
    vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return replace(points, vectors={**points.vectors, STATE: vectors.astype(np.float32)})
