"""What a forecast lost against what happened. Lower is better, but for hits and coverage.

One value a forecast, NaN where the forecast or what happened is not known; nothing is dropped
here, so that scores of several forecasts stay side by side, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import Floats

Indices = npt.NDArray[np.integer]
Events = npt.NDArray[np.bool_] | Floats

# A block of windows shares one sorted core; the cost of its edges grows with their square.
_MOST_EDGES: Final = 400
_MOST_QUERIES: Final = 1024


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
    if weights.shape != (n, k) or observed.shape != (n,):
        raise InvalidInputError(
            f"an ensemble of shape {(n, k)} takes weights of that shape and {n} observations, "
            f"not {weights.shape} and {observed.shape}"
        )
    if (weights < 0).any():
        raise InvalidInputError("weights of an ensemble are not negative")
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


def window_crps(values: Floats, first: Indices, last: Indices, observed: Floats) -> Floats:
    """The fair CRPS of the ensembles `values[first:last]`, one for each query, shape (n,).

    `values` (m,); `first`, `last`, `observed` (n,). The same as `crps`, exactly, for windows that
    move forward slowly: neighbouring queries share a sorted core, and only what enters and leaves
    among them is looked at for each. Windows in any other order are exact too, only slower.
    NaN where a window has fewer than two values or one that is not finite.
    """
    if ((first < 0) | (last > len(values))).any():
        raise InvalidInputError(f"windows reach beyond the {len(values)} values")
    finite = np.isfinite(values)
    holes = np.concatenate([[0], np.cumsum(~finite)])
    whole = last - first >= 2
    whole[whole] = holes[last[whole]] == holes[first[whole]]
    rows = np.flatnonzero(whole & np.isfinite(observed))
    scores = np.full(len(observed), np.nan)
    if not len(rows):
        return scores
    centre = np.median(values[finite])
    level = np.where(finite, values - centre, 0.0)
    target = observed - centre
    for block in _blocks(first, last, rows):
        scores[block] = _block_crps(level, first[block], last[block], target[block])
    return scores


def _blocks(first: Indices, last: Indices, rows: Indices) -> Iterator[Indices]:
    """Runs of queries whose windows have much in common, by halving; one query always has."""
    waiting = [rows]
    while waiting:
        block = waiting.pop()
        a, b = first[block], last[block]
        core = b.min() - a.max()
        edges = b.max() - a.min() - core
        if len(block) == 1 or (core >= 0 and edges <= _MOST_EDGES and len(block) <= _MOST_QUERIES):
            yield block
        else:
            half = len(block) // 2
            waiting += [block[half:], block[:half]]


def _block_crps(values: Floats, first: Indices, last: Indices, observed: Floats) -> Floats:
    """Of windows that share the core `values[max(first):min(last)]`.

    The edge before the core is counted from it backwards, that after it forwards, so that each
    window has the core and the first `before` and `after` of its edges.
    """
    start, end = first.max(), last.min()
    left, right = values[first.min() : start][::-1], values[end : last.max()]
    before, after, size = start - first, last - end, last - first
    core = np.sort(values[start:end])
    n = len(core)
    within = 2 * np.dot(core, 2.0 * np.arange(1, n + 1) - n - 1)
    away = (
        _distances(core, observed)
        + _leading(np.abs(left - observed[:, None]), before)
        + _leading(np.abs(right - observed[:, None]), after)
    )
    pairs = (
        within
        + 2 * _corner_sums(_distances(core, left)[None])[1, before]
        + 2 * _corner_sums(_distances(core, right)[None])[1, after]
        + _corner_sums(np.abs(left[:, None] - left))[before, before]
        + _corner_sums(np.abs(right[:, None] - right))[after, after]
        + 2 * _corner_sums(np.abs(left[:, None] - right))[before, after]
    )
    fair: Floats = away / size - pairs / (2.0 * size * (size - 1))
    return fair


def _distances(ascending: Floats, points: Floats) -> Floats:
    """The sum of |point − value| over the sorted values, for each point."""
    n = len(ascending)
    below = np.concatenate([[0.0], np.cumsum(ascending)])
    rank = np.searchsorted(ascending, points)
    distances: Floats = points * (2 * rank - n) + below[n] - 2 * below[rank]
    return distances


def _leading(table: Floats, count: Indices) -> Floats:
    """The sum of the first `count` entries of each row."""
    padded = np.pad(np.cumsum(table, axis=1), ((0, 0), (1, 0)))
    leading: Floats = padded[np.arange(len(table)), count]
    return leading


def _corner_sums(table: Floats) -> Floats:
    """At (i, j) the sum over the first i rows and j columns (Crow 1984, a summed-area table)."""
    return np.pad(table.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def brier(probability: Floats, happened: Events) -> Floats:
    """Squared error of a probability, (p − o)² with o = 1 where it happened (Brier 1950), (n,)."""
    squared: Floats = (probability - happened.astype(np.float64)) ** 2
    return squared


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """Forecast probabilities against observed frequencies, by bin of probability.

    A bin holds its lower edge and not its upper one; the last holds both. In an empty bin
    `mean_forecast` and `observed_frequency` are NaN. With pₖ, oₖ, nₖ these two and the count,
    and o the frequency over all n forecasts (Murphy 1973):

        reliability = Σ nₖ (pₖ − oₖ)² / n    0 where forecasts mean what they say
        resolution  = Σ nₖ (oₖ − o)² / n     0 where forecasts tell no case from another
        uncertainty = o (1 − o)              the score of always saying o
        brier       = reliability − resolution + uncertainty + within_bins

    `within_bins` is what differs inside the bins, variance of the forecasts less twice their
    covariance with what happened (Stephenson et al. 2008): 0 where a bin has one forecast value.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean_forecast: tuple[float, ...]
    observed_frequency: tuple[float, ...]
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def reliability(
    probability: Floats, happened: Events, bins: int | Sequence[float] = 10
) -> Reliability:
    """Of the forecasts (n,) whose outcome (n,) is known; others are left out.

    `bins`: how many, of about equal counts, cut between different forecasts only, one for each
    value where there are no more values than bins; or the ascending edges themselves.
    """
    event = happened.astype(np.float64)
    known = np.isfinite(probability) & np.isfinite(event)
    p, event = probability[known], event[known]
    if not len(p):
        raise InvalidInputError("reliability needs a forecast whose outcome is known")
    edges = _even_edges(p, bins) if isinstance(bins, int) else np.asarray(bins, np.float64)
    if len(edges) < 2 or (np.diff(edges[:-1]) <= 0).any() or edges[-1] < edges[-2]:
        raise InvalidInputError("the edges of bins ascend")
    if p.min() < edges[0] or p.max() > edges[-1]:
        raise InvalidInputError("the bins do not reach over all forecasts: widen their edges")
    place = np.searchsorted(edges[1:-1], p, side="right")
    counts = np.bincount(place, minlength=len(edges) - 1)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, p, len(counts)) / counts
        frequency = np.bincount(place, event, len(counts)) / counts
    forecast_error, rate = p - mean[place], event.mean()
    return Reliability(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        mean_forecast=tuple(mean.tolist()),
        observed_frequency=tuple(frequency.tolist()),
        brier=float(brier(p, event).mean()),
        reliability=float(((mean - frequency)[place] ** 2).mean()),
        resolution=float(((frequency[place] - rate) ** 2).mean()),
        uncertainty=float(rate * (1 - rate)),
        within_bins=float((forecast_error * (forecast_error - 2 * event)).mean()),
    )


