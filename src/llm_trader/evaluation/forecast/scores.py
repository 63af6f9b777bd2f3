"""What probabilities and directions lost against what happened: lower is better, but for hits.

One value a forecast, NaN where the forecast or what happened is not known; nothing is dropped
here, so that scores of several forecasts stay side by side, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats
from llm_trader.errors import InvalidInputError

Events = npt.NDArray[np.bool_] | Floats


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


def direction_hits(forecast: Floats, observed: Floats) -> Floats:
    """1 where forecast and observation have the same sign, 0 where opposite ones, (n,).

    NaN where either is NaN or exactly 0: a market that did not move, or a forecast that names no
    direction, is neither a hit nor a miss.
    """
    product = np.sign(forecast) * np.sign(observed)
    return np.where(product == 0, np.nan, (product + 1) / 2)
