"""Forecasts made from neighbours, and their losses beside those of the base rates.

A forecast is a mixture: a share of the neighbours' outcomes, the rest the base rate of the query's
own window. Nearer neighbours may weigh more. Outcomes may be rescaled by (volatility now /
volatility then) to a power from 0, unchanged, to 1, fully. The base rate is rescaled in the same
way, or the rescaling itself would pass for skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Mask, Rows
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.window_moments import Moments, window_moments
from llm_trader.evaluation.plan import ForecastRule
from llm_trader.index.points import PointTable
from llm_trader.timeframe import HORIZONS

# Sums of equal weights may miss a half by rounding.
_WEIGHT_ROUNDING: Final = 1e-9


class Ensemble(NamedTuple):
    """Ensembles of n queries: `outcomes` (n, episodes) in % change, ascending, NaN where there are
    too few; the `weights` of a query, of the same shape, sum to 1.
    """

    outcomes: Floats
    weights: Floats

    def share_up(self) -> Floats:
        """The weight of the outcomes above 0, shape (n,)."""
        return np.asarray((self.weights * (self.outcomes > 0)).sum(axis=1))

    def median(self) -> Floats:
        """The outcome with half the weight on either side; between two, their mean; (n,)."""
        cumulative = np.cumsum(self.weights, axis=1)
        thresholds = (0.5 - _WEIGHT_ROUNDING, 0.5 + _WEIGHT_ROUNDING)
        sides = [(cumulative < threshold).sum(axis=1) for threshold in thresholds]
        last = self.outcomes.shape[1] - 1
        rows = np.minimum(np.stack(sides, axis=1), last)
        return np.asarray(np.take_along_axis(self.outcomes, rows, axis=1).mean(axis=1))


class Forecasts(NamedTuple):
    """Forecasts for n queries at one horizon, in % change.

    `ensemble` is that of the neighbours, `p_up` (n,) the mixture's probability of a rise, `median`
    (n,) the ensemble's, `observed` (n,) the outcome of the query.
    """

    ensemble: Ensemble
    p_up: Floats
    median: Floats
    observed: Floats

    def where(self, mask: Mask) -> Forecasts:
        """`p_up` and `median` of the queries in `mask` (n,); NaN for the others."""
        p_up, median = (np.where(mask, column, np.nan) for column in (self.p_up, self.median))
        return self._replace(p_up=p_up, median=median)


class Losses(NamedTuple):
    """Continuous ranked probability scores (n,), fair for ensembles, in % change.

    They are of the forecast, of the same with random neighbours, of the base rate rescaled as the
    forecast is, and of the base rate as it was.
    """

    forecast: Floats
    random: Floats
    rescaled_base: Floats
    base: Floats


class HorizonOutcomes:
    """Outcomes of points and queries at one horizon, rescaled as a rule says.

    Raises `InvalidInputError` for a horizon that points do not have.
    """

    def __init__(
        self,
        points: PointTable,
        queries: PointTable,
        windows: Neighbours,
        name: str,
        rule: ForecastRule,
    ) -> None:
        if name not in HORIZONS:
            raise InvalidInputError(f"there is no horizon {name!r}; known: {', '.join(HORIZONS)}")
        point_scale, self._scale = (
            np.maximum(table.column("realized_volatility_24h"), VOLATILITY_FLOOR) ** rule.rescale
            for table in (points, queries)
        )
        self._scaled = points.column(f"outcome_{name}") / point_scale
        self.observed = np.array(queries.column(f"outcome_{name}"))
        self._windows = windows

    def outcomes(self, rows: Rows) -> Floats:
        """Outcomes of points (n, k), rescaled to each query, in the order of `rows`."""
        return np.where(rows >= 0, self._scaled[rows] * self._scale[:, None], np.nan)

    def ensemble(self, rows: Rows, weights: Floats) -> Ensemble:
        """Outcomes of points with their weights, (n, k), or (1, 1) where all weigh the same."""
        outcomes = self.outcomes(rows)
        # Sorting alone is several times faster than ordering two arrays by one of them.
        if weights.size == 1:
            return Ensemble(np.sort(outcomes, axis=1), np.broadcast_to(weights, rows.shape))
        order = outcomes.argsort(axis=1)
        ascending = (np.take_along_axis(column, order, axis=1) for column in (outcomes, weights))
        return Ensemble(*ascending)

    def window_moments(self, values: Floats) -> Moments:
        """Moments of the base rate about `values` (n, j)."""
        first, last, scale = self._windows.first, self._windows.last, self._scale
        moments = window_moments(self._scaled, first, last, values / scale[:, None])
        return Moments(moments.mean_abs * scale[:, None], moments.spread * scale)

    def base_rates(self) -> tuple[Floats, Floats]:
        """Mean and median of each query's window, (n,), in % change; NaN for an empty window."""
        sums = np.concatenate([[0.0], np.cumsum(self._scaled)])
        mean, median = np.full(len(self._scale), np.nan), np.full(len(self._scale), np.nan)
        windows = zip(self._windows.first, self._windows.last, strict=True)
        for i, (first, last) in enumerate(windows):
            if last > first:
                mean[i] = (sums[last] - sums[first]) / (last - first) * self._scale[i]
                median[i] = np.median(self._scaled[first:last]) * self._scale[i]
        return mean, median

    def base_share_up(self) -> Floats:
        """The share of the window's outcomes above 0, shape (n,)."""
        return self._windows.window_share(self._scaled > 0)


