"""The scores of an ensemble of any weights, one by one: what the quick ways are held against."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from llm_trader.arrays import Floats


def crps(ensemble: Floats, observed: Floats, weights: Floats | None = None) -> Floats:
    """The fair continuous ranked probability score of ensembles, shape (n,), in their unit.

    `ensemble` (n, k), `observed` (n,), `weights` (n, k) not negative, in any scale. Fair: the
    expected score is that of the distribution the members were drawn from, however few they are,

        Σᵢ |xᵢ − y| / k  −  Σᵢⱼ |xᵢ − xⱼ| / (2 k (k − 1))          (Ferro 2014)

    With weights w that sum to 1 and do not depend on the members, the mean of |xᵢ − xⱼ| is over
    pairs of two different members, which have 1 − Σ w² of the weight; with Kish's effective count
    m = 1 / Σ w² that divides the plain second term by (m − 1) / m:

        Σᵢ wᵢ |xᵢ − y|  −  Σᵢⱼ wᵢ wⱼ |xᵢ − xⱼ| / (2 (1 − Σ w²))

    NaN where a member is NaN, of whatever weight, where `observed` is, and where fewer than two
    members have weight. It can be below 0, unlike the score that is not fair.
    """
    n, k = ensemble.shape
    if weights is None:
        weights = np.ones((n, k))
    order = ensemble.argsort(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # From the observation, so that small differences of large numbers keep their digits.
        x = np.take_along_axis(ensemble, order, 1) - observed[:, None]
        w = np.take_along_axis(weights / weights.sum(axis=1, keepdims=True), order, 1)
        away = (w * np.abs(x)).sum(axis=1)
        pairs = 2 * (w * x * (2 * np.cumsum(w, axis=1) - w - 1)).sum(axis=1)
        different = 1 - (w * w).sum(axis=1)
        fair: Floats = away - pairs / (2 * different)
    fair[np.count_nonzero(weights, axis=1) < 2] = np.nan
    return fair


def crps_as_issued(members: Floats, weights: Floats, observed: float) -> float:
    """The continuous ranked probability score of one distribution, as it is: ∫ (F − 1{z ≥ y})² dz.

    F rises by the weight of each member, (k,), and is constant between them. Members of the same
    value count together. Weights are not negative, in any scale.
    """
    total = 0.0
    for start, end in pairwise(sorted({observed, *members.tolist()})):
        below = float(weights[members <= start].sum() / weights.sum())
        total += (end - start) * (below - (start >= observed)) ** 2
    return total
