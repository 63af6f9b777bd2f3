"""Neighbours to forecasts of what follows, and their scores beside those of the base rates.

A forecast is a mixture: a share of the neighbours' outcomes, the rest the base rate of the query's
own window. Outcomes may be rescaled by (volatility now / volatility then) to a power between 0,
as they were, and 1, fully. The base rate is treated the same way, or the rescaling itself would
pass for skill.
"""

from __future__ import annotations

from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.embedding.features import LEAST
from llm_trader.evaluation.walk import Neighbours
from llm_trader.evaluation.windows import Moments, window_moments
from llm_trader.index.points import PointTable
from llm_trader.market.candles import Floats
from llm_trader.snapshot.outcome import HORIZONS

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

_PLAIN: Final = 0.0


class ForecastRule(msgspec.Struct, frozen=True, kw_only=True):
    """How a forecast of one horizon is made. `rescale` is the power of the volatility ratio,
    `neighbour_share` the weight of the neighbours, the base rate has the rest.
    """

    rescale: Share = 1.0
    neighbour_share: Share = 1.0


class Forecasts(NamedTuple):
    """Of n queries at one horizon, in % change: `ensemble` (n, episodes) ascending, NaN where
    there are fewer; `weight` is the rule's share; `p_up` (n,) of the mixture; `median` (n,) of the
    ensemble; `observed` (n,) what followed.
    """

    ensemble: Floats
    p_up: Floats
    median: Floats
    observed: Floats


class Losses(NamedTuple):
    """Continuous ranked probability scores (n,), fair for ensembles, in % change.

    Of the forecast, of the same with random neighbours, of the base rate treated as the forecast
    is, and of the base rate as it was.
    """

    forecast: Floats
    random: Floats
    base_alike: Floats
    base: Floats


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
        self._first, self._last = windows.first, windows.last

    def ensemble(self, rows: npt.NDArray[np.intp]) -> Floats:
        """Outcomes (n, k) of the given points as seen from each query, ascending."""
        outcomes = np.where(rows >= 0, self._unit[rows] * self._now[:, None], np.nan)
        return np.sort(outcomes, axis=1)

    def window(self, at: Floats) -> Moments:
        """Moments of the base rate about the values `at` (n, j)."""
        moments = window_moments(self._unit, self._first, self._last, at / self._now[:, None])
        return Moments(moments.mean_abs * self._now[:, None], moments.spread * self._now)

    def base_share_up(self) -> Floats:
        """The share of the window's outcomes above 0, shape (n,)."""
        up = np.concatenate([[0], np.cumsum(self._unit > 0)])
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Floats = (up[self._last] - up[self._first]) / (self._last - self._first)
        return share


def horizon_of(
    points: PointTable, queries: PointTable, windows: Neighbours, name: str, rule: ForecastRule
) -> Horizon:
    if name not in HORIZONS:
        raise ValueError(f"no horizon {name}")
    return Horizon(points, queries, windows, name, rule.rescale)


def forecast(horizon: Horizon, neighbours: Neighbours, rule: ForecastRule) -> Forecasts:
    """What the neighbours say, for queries that found all their episodes; NaN for others."""
    ensemble = horizon.ensemble(neighbours.rows)
    share, whole = rule.neighbour_share, neighbours.complete
    with np.errstate(invalid="ignore"):
        up = np.where(whole, (ensemble > 0).mean(axis=1), np.nan)
        median = np.where(whole, np.median(ensemble, axis=1), np.nan)
    p_up = share * up + (1 - share) * horizon.base_share_up()
    return Forecasts(ensemble, p_up, median, horizon.observed)


def losses(
    horizon: Horizon, plain: Horizon, neighbours: Neighbours, random: Neighbours, rule: ForecastRule
) -> Losses:
    """Scores of a horizon; `plain` is the same one without rescaling.

    Queries without all their episodes, or whose window is empty, have NaN in all four.
    """
    ensembles = [horizon.ensemble(of.rows) for of in (neighbours, random)]
    y = horizon.observed[:, None]
    k = ensembles[0].shape[1]
    moments = horizon.window(np.concatenate([y, *ensembles], axis=1))
    base_alike = moments.mean_abs[:, 0] - moments.spread / 2
    mixed = [
        _mixture(of, y, moments.mean_abs[:, 1 + i * k : 1 + (i + 1) * k], moments, rule)
        for i, of in enumerate(ensembles)
    ]
    of_plain = plain.window(y)
    base = of_plain.mean_abs[:, 0] - of_plain.spread / 2
    known = np.isfinite([*mixed, base_alike, base]).all(axis=0)
    return Losses(*(np.where(known, of, np.nan) for of in (*mixed, base_alike, base)))


def _mixture(
    ensemble: Floats, y: Floats, to_base: Floats, base: Moments, rule: ForecastRule
) -> Floats:
    """The fair score of share * ensemble + (1 - share) * window, from E|X-y| and E|X-X'|."""
    k, share = ensemble.shape[1], rule.neighbour_share
    weights = 2 * np.arange(1, k + 1) - k - 1
    within = 2 * (ensemble * weights).sum(axis=1) / (k * (k - 1))
    across = to_base.mean(axis=1)
    near = np.abs(ensemble - y).mean(axis=1)
    usual = base.mean_abs[:, 0]
    spread = share**2 * within + 2 * share * (1 - share) * across + (1 - share) ** 2 * base.spread
    score: Floats = share * near + (1 - share) * usual - spread / 2
    return score


def _volatility(points: PointTable) -> Floats:
    volatility: Floats = np.maximum(points.column("realized_volatility_24h"), LEAST)
    return volatility
