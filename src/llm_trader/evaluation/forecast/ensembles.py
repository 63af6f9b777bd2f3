"""Neighbours to forecasts of what follows, and their scores beside those of the base rates.

A forecast is a mixture: a share of the neighbours' outcomes, the rest the base rate of the query's
own window. Nearer neighbours may count for more. Outcomes may be rescaled by (volatility now /
volatility then) to a power between 0, as they were, and 1, fully. The base rate is treated the
same way, or the rescaling itself would pass for skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Rows
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.window_moments import Moments, window_moments
from llm_trader.index.points import PointTable
from llm_trader.snapshot.outcome import HORIZONS

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_ROUNDING: Final = 1e-9

# With more, the weight of a far neighbour could become 0 by rounding.
Kernel = Annotated[float, msgspec.Meta(ge=0, le=300)]


class ForecastRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a forecast of one horizon is made. `rescale` is the power of the volatility ratio,
    `neighbour_share` the weight of the neighbours, the base rate has the rest. Among neighbours
    weights go as exp(`kernel` * similarity): all are equal at 0.
    """

    rescale: Share = 1.0
    neighbour_share: Share = 1.0
    kernel: Kernel = 0.0


class Ensemble(NamedTuple):
    """Of n queries: `outcomes` (n, episodes) in % change, ascending, NaN where there are fewer,
    and beside each its `weights`, which sum to 1 for a query.
    """

    outcomes: Floats
    weights: Floats

    def share_up(self) -> Floats:
        """The weight of the outcomes above 0, shape (n,)."""
        return np.asarray((self.weights * (self.outcomes > 0)).sum(axis=1))

    def median(self) -> Floats:
        """Half the weight lies on either side; between two outcomes, their mean, shape (n,)."""
        below = np.cumsum(self.weights, axis=1)
        # Equal weights must find the middle, whatever their sum rounds to.
        sides = [(below < 0.5 + nudge).sum(axis=1) for nudge in (-_ROUNDING, _ROUNDING)]
        last = self.outcomes.shape[1] - 1
        rows = np.minimum(np.stack(sides, axis=1), last)
        return np.asarray(np.take_along_axis(self.outcomes, rows, axis=1).mean(axis=1))


class Forecasts(NamedTuple):
    """Of n queries at one horizon, in % change: `ensemble` of the neighbours; `p_up` (n,) of the
    mixture; `median` (n,) of the ensemble; `observed` (n,) what followed.
    """

    ensemble: Ensemble
    p_up: Floats
    median: Floats
    observed: Floats

    def kept(self, rows: npt.NDArray[np.bool_]) -> Forecasts:
        """With what is said of some queries only, shape (n,); of others nothing is known."""
        p_up, median = (np.where(rows, of, np.nan) for of in (self.p_up, self.median))
        return self._replace(p_up=p_up, median=median)


class Losses(NamedTuple):
    """Continuous ranked probability scores (n,), fair for ensembles, in % change.

    Of the forecast, of the same with random neighbours and the same weights, of the base rate
    treated as the forecast is, and of the base rate as it was.
    """

    forecast: Floats
    random: Floats
    base_alike: Floats
    base: Floats


class BaseForecasts(NamedTuple):
    """Of the outcomes of each query's window, (n,); `mean` and `median` in % change; NaN for an
    empty one.
    """

    mean: Floats
    median: Floats
    share_up: Floats


class Horizon:
    """One horizon of a walk: outcomes of the points, of the queries, and their windows."""

    def __init__(
        self, points: PointTable, queries: PointTable, windows: Neighbours, name: str, power: float
    ) -> None:
        self.name = name
        then, now = (_volatility(table) ** power for table in (points, queries))
        self._unit = points.column(f"outcome_{name}") / then
        self._now = now
        self.observed = np.array(queries.column(f"outcome_{name}"))
        self._windows = windows

    def outcomes(self, rows: Rows) -> Floats:
        """Of the given points as seen from each query, (n, k), in the order of `rows`."""
        return np.where(rows >= 0, self._unit[rows] * self._now[:, None], np.nan)

    def ensemble(self, rows: Rows) -> Floats:
        """Outcomes (n, k) of the given points as seen from each query, ascending."""
        return np.sort(self.outcomes(rows), axis=1)

    def weighted(self, rows: Rows, weights: Floats) -> Ensemble:
        """Outcomes of the given points with their weights (n, k), or (1, 1) where all are alike."""
        outcomes = self.outcomes(rows)
        if weights.size == 1:
            return Ensemble(np.sort(outcomes, axis=1), np.broadcast_to(weights, rows.shape))
        order = outcomes.argsort(axis=1)
        ascending = (np.take_along_axis(of, order, axis=1) for of in (outcomes, weights))
        return Ensemble(*ascending)

    def window(self, at: Floats) -> Moments:
        """Moments of the base rate about the values `at` (n, j)."""
        moments = window_moments(
            self._unit, self._windows.first, self._windows.last, at / self._now[:, None]
        )
        return Moments(moments.mean_abs * self._now[:, None], moments.spread * self._now)

    def base_rates(self) -> BaseForecasts:
        """What followed all states of each window, as seen from its query."""
        total = np.concatenate([[0.0], np.cumsum(self._unit)])
        mean, median = np.full(len(self._now), np.nan), np.full(len(self._now), np.nan)
        for i, (first, last) in enumerate(
            zip(self._windows.first, self._windows.last, strict=True)
        ):
            if last > first:
                mean[i] = (total[last] - total[first]) / (last - first) * self._now[i]
                median[i] = np.median(self._unit[first:last]) * self._now[i]
        return BaseForecasts(mean, median, self.base_share_up())

    def base_share_up(self) -> Floats:
        """The share of the window's outcomes above 0, shape (n,)."""
        return self._windows.share(self._unit > 0)