def neighbour_weights(neighbours: Neighbours, kernel: float) -> Floats:
    """Shape (n, episodes), in the order of the neighbours, each row of sum 1.

    With a kernel of 0 it is one number, (1, 1). A row that lacks episodes is NaN otherwise.
    """
    if kernel == 0:
        return np.full((1, 1), 1 / neighbours.rows.shape[1])
    similarity = neighbours.similarity.astype(np.float64)
    weights = np.exp(kernel * (similarity - similarity.max(axis=1, keepdims=True)))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def make_forecasts(
    outcomes: HorizonOutcomes, neighbours: Neighbours, rule: ForecastRule
) -> Forecasts:
    """Forecasts for queries that have all their episodes; NaN for others."""
    weights = neighbour_weights(neighbours, rule.kernel)
    ensemble = outcomes.ensemble(neighbours.rows, weights)
    share, complete = rule.neighbour_share, neighbours.complete
    share_up = np.where(complete, ensemble.share_up(), np.nan)
    median = np.where(complete, ensemble.median(), np.nan)
    p_up = share * share_up + (1 - share) * outcomes.base_share_up()
    return Forecasts(ensemble, p_up, median, outcomes.observed)


def all_losses(
    outcomes: HorizonOutcomes,
    unscaled: HorizonOutcomes,
    neighbours: Neighbours,
    random: Neighbours,
    rule: ForecastRule,
) -> Losses:
    """`unscaled` are the same outcomes without rescaling.

    Queries that lack episodes, or whose window is empty, have NaN in all four.
    """
    # Random neighbours weighted by their own similarity would not be random any more.
    weights = neighbour_weights(neighbours, rule.kernel)
    scores = _scores(outcomes, [neighbours.rows, random.rows], weights, rule)
    moments = unscaled.window_moments(unscaled.observed[:, None])
    return Losses(*_known_in_all(*scores, moments.mean_abs[:, 0] - moments.spread / 2))


def forecast_and_base_losses(
    outcomes: HorizonOutcomes, neighbours: Neighbours, rule: ForecastRule
) -> tuple[Floats, Floats]:
    """The losses of the forecast and of the rescaled base rate, without the other two."""
    weights = neighbour_weights(neighbours, rule.kernel)
    scores = _scores(outcomes, [neighbours.rows], weights, rule)
    forecast, rescaled_base = _known_in_all(*scores)
    return forecast, rescaled_base


def _scores(
    outcomes: HorizonOutcomes,
    rows_of_ensembles: Sequence[Rows],
    weights: Floats,
    rule: ForecastRule,
) -> list[Floats]:
    """Scores of a mixture with each ensemble, and of the base rate alone."""
    ensembles = [outcomes.ensemble(rows, weights) for rows in rows_of_ensembles]
    observed, k = outcomes.observed[:, None], rows_of_ensembles[0].shape[1]
    values = [observed, *(ensemble.outcomes for ensemble in ensembles)]
    moments = outcomes.window_moments(np.concatenate(values, axis=1))
    mixtures = [
        _mixture_score(
            ensemble, observed, moments.mean_abs[:, 1 + i * k : 1 + (i + 1) * k], moments, rule
        )
        for i, ensemble in enumerate(ensembles)
    ]
    return [*mixtures, moments.mean_abs[:, 0] - moments.spread / 2]


def _known_in_all(*losses: Floats) -> list[Floats]:
    """NaN in all where one is NaN, so that all are of the same queries."""
    finite = np.isfinite(losses).all(axis=0)
    return [np.where(finite, loss, np.nan) for loss in losses]


def _mixture_score(
    ensemble: Ensemble,
    observed: Floats,
    distance_to_base: Floats,
    base: Moments,
    rule: ForecastRule,
) -> Floats:
    """The fair score of share * ensemble + (1 - share) * window, from E|X-y| and E|X-X'|."""
    share, (x, weights) = rule.neighbour_share, ensemble
    between = (weights * distance_to_base).sum(axis=1)
    ensemble_error = (weights * np.abs(x - observed)).sum(axis=1)
    base_error = base.mean_abs[:, 0]
    spread = (
        share**2 * _spread(ensemble)
        + 2 * share * (1 - share) * between
        + (1 - share) ** 2 * base.spread
    )
    return np.asarray(share * ensemble_error + (1 - share) * base_error - spread / 2)


def _spread(ensemble: Ensemble) -> Floats:
    """The weighted mean of |X - X'| over pairs of different members, shape (n,).

    Summed gap by gap, the weight below times the weight above, so that nothing cancels.
    """
    x, weights = ensemble
    weight_below = np.cumsum(weights, axis=1)[:, :-1]
    weight_above = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1][:, 1:]
    distances = (np.diff(x, axis=1) * weight_below * weight_above).sum(axis=1)
    return np.asarray(distances / (weights[:, 1:] * weight_below).sum(axis=1))
