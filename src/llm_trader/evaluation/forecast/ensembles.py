"""The forecasts of an evaluation: those that a server gives, for many queries at once.

A forecast is a mixture: neighbours have a weight, the outcomes of the query's whole window the
rest. Nearer neighbours may weigh more. Outcomes are in units of a volatility at their own time, and
multiplied by the query's. A test holds the quantiles equal to the server's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Mask, Rows
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.window_moments import Moments, window_moments
from llm_trader.evaluation.plan import ForecastRule, Scale
from llm_trader.index.points import PointTable
from llm_trader.retrieval.forecast import mixture_quantiles
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.timeframe import HORIZONS

# The ends and the middle of an 80 % band.
BAND_LEVELS: Final = np.array([0.1, 0.5, 0.9])
# The queries of a day share one sorting of their windows.
QUERIES_PER_BLOCK: Final = 96


class Ensemble(NamedTuple):
    """Ensembles of n queries: `outcomes` (n, k), ascending, in units of the scale, NaN where there
    are too few; the `weights` of a query, of the same shape, sum to 1.
    """

    outcomes: Floats
    weights: Floats

    def share_up(self) -> Floats:
        """The weight of the outcomes above 0, shape (n,)."""
        return np.asarray((self.weights * (self.outcomes > 0)).sum(axis=1))


class Forecasts(NamedTuple):
    """Forecasts for n queries at one horizon, in % change; NaN where there is none.

    `p_up` is the probability of a rise, `p10`, `median` and `p90` are quantiles, `observed` is the
    outcome of the query and `scale_pct` the volatility it is scaled by; all (n,).
    """

    p_up: Floats
    p10: Floats
    median: Floats
    p90: Floats
    observed: Floats
    scale_pct: Floats

    def where(self, mask: Mask) -> Forecasts:
        """The forecasts of the queries in `mask` (n,); NaN for the others."""
        p_up, *quantiles = (np.where(mask, column, np.nan) for column in self[:4])
        p10, median, p90 = quantiles
        return self._replace(p_up=p_up, p10=p10, median=median, p90=p90)


class Losses(NamedTuple):
    """Continuous ranked probability scores (n,) of forecasts as they are issued, in % change.

    Of the forecast; of the same with random neighbours; and, without neighbours, of the window in
    units of the expected volatility, of the volatility of the last 24h, and as it was. `potential`
    is the fair score of the forecast: what infinitely many such neighbours would lose.
    """

    forecast: Floats
    potential: Floats
    random: Floats
    volatility_model: Floats
    rescaled_base: Floats
    base: Floats


class HorizonOutcomes:
    """Outcomes of points and queries at one horizon, in units of one volatility.

    Raises `InvalidInputError` for a horizon that points do not have.
    """

    def __init__(
        self,
        points: PointTable,
        queries: PointTable,
        windows: Neighbours,
        name: str,
        scale: Scale = "expected",
    ) -> None:
        if name not in HORIZONS:
            raise InvalidInputError(f"there is no horizon {name!r}; known: {', '.join(HORIZONS)}")
        self.scale_pct = _scale_pct(queries, name, scale)
        self.observed = np.array(queries.column(f"outcome_{name}"))
        self._relative = points.column(f"outcome_{name}") / _scale_pct(points, name, scale)
        self._windows = windows

    def outcomes(self, rows: Rows) -> Floats:
        """Outcomes of points (n, k) in units of the volatility, in the order of `rows`."""
        return np.where(rows >= 0, self._relative[rows], np.nan)

    def ensemble(self, rows: Rows, weights: Floats) -> Ensemble:
        """Outcomes of points with their weights, (n, k), or (1, 1) where all weigh the same."""
        outcomes = self.outcomes(rows)
        # Sorting alone is several times faster than ordering two arrays by one of them.
        if weights.size == 1:
            return Ensemble(np.sort(outcomes, axis=1), np.broadcast_to(weights, rows.shape))
        order = outcomes.argsort(axis=1)
        ascending = (np.take_along_axis(column, order, axis=1) for column in (outcomes, weights))
        return Ensemble(*ascending)

    def windows(self) -> Iterator[list[Floats]]:
        """The ascending outcomes of each query's window, `QUERIES_PER_BLOCK` queries at once."""
        first, last = self._windows.first, self._windows.last
        for start in range(0, len(first), QUERIES_PER_BLOCK):
            block = slice(start, start + QUERIES_PER_BLOCK)
            lowest, highest = int(first[block].min()), int(last[block].max())
            order = np.argsort(self._relative[lowest:highest], kind="stable")
            ascending = self._relative[lowest:highest][order]
            spans = zip(first[block] - lowest, last[block] - lowest, strict=True)
            yield [ascending[(order >= begin) & (order < end)] for begin, end in spans]

    def window_moments(self, values: Floats) -> Moments:
        """Moments of each query's window about `values` (n, j), both in units of the volatility."""
        return window_moments(self._relative, self._windows.first, self._windows.last, values)

    def base_rates(self) -> tuple[Floats, Floats]:
        """Mean and median of each query's window, (n,), in % change; NaN for an empty window."""
        sums = np.concatenate([[0.0], np.cumsum(self._relative)])
        first, last = self._windows.first, self._windows.last
        with np.errstate(invalid="ignore"):
            mean = (sums[last] - sums[first]) / (last - first)
        windows = (window for block in self.windows() for window in block)
        median = np.array([_middle(window) if len(window) else np.nan for window in windows])
        return mean * self.scale_pct, median * self.scale_pct

    def base_share_up(self) -> Floats:
        """The share of the window's outcomes above 0, shape (n,)."""
        return self._windows.window_share(self._relative > 0)