def _even_edges(p: Floats, bins: int) -> Floats:
    if bins < 1:
        raise InvalidInputError(f"{bins} bins hold no forecast: take at least 1")
    distinct = np.unique(p)
    if len(distinct) <= bins:
        cuts = distinct[1:]
    else:
        levels = np.arange(1, bins) / bins
        cuts = np.unique(np.quantile(p, levels, method="inverted_cdf"))
        cuts = cuts[cuts > distinct[0]]
    return np.concatenate([distinct[:1], cuts, distinct[-1:]])


def coverage(low: Floats, high: Floats, observed: Floats) -> float:
    """The share of observations in [low, high], of those where all three are known; else NaN."""
    known = np.isfinite(observed) & ~np.isnan(low) & ~np.isnan(high)
    inside = known & (low <= observed) & (observed <= high)
    return int(inside.sum()) / int(known.sum()) if known.any() else np.nan


def interval_score(low: Floats, high: Floats, observed: Floats, level: float) -> Floats:
    """Of central intervals meant to hold a share `level` (0..1) of observations, (n,), their unit.

    Width plus 2/α for each unit that the observation lies outside, α = 1 − level (Gneiting and
    Raftery 2007, equation 43).
    """
    if not 0 < level < 1:
        raise InvalidInputError(f"the level of an interval lies between 0 and 1, not at {level}")
    outside = np.maximum(low - observed, 0.0) + np.maximum(observed - high, 0.0)
    score: Floats = high - low + 2 / (1 - level) * outside
    return score


def direction_hits(forecast: Floats, observed: Floats) -> Floats:
    """1 where forecast and observation have the same sign, 0 where opposite ones, (n,).

    NaN where either is NaN or exactly 0: a market that did not move, or a forecast that names no
    direction, is neither a hit nor a miss.
    """
    product = np.sign(forecast) * np.sign(observed)
    return np.where(product == 0, np.nan, (product + 1) / 2)
