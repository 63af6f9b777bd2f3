"""Turns market states into unit vectors whose cosine is a weighted mean over features.

Each standardised feature z becomes an angle θ = (π/2)·tanh z and a block √w·(cos θ, sin θ);
blocks are divided by √Σw. The norm is 1, and the cosine of two vectors is the weighted mean of
cos Δθ over the features.

An unknown feature becomes a zero block, and Σw runs over the known features. Two states are
compared over the features that both know: with f and g as the shares of the weight that each knows,
and c as the share that both know, their similarity is cosine · √(f·g) / c. With a complete state
(g = 1, c = f) that is cosine / √f. For points that lack something the cosine is multiplied by
f·√g / c first, so one ranking holds all points, and the similarity is always cosine / √f.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import msgspec
import numpy as np

from llm_trader.arrays import Cosines, Floats, Mask, Vectors
from llm_trader.embedding.features import (
    FEATURES,
    FLOORED,
    ONE,
    VOLATILITY_FLOOR,
    ZERO,
    Feature,
    Shape,
)
from llm_trader.errors import EmbeddingError
from llm_trader.snapshot.model import LACKING_KINDS, OPTIONAL
from llm_trader.snapshot.table import ROW, SnapshotTable
from llm_trader.timeframe import M5, Timeframe

# A query with a smaller known share of the weight is refused, and a point that has less in common
# with a query is left out: its similarity would be arbitrary.
MIN_PRESENT_SHARE: Final = 0.25

# Most queries know all features, or lack the same few; each is a few hundred bytes.
_OVERLAPS_KEPT: Final = 256

SHAPES: Final[tuple[str, ...]] = get_args(Shape)

_ALGORITHM: Final = "tanh-angle-1"
_TURN_PER_HOUR: Final = 2 * np.pi / 24


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """What a state that knows the features `known` (features,) has in common with points.

    By what these lack, both (kinds,): `share` is the share of the weight that both know; `scale` is
    the factor of the cosine, 1 for points that lack nothing, NaN for too little in common.
    """

    known: Mask
    share: Floats
    scale: Cosines

    @classmethod
    def of(cls, known: Mask, known_by_kind: Mask, weights: Floats) -> Overlap:
        """`known_by_kind` (kinds, features) are what points know."""
        common = _share(known_by_kind & known, weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = _share(known, weights) * np.sqrt(_share(known_by_kind, weights)) / common
        scale[common < MIN_PRESENT_SHARE] = np.nan
        return cls(known, common, scale.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class QueryVector:
    """A state to search for. `vector` has the shape (dimension,) and norm 1.

    Without an `overlap`, as of texts, vectors are compared as they are.
    """

    vector: Vectors
    present_share: float
    features_missing: tuple[str, ...]
    overlap: Overlap | None = None

    @property
    def cosine_per_similarity(self) -> float:
        """√f, the factor from a similarity to the cosine that a backend computes."""
        return float(np.sqrt(self.present_share))


class StateSpace:
    """The vector space of market states at one intraday timeframe.

    `feature_version` names the candles behind the features, such as `v2_3m4h`. `space_id`
    identifies formulas, constants and weights; vectors with different ids never mix.
    """

    def __init__(self, intraday: Timeframe, features: tuple[Feature, ...] = FEATURES) -> None:
        self.intraday = intraday
        self.features = features
        self.dimension = 2 * len(features)
        self.weights = np.array([f.weight for f in features])
        self.feature_version = f"v2_{intraday}4h"
        constants = [_ALGORITHM, str(intraday), VOLATILITY_FLOOR, FLOORED, features]
        self.space_id = f"state-{hashlib.sha256(msgspec.json.encode(constants)).hexdigest()[:12]}"
        # Features of one shape are adjacent, so that few operations on the whole table compute
        # them all; `_order` restores their order.
        grouped = sorted(features, key=lambda f: SHAPES.index(f.shape))
        self._order = np.array([grouped.index(f) for f in features])
        rows = ROW | {ZERO: len(ROW), ONE: len(ROW) + 1}
        self._plus, self._minus, self._over = np.array(
            [[rows[f.plus], rows[f.minus], rows[f.over]] for f in grouped]
        ).T
        self._floored = np.array([ROW[name] for name in FLOORED])
        self.known_by_kind = _known_by_kind(features)
        self.share_by_kind = _share(self.known_by_kind, self.weights)
        self._overlaps: dict[bytes, Overlap] = {}
        shapes = [SHAPES.index(f.shape) for f in grouped]
        self._log, self._sine, self._cosine = (
            slice(bisect_left(shapes, shape), bisect_right(shapes, shape)) for shape in (1, 2, 3)
        )
        length = intraday.ms / M5.ms
        self._centre = np.array([[f.centre] for f in grouped])
        self._scale = np.array([[f.scale * length**f.length_exponent] for f in grouped])

    def standardise(self, table: SnapshotTable) -> Floats:
        """The z of all features, shape (features, n); unknown ones are not finite."""
        if table.intraday != self.intraday:
            raise self._of_other_candles(table)
        return self._standardised(table.scalars)

    def _of_other_candles(self, table: SnapshotTable) -> EmbeddingError:
        return EmbeddingError(
            f"a {table.intraday} snapshot cannot enter the {self.intraday} vector space"
        )

    def _standardised(self, scalars: Floats) -> Floats:
        n = scalars.shape[1]
        fields = np.concatenate([scalars, np.zeros((1, n)), np.ones((1, n))])
        fields[self._floored] = np.maximum(fields[self._floored], VOLATILITY_FLOOR)
        with np.errstate(all="ignore"):  # an overflow is not finite, so it counts as unknown
            value: Floats = (fields[self._plus] - fields[self._minus]) / fields[self._over]
            value[self._log] = np.log(np.maximum(value[self._log], VOLATILITY_FLOOR))
            value[self._sine] = np.sin(value[self._sine] * _TURN_PER_HOUR)
            value[self._cosine] = np.cos(value[self._cosine] * _TURN_PER_HOUR)
            value -= self._centre
            value /= self._scale
        return np.take(value, self._order, axis=0)

    def embed(self, table: SnapshotTable) -> tuple[Vectors, Floats]:
        """Vectors of shape (n, dimension), and the known share of the weight, shape (n,)."""
        return self._vectors(self.standardise(table))

    def embed_query(self, table: SnapshotTable) -> QueryVector:
        """The vector of a one-row table. Raises `EmbeddingError` below `MIN_PRESENT_SHARE`."""
        [result] = self.embed_queries([table])
        if isinstance(result, EmbeddingError):
            raise result
        return result

    def embed_queries(self, tables: Sequence[SnapshotTable]) -> list[QueryVector | EmbeddingError]:
        """The vector of each of some one-row tables, or why it has none."""
        entering = [table.scalars for table in tables if table.intraday == self.intraday]
        results = iter(self._query_vectors(np.concatenate(entering, axis=1)) if entering else [])
        return [
            next(results) if table.intraday == self.intraday else self._of_other_candles(table)
            for table in tables
        ]

    def _query_vectors(self, scalars: Floats) -> list[QueryVector | EmbeddingError]:
        z = self._standardised(scalars)
        vectors, shares = self._vectors(z)
        rows = zip(vectors, shares.tolist(), np.isfinite(z).T.copy(), strict=True)
        return [self._query_vector(*row) for row in rows]

    def _query_vector(
        self, vector: Vectors, share: float, known: Mask
    ) -> QueryVector | EmbeddingError:
        missing = tuple(self.features[i].name for i in np.flatnonzero(~known).tolist())
        if share < MIN_PRESENT_SHARE:
            return EmbeddingError(
                f"the state has too few known fields to be compared: {share:.0%} of the feature "
                f"weight is known, {MIN_PRESENT_SHARE:.0%} is needed; send more fields",
                features_missing=list(missing),
            )
        return QueryVector(vector, share, missing, self._overlap(known))

    def _overlap(self, known: Mask) -> Overlap:
        key = known.tobytes()
        if key not in self._overlaps:
            if len(self._overlaps) == _OVERLAPS_KEPT:
                self._overlaps.clear()
            self._overlaps[key] = Overlap.of(known, self.known_by_kind, self.weights)
        return self._overlaps[key]

    def overlap_of_kind(self, kind: int) -> Overlap:
        """What a stored state that lacks as much has in common with others."""
        return Overlap.of(self.known_by_kind[kind], self.known_by_kind, self.weights)

    def features_missing(self, kind: int) -> tuple[str, ...]:
        """The names of the features that a stored state of this kind lacks."""
        features = zip(self.features, self.known_by_kind[kind].tolist(), strict=True)
        return tuple(feature.name for feature, known in features if not known)

    def pair_scales(self, known: Mask) -> Floats:
        """The factors from cosines over the features `known` to the similarities of two points.

        By what the points lack, (kinds, kinds); NaN where they have too little in common.
        """
        common = _share(self.known_by_kind[:, None] & self.known_by_kind & known, self.weights)
        with np.errstate(divide="ignore"):
            scales = np.sqrt(np.outer(self.share_by_kind, self.share_by_kind)) / common
        return np.where(common < MIN_PRESENT_SHARE, np.nan, scales)

    def _vectors(self, z: Floats) -> tuple[Vectors, Floats]:
        is_known = np.isfinite(z)
        theta = np.pi / 2 * np.tanh(np.where(is_known, z, 0.0))
        weight = is_known * self.weights[:, None]
        # Unlike a sum, a running sum adds in the same order for any number of rows.
        total = weight.cumsum(axis=0)[-1]
        with np.errstate(invalid="ignore"):
            size = np.sqrt(weight / total)
        vectors = np.empty((z.shape[1], self.dimension), np.float32)
        vectors[:, 0::2] = (size * np.cos(theta)).T
        vectors[:, 1::2] = (size * np.sin(theta)).T
        return vectors, total / self.weights.cumsum()[-1]


def _share(features: Mask, weights: Floats) -> Floats:
    """The share of the weight of some features (..., features), added up as for vectors."""
    return np.asarray((features * weights).cumsum(axis=-1)[..., -1] / weights.cumsum()[-1])


def overlaps_by_kind(multiples: Mapping[str, float]) -> list[Overlap]:
    """What stored states that lack as much as each kind have in common with others.

    `multiples` are factors of the weights by the names of features, by default 1.
    """
    known = _known_by_kind(FEATURES)
    weights = np.array([f.weight * multiples.get(f.name, 1.0) for f in FEATURES])
    return [Overlap.of(own, known, weights) for own in known]


def _known_by_kind(features: tuple[Feature, ...]) -> Mask:
    """What points of each kind know, (kinds, features)."""
    return np.array([[_is_known(f, kind) for f in features] for kind in range(LACKING_KINDS)])


def _is_known(feature: Feature, kind: int) -> bool:
    """Whether states that lack as much as `kind` says know a feature."""
    read = {feature.plus, feature.minus, feature.over}
    lacked = [fields for bit, fields in enumerate(OPTIONAL.values()) if kind >> bit & 1]
    return not any(read.intersection(fields) for fields in lacked)