def _middle(ascending: Floats) -> float:
    last = len(ascending) - 1
    return float(ascending[last // 2] + ascending[(last + 1) // 2]) / 2


def _scale_pct(table: PointTable, horizon: str, scale: Scale) -> Floats:
    if scale == "expected":
        return table.column(EXPECTED_VOLATILITY[horizon])
    if scale == "last_24h":
        return np.maximum(table.column("realized_volatility_24h"), VOLATILITY_FLOOR)
    return np.ones(len(table))


def neighbour_weights(neighbours: Neighbours, kernel: float) -> Floats:
    """Shape (n, k), in the order of the neighbours, each row of sum 1.

    With a kernel of 0 it is one number, (1, 1). A row that lacks neighbours is NaN otherwise.
    """
    if kernel == 0:
        return np.full((1, 1), 1 / neighbours.rows.shape[1])
    similarity = neighbours.similarity.astype(np.float64)
    weights = np.exp(kernel * (similarity - similarity.max(axis=1, keepdims=True)))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def make_forecasts(
    outcomes: HorizonOutcomes, neighbours: Neighbours, rule: ForecastRule
) -> Forecasts:
    """Forecasts for queries that have all their neighbours; NaN for others."""
    ensemble = outcomes.ensemble(neighbours.rows, neighbour_weights(neighbours, rule.kernel))
    share = rule.weight_of_neighbours
    p_up = share * ensemble.share_up() + (1 - share) * outcomes.base_share_up()
    quantiles = _mixture_quantiles(outcomes, neighbours, ensemble, share, BAND_LEVELS)
    p10, median, p90 = (quantiles * outcomes.scale_pct[:, None]).T
    p_up = np.where(neighbours.complete, p_up, np.nan)
    return Forecasts(p_up, p10, median, p90, outcomes.observed, outcomes.scale_pct)


def forecast_quantiles(
    outcomes: HorizonOutcomes, neighbours: Neighbours, rule: ForecastRule, levels: Floats
) -> Floats:
    """Quantiles in units of the volatility, (n, levels); NaN without all neighbours."""
    ensemble = outcomes.ensemble(neighbours.rows, neighbour_weights(neighbours, rule.kernel))
    share = rule.weight_of_neighbours
    return _mixture_quantiles(outcomes, neighbours, ensemble, share, levels)


def _mixture_quantiles(
    outcomes: HorizonOutcomes,
    neighbours: Neighbours,
    ensemble: Ensemble,
    share: float,
    levels: Floats,
) -> Floats:
    known = neighbours.complete & (neighbours.last > neighbours.first)
    quantiles = np.full((len(known), len(levels)), np.nan)
    for start, windows in enumerate(outcomes.windows()):
        block = slice(start * QUERIES_PER_BLOCK, start * QUERIES_PER_BLOCK + len(windows))
        rows = np.flatnonzero(known[block])
        if len(rows):
            shares = np.cumsum(ensemble.weights[block][rows], axis=1)
            weight = np.full(len(rows), share)
            mixtures = [windows[row] for row in rows], ensemble.outcomes[block][rows], weight
            quantiles[block.start + rows] = mixture_quantiles(*mixtures, shares, levels)
    return quantiles


def all_losses(
    points: PointTable,
    queries: PointTable,
    neighbours: Neighbours,
    random: Neighbours,
    horizon: str,
    rule: ForecastRule,
) -> Losses:
    """Queries that lack neighbours, or whose window is empty, have NaN in all."""
    scaled: dict[Scale, HorizonOutcomes] = {
        scale: HorizonOutcomes(points, queries, neighbours, horizon, scale)
        for scale in ("expected", "last_24h", "none")
    }
    # Random neighbours weighted by their own similarity would not be random any more.
    weights = neighbour_weights(neighbours, rule.kernel)
    scores = _scores(scaled[rule.scale], [neighbours.rows, random.rows], weights, rule)
    references = {
        scale: scores.base if scale == rule.scale else _base_score(outcomes)
        for scale, outcomes in scaled.items()
    }
    (forecast, potential), (random_forecast, _) = scores.mixtures
    return Losses(*_known_in_all(forecast, potential, random_forecast, *references.values()))


def forecast_and_model_losses(
    outcomes: HorizonOutcomes, neighbours: Neighbours, rule: ForecastRule
) -> tuple[Floats, Floats]:
    """The losses of the forecast, and of the window alone in the units of `outcomes`."""
    weights = neighbour_weights(neighbours, rule.kernel)
    scores = _scores(outcomes, [neighbours.rows], weights, rule)
    forecast, base = _known_in_all(scores.mixtures[0][0], scores.base)
    return forecast, base


class _Scores(NamedTuple):
    """Scores of mixtures, each as issued and fair, and of the window alone; (n,) in % change."""

    mixtures: list[tuple[Floats, Floats]]
    base: Floats


def _scores(
    outcomes: HorizonOutcomes,
    rows_of_ensembles: Sequence[Rows],
    weights: Floats,
    rule: ForecastRule,
) -> _Scores:
    """Scores of a mixture with each ensemble, and of the window alone."""
    ensembles = [outcomes.ensemble(rows, weights) for rows in rows_of_ensembles]
    observed = (outcomes.observed / outcomes.scale_pct)[:, None]
    k, share = rows_of_ensembles[0].shape[1], rule.weight_of_neighbours
    values = [observed, *(ensemble.outcomes for ensemble in ensembles if share)]
    moments = outcomes.window_moments(np.concatenate(values, axis=1))
    base = moments.mean_abs[:, 0] - moments.spread / 2
    mixtures = []
    for i, ensemble in enumerate(ensembles):
        score = fair = np.where(np.isfinite(ensemble.outcomes).all(axis=1), base, np.nan)
        if share:
            distances = moments.mean_abs[:, 1 + i * k : 1 + (i + 1) * k]
            score, fair = _mixture_scores(ensemble, observed, distances, moments, share)
        mixtures.append((score * outcomes.scale_pct, fair * outcomes.scale_pct))
    return _Scores(mixtures, base * outcomes.scale_pct)


def _base_score(outcomes: HorizonOutcomes) -> Floats:
    moments = outcomes.window_moments((outcomes.observed / outcomes.scale_pct)[:, None])
    return np.asarray((moments.mean_abs[:, 0] - moments.spread / 2) * outcomes.scale_pct)


def _known_in_all(*losses: Floats) -> list[Floats]:
    """NaN in all where one is NaN, so that all are of the same queries."""
    finite = np.isfinite(losses).all(axis=0)
    return [np.where(finite, loss, np.nan) for loss in losses]


def _mixture_scores(
    ensemble: Ensemble, observed: Floats, distance_to_base: Floats, base: Moments, share: float
) -> tuple[Floats, Floats]:
    """The scores of share * ensemble + (1 - share) * window, from E|X-y| and E|X-X'|: as issued,
    and fair to the ensemble.
    """
    x, weights = ensemble
    between = (weights * distance_to_base).sum(axis=1)
    ensemble_error = (weights * np.abs(x - observed)).sum(axis=1)
    error = share * ensemble_error + (1 - share) * base.mean_abs[:, 0]
    issued, fair = _spreads(ensemble)
    rest = 2 * share * (1 - share) * between + (1 - share) ** 2 * base.spread
    return error - (share**2 * issued + rest) / 2, error - (share**2 * fair + rest) / 2


def _spreads(ensemble: Ensemble) -> tuple[Floats, Floats]:
    """The weighted means of |X - X'| over all pairs of members, and over different ones, (n,).

    Summed gap by gap, the weight below times the weight above, so that nothing cancels.
    """
    x, weights = ensemble
    weight_below = np.cumsum(weights, axis=1)[:, :-1]
    weight_above = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1][:, 1:]
    distances = (np.diff(x, axis=1) * weight_below * weight_above).sum(axis=1)
    return 2 * distances, distances / (weights[:, 1:] * weight_below).sum(axis=1)
