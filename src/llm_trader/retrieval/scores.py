"""Scores of forecasts at what happened: the CRPS, in the unit of the forecast, less is better."""

from __future__ import annotations

import numpy as np

from llm_trader.arrays import Floats


def sample_scores(values: Floats, observed: Floats) -> Floats:
    """The CRPS of samples (n, m), ascending, at the observations (n,), as they are issued."""
    n = values.shape[1]
    error = np.abs(values - observed[:, None]).mean(axis=1)
    # The mean of |X - X'| over all pairs, by the places of the ascending values.
    places = 2 * np.arange(1, n + 1) - n - 1
    return np.asarray(error - values @ places / n**2)


def quantile_scores(values: Floats, levels: Floats, observed: Floats) -> Floats:
    """Twice the quantile scores of values (n, levels) at the observations (n,), in the mean.

    Each level stands for those that are nearer to it than to another (Gneiting and Ranjan 2011).
    """
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    distance = observed[:, None] - values
    scores = np.where(distance >= 0, levels, levels - 1) * distance
    return np.asarray(2 * scores @ np.diff(edges))