def horizon_of(
    points: PointTable, queries: PointTable, windows: Neighbours, name: str, rule: ForecastRule
) -> Horizon:
    if name not in HORIZONS:
        raise InvalidInputError(f"there is no horizon {name!r}; known: {', '.join(HORIZONS)}")
    return Horizon(points, queries, windows, name, rule.rescale)


def neighbour_weights(neighbours: Neighbours, kernel: float) -> Floats:
    """Shape (n, episodes), in the order of the neighbours, each row of sum 1.

    One number, (1, 1), where the kernel is 0; NaN in a row that lacks episodes otherwise.
    """
    if kernel == 0:
        return np.full((1, 1), 1 / neighbours.rows.shape[1])
    similarity = neighbours.similarity.astype(np.float64)
    weights = np.exp(kernel * (similarity - similarity.max(axis=1, keepdims=True)))
    normal: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normal


def forecast(horizon: Horizon, neighbours: Neighbours, rule: ForecastRule) -> Forecasts:
    """What the neighbours say, for queries that found all their episodes; NaN for others."""
    weights = neighbour_weights(neighbours, rule.kernel)
    ensemble = horizon.weighted(neighbours.rows, weights)
    share, whole = rule.neighbour_share, neighbours.complete
    up = np.where(whole, ensemble.share_up(), np.nan)
    median = np.where(whole, ensemble.median(), np.nan)
    p_up = share * up + (1 - share) * horizon.base_share_up()
    return Forecasts(ensemble, p_up, median, horizon.observed)


def losses(
    horizon: Horizon, plain: Horizon, neighbours: Neighbours, random: Neighbours, rule: ForecastRule
) -> Losses:
    """Scores of a horizon; `plain` is the same one without rescaling.

    Queries without all their episodes, or whose window is empty, have NaN in all four.
    """
    # Random neighbours weighted by their own similarity would not be random any more.
    weights = neighbour_weights(neighbours, rule.kernel)
    scores = _scores(horizon, [neighbours.rows, random.rows], weights, rule)
    of_plain = plain.window(plain.observed[:, None])
    return Losses(*_all_known(*scores, of_plain.mean_abs[:, 0] - of_plain.spread / 2))


def losses_beside_base(
    horizon: Horizon, neighbours: Neighbours, rule: ForecastRule
) -> tuple[Floats, Floats]:
    """Of `losses` those of the forecast and of the base rate treated alike, without the others."""
    weights = neighbour_weights(neighbours, rule.kernel)
    forecast, base_alike = _all_known(*_scores(horizon, [neighbours.rows], weights, rule))
    return forecast, base_alike


def _scores(
    horizon: Horizon, several: Sequence[Rows], weights: Floats, rule: ForecastRule
) -> list[Floats]:
    """Of a mixture with each of several ensembles, and of the base rate alone."""
    ensembles = [horizon.weighted(rows, weights) for rows in several]
    y, k = horizon.observed[:, None], several[0].shape[1]
    moments = horizon.window(np.concatenate([y, *(of.outcomes for of in ensembles)], axis=1))
    mixed = [
        _mixture(of, y, moments.mean_abs[:, 1 + i * k : 1 + (i + 1) * k], moments, rule)
        for i, of in enumerate(ensembles)
    ]
    return [*mixed, moments.mean_abs[:, 0] - moments.spread / 2]


def _all_known(*losses: Floats) -> list[Floats]:
    """NaN in all where it is in one of them, so that all are of the same queries."""
    known = np.isfinite(losses).all(axis=0)
    return [np.where(known, of, np.nan) for of in losses]


def _mixture(
    ensemble: Ensemble, y: Floats, to_base: Floats, base: Moments, rule: ForecastRule
) -> Floats:
    """The fair score of share * ensemble + (1 - share) * window, from E|X-y| and E|X-X'|."""
    share, (x, weights) = rule.neighbour_share, ensemble
    across = (weights * to_base).sum(axis=1)
    near = (weights * np.abs(x - y)).sum(axis=1)
    usual = base.mean_abs[:, 0]
    spread = (
        share**2 * _spread(ensemble)
        + 2 * share * (1 - share) * across
        + (1 - share) ** 2 * base.spread
    )
    score: Floats = share * near + (1 - share) * usual - spread / 2
    return score


def _spread(ensemble: Ensemble) -> Floats:
    """The mean of |X - X'| over pairs of different members, by their weights, shape (n,).

    Summed gap by gap, the weight below times the weight above, so that nothing cancels.
    """
    x, weights = ensemble
    below = np.cumsum(weights, axis=1)[:, :-1]
    above = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1][:, 1:]
    apart = (np.diff(x, axis=1) * below * above).sum(axis=1)
    spread: Floats = apart / (weights[:, 1:] * below).sum(axis=1)
    return spread


def _volatility(points: PointTable) -> Floats:
    volatility: Floats = np.maximum(points.column("realized_volatility_24h"), VOLATILITY_FLOOR)
    return volatility
